"""Action-value networks on the learner's side: MLP and Nature CNN, plain or dueling, exact or noisy.

N rows, A actions, K numbers an action. The gradient is autograd's; the slopes at the output are the algorithm's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from spark_rl.policies.cnn import CONVOLUTIONS, channels_first, encoded_size, image_shape
from spark_rl.policies.features import Features
from spark_rl.policies.flat import FlatParameters, Parameter, leaves
from spark_rl.policies.q_layers import NOISE, Head, Layer, layers
from spark_rl.policies.spec import PolicySpec

HIDDEN_GAIN = math.sqrt(2.0)
HEAD_GAIN = 0.1  # first values near 0, first distributions near uniform; with 1 CartPole's DQN is less reliable
SIGMA = 0.5  # initial deviation of a noisy weight times the square root of its layer's inputs; Fortunato et al. 3.2


class QNetwork(FlatParameters):
    """`encoder.{leaf}.{i}.*` of a CNN, then the layers of `q_layers`; of noisy layers also the deviations.

    Noisy layers have weights of mean mu and deviation sigma whose noise is the outer product of two short vectors.
    Source: Fortunato et al. 2018, section 3 (b), arXiv:1706.10295.
    """

    def __init__(self, spec: PolicySpec, head: Head, *, seed: int, device: torch.device) -> None:
        self.head = head
        features = Features(spec.observation, images=spec.network == "nature_cnn")
        self._images = features.image_leaves
        self._tanh = spec.activation == "tanh"
        exact: list[Parameter] = []
        size = features.size
        for number, leaf in enumerate(self._images):
            channels = image_shape(leaf)[0]
            for i, (units, side, _) in enumerate(CONVOLUTIONS):
                exact.append(Parameter(f"encoder.{number}.{i}.weight", (units, channels, side, side), HIDDEN_GAIN))
                exact.append(Parameter(f"encoder.{number}.{i}.bias", (units,)))
                channels = units
            size += encoded_size(leaf)
        self.layers = layers(size, spec.hidden, head)
        linear: list[Parameter] = []
        for layer in self.layers.all:
            gain = HEAD_GAIN if layer.name.endswith("head") else HIDDEN_GAIN
            linear.append(Parameter(f"{layer.name}.weight", (layer.outputs, layer.inputs), gain))
            linear.append(Parameter(f"{layer.name}.bias", (layer.outputs,)))
        sigma = [
            Parameter(p.name + NOISE, p.shape, value=SIGMA / math.sqrt(layer.inputs))
            for layer, pair in zip(self.layers.all, zip(linear[::2], linear[1::2], strict=True), strict=True)
            for p in pair
        ]
        super().__init__([*exact, *linear, *(sigma if head.noisy else [])], seed=seed, device=device)
        first = sum(p.size for p in exact)
        self._mu, self._sigma = self.flat[first : self._end(exact, linear)], self.flat[self._end(exact, linear) :]
        # What the layers multiply by: the parameters themselves or, if noisy, a perturbed copy.
        self._used = self.flat[: self._end(exact, linear)].clone() if head.noisy else self.flat
        self._used_linear = self._used[first:]
        self._exact_size = first
        self._noise = torch.zeros_like(self._mu)
        self._noise_views = self.views(self._noise, linear)
        self._named = leaves(self.views(self._used, [*exact, *linear]))
        self._leaves = list(self._named.values())

    @staticmethod
    def _end(*parts: list[Parameter]) -> int:
        return sum(p.size for part in parts for p in part)

    @property
    def noise_size(self) -> int:
        """Random numbers that `perturb` takes; 0 for exact layers."""
        return sum(layer.inputs + layer.outputs for layer in self.layers.all) if self.head.noisy else 0

    @torch.no_grad()
    def perturb(self, normal: Tensor) -> None:
        """Draws new noise for all noisy layers, from standard normals [noise_size]."""
        if not self.head.noisy:
            return
        shaped = normal.sign() * normal.abs().sqrt_()
        first = 0
        for layer in self.layers.all:
            middle, end = first + layer.inputs, first + layer.inputs + layer.outputs
            out = self._noise_views[f"{layer.name}.bias"].copy_(shaped[middle:end])
            torch.outer(out, shaped[first:middle], out=self._noise_views[f"{layer.name}.weight"])
            first = end
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Makes noisy layers use the parameters as they are now, with the noise that was drawn last."""
        if self.head.noisy:
            self._used[: self._exact_size] = self.flat[: self._exact_size]
            torch.addcmul(self._mu, self._sigma, self._noise, out=self._used_linear)

    def __call__(self, features: Tensor, images: list[Tensor], *, learn: bool = False) -> Tensor:
        """Features [N, F] float32 and images uint8 [N, *shape] -> [N, A, K]; with `learn`, `backward` may follow."""
        with torch.set_grad_enabled(learn):
            x = self._encode(features, images) if self._images else features
            for layer in self.layers.trunk:
                x = self._activate(self._linear(layer, x))
            outputs = []
            for stream in self.layers.streams:
                y = x
                for layer in stream[:-1]:
                    y = self._activate(self._linear(layer, y))
                # Under bfloat16 autocast the values come back as float32.
                outputs.append(self._linear(stream[-1], y).float())
            scores = outputs[0].view(len(x), self.head.num_actions, self.head.num_atoms)
            if self.head.dueling:
                scores = scores - scores.mean(dim=1, keepdim=True) + outputs[1][:, None, :]
            return scores

    def backward(self, scores: Tensor, slope: Tensor) -> Tensor:
        """The gradient [P] of the loss whose derivative at the scores is `slope`, [N, A, K] both."""
        parts = torch.autograd.grad(scores, self._leaves, slope)
        gradient = torch.cat([part.flatten() for part in parts])
        if not self.head.noisy:
            return gradient
        return torch.cat([gradient, gradient[self._exact_size :] * self._noise])

    def _linear(self, layer: Layer, x: Tensor) -> Tensor:
        return functional.linear(x, self._named[f"{layer.name}.weight"], self._named[f"{layer.name}.bias"])

    def _activate(self, x: Tensor) -> Tensor:
        return x.tanh() if self._tanh else x.relu()

    def _encode(self, features: Tensor, images: list[Tensor]) -> Tensor:
        parts = [features]
        for number, (leaf, image) in enumerate(zip(self._images, images, strict=True)):
            x = channels_first(leaf, image).float() * (1.0 / 255.0)
            for i, (_, _, stride) in enumerate(CONVOLUTIONS):
                name = f"encoder.{number}.{i}"
                x = functional.conv2d(x, self._named[f"{name}.weight"], self._named[f"{name}.bias"], stride).relu()
            parts.append(x.flatten(1))
        return torch.cat(parts, dim=1)
