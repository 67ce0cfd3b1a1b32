"""The Nature CNN: three convolutions an image leaf, then layers that actor and critic share.

Source: Mnih et al. 2015 (DQN), as PPO uses it on Atari: one trunk, two linear heads. N rows, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from spark_rl.errors import UserError
from spark_rl.policies.flat import Parameter
from spark_rl.policies.networks import HIDDEN_GAIN, AutogradNetwork, Memory, Output, features_of, head_parameters
from spark_rl.policies.spec import PolicySpec
from spark_rl.schema.spaces import Leaf

CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # output channels, kernel side, stride; pixels


class NatureCNN(AutogradNetwork):
    """`encoder.{leaf}.{i}.weight`, then `trunk.{i}.weight`, `actor.head.*`, `critic.head.*`."""

    def __init__(self, spec: PolicySpec, *, seed: int, device: torch.device) -> None:
        features = features_of(spec)
        self._leaves = features.image_leaves
        self._num_layers = len(spec.hidden)
        self._tanh = spec.activation == "tanh"
        parameters: list[Parameter] = []
        size = features.size
        for number, leaf in enumerate(self._leaves):
            channels = image_shape(leaf)[0]
            for i, (units, side, _) in enumerate(CONVOLUTIONS):
                parameters.append(Parameter(f"encoder.{number}.{i}.weight", (units, channels, side, side), HIDDEN_GAIN))
                parameters.append(Parameter(f"encoder.{number}.{i}.bias", (units,)))
                channels = units
            size += encoded_size(leaf)
        for i, units in enumerate(spec.hidden):
            parameters.append(Parameter(f"trunk.{i}.weight", (units, size), HIDDEN_GAIN))
            parameters.append(Parameter(f"trunk.{i}.bias", (units,)))
            size = units
        super().__init__(spec, [*parameters, *head_parameters(spec, size)], seed=seed, device=device)

    def __call__(
        self, features: Tensor, images: list[Tensor], *, memory: Memory | None = None, learn: bool = False
    ) -> Output:
        """See Network; the backward pass is autograd's."""
        with torch.set_grad_enabled(learn):
            return self._forward(features, images)

    def _forward(self, features: Tensor, images: list[Tensor]) -> Output:
        parts = [features]
        for number, (leaf, image) in enumerate(zip(self._leaves, images, strict=True)):
            x = channels_first(leaf, image).float() * (1.0 / 255.0)
            for i, (_, _, stride) in enumerate(CONVOLUTIONS):
                name = f"encoder.{number}.{i}"
                x = functional.conv2d(x, self._named[f"{name}.weight"], self._named[f"{name}.bias"], stride).relu()
            parts.append(x.flatten(1))
        x = torch.cat(parts, dim=1)
        for i in range(self._num_layers):
            x = self.linear(f"trunk.{i}", x)
            x = x.tanh() if self._tanh else x.relu()
        return self.heads(x)


def image_shape(leaf: Leaf) -> tuple[int, int, int]:
    """Channels, height and width of an image leaf [H, W], [H, W, C] or [C, H, W]; the shorter end is the channels."""
    if len(leaf.shape) == 2:
        return (1, leaf.shape[0], leaf.shape[1])
    if leaf.shape[0] <= leaf.shape[2]:
        return (leaf.shape[0], leaf.shape[1], leaf.shape[2])
    return (leaf.shape[2], leaf.shape[0], leaf.shape[1])


def channels_first(leaf: Leaf, image: Tensor) -> Tensor:
    """[N, *shape] -> [N, C, H, W], a view."""
    if len(leaf.shape) == 2:
        return image.unsqueeze(1)
    return image if leaf.shape[0] <= leaf.shape[2] else image.permute(0, 3, 1, 2)


def encoded_size(leaf: Leaf) -> int:
    """Features of an image after the convolutions; UserError where it is smaller than they need."""
    _, *sides = image_shape(leaf)
    for _, side, stride in CONVOLUTIONS:
        sides = [(pixels - side) // stride + 1 for pixels in sides]
        if min(sides) < 1:
            raise UserError(
                f"observation leaf {leaf.name!r}",
                f"an image of shape {list(leaf.shape)}",
                "at least 36 x 36 pixels for network = 'nature_cnn'",
                "resize it with a wrapper or use network = 'mlp'",
            )
    return CONVOLUTIONS[-1][0] * sides[0] * sides[1]
