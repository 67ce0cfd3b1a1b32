"""Two towers of equal shape, actor and critic, computed side by side with a backward pass written by hand.

Each layer of both towers is one batched product. Autograd would give the same gradients (a test holds it to that),
but spends as much time again on its own graph: 2 x 64 units on 256 rows cost half as much this way on a CPU.
N rows, F features, H units, P distribution parameters; the leading 2 is (actor, critic).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spark_rl.policies.features import width
from spark_rl.policies.networks import HEAD_GAIN, HIDDEN_GAIN, Network, Output, Parameter, num_params
from spark_rl.policies.spec import PolicySpec

TOWERS = ("actor", "critic")


class TwinMLP(Network):
    """`actor.{i}.weight` [out, in], `actor.{i}.bias`, `actor.head.*`, and the same for `critic`."""

    def __init__(self, spec: PolicySpec, *, seed: int, device: torch.device) -> None:
        self._sizes = (sum(width(leaf) for leaf in spec.observation.leaves), *spec.hidden)
        self._tanh = spec.activation == "tanh"
        self._outputs = {"actor": num_params(spec), "critic": 1}
        parameters: list[Parameter] = []
        for i, (size, units) in enumerate(zip(self._sizes[:-1], self._sizes[1:], strict=True)):
            # Both towers' weights are neighbours, so that one view covers them.
            parameters += [Parameter(f"{tower}.{i}.weight", (units, size), HIDDEN_GAIN) for tower in TOWERS]
            parameters += [Parameter(f"{tower}.{i}.bias", (units,)) for tower in TOWERS]
        for tower in TOWERS:
            shape = (self._outputs[tower], self._sizes[-1])
            parameters += [Parameter(f"{tower}.head.weight", shape, HEAD_GAIN[tower])]
            parameters += [Parameter(f"{tower}.head.bias", shape[:1])]
        super().__init__(spec, parameters, seed=seed, device=device)
        self._gradient = torch.zeros_like(self.flat.data)
        self._weight = self._stacked(self.flat.data)
        self._slope = self._stacked(self._gradient)

    def __call__(self, features: Tensor, images: list[Tensor]) -> Output:
        """See Network; there are no images."""
        params, value, log_std = _Towers.apply(self.flat, features, self)  # type: ignore[no-untyped-call]
        return Output(params, log_std, value)

    def backward(self, loss: Tensor) -> Tensor:
        """See Network."""
        (gradient,) = torch.autograd.grad(loss, (self.flat,))
        self.flat.grad = gradient
        return gradient

    def _stacked(self, flat: Tensor) -> _Stacked:
        """Views of both towers at once: hidden weights [2, out, in], biases [2, 1, out]; then the heads'."""
        named, first = self.views(flat), 0
        layers = []
        for size, units in zip(self._sizes[:-1], self._sizes[1:], strict=True):
            weight = flat[first : first + 2 * units * size].view(2, units, size)
            first += 2 * units * size
            layers.append((weight, flat[first : first + 2 * units].view(2, 1, units)))
            first += 2 * units
        heads = [(named[f"{tower}.head.weight"], named[f"{tower}.head.bias"]) for tower in TOWERS]
        return _Stacked(layers, heads, named.get("log_std"))

    def forward_towers(self, features: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Every layer's activations [2, N, H], the features [2, N, F] first; params [N, P]; value [N]."""
        activations = [features.expand(2, *features.shape)]
        for weight, bias in self._weight.layers:
            hidden = torch.baddbmm(bias, activations[-1], weight.transpose(1, 2))
            activations.append(hidden.tanh_() if self._tanh else hidden.relu_())
        outputs = [
            torch.addmm(bias, hidden, weight.t())
            for hidden, (weight, bias) in zip(activations[-1].unbind(0), self._weight.heads, strict=True)
        ]
        return activations, outputs[0], outputs[1].squeeze(1)

    def backward_towers(self, activations: list[Tensor], outputs: tuple[Tensor, Tensor], log_std: Tensor) -> Tensor:
        """The gradient of all parameters from that of params [N, P], value [N, 1] and log_std [D]."""
        slope, weights = self._slope, self._weight
        last = activations[-1]
        delta = torch.empty(last.shape, device=last.device)
        for tower in (0, 1):
            torch.mm(outputs[tower].t(), last[tower], out=slope.heads[tower][0])
            torch.sum(outputs[tower], 0, out=slope.heads[tower][1])
            torch.mm(outputs[tower], weights.heads[tower][0], out=delta[tower])
        for i in range(len(weights.layers) - 1, -1, -1):
            output, (weight_slope, bias_slope) = activations[i + 1], slope.layers[i]
            if self._tanh:
                delta = torch.ops.aten.tanh_backward(delta, output)
            else:
                delta = torch.ops.aten.threshold_backward(delta, output, 0)
            torch.bmm(delta.transpose(1, 2), activations[i], out=weight_slope)
            torch.sum(delta, 1, keepdim=True, out=bias_slope)
            if i > 0:
                delta = torch.bmm(delta, weights.layers[i][0])
        if slope.log_std is not None:
            slope.log_std.copy_(log_std)
        return self._gradient.clone()


class _Stacked:
    """Views of a flat vector, made once: slicing costs as much as a small product."""

    def __init__(
        self, layers: list[tuple[Tensor, Tensor]], heads: list[tuple[Tensor, Tensor]], log_std: Tensor | None
    ) -> None:
        self.layers, self.heads, self.log_std = layers, heads, log_std


class _Towers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, features: Tensor, network: TwinMLP) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.network = network
        ctx.activations, params, value = network.forward_towers(features)
        log_std = network._weight.log_std
        return params, value, None if log_std is None else log_std.clone()

    @staticmethod
    def backward(ctx: Any, params: Tensor, value: Tensor, log_std: Tensor) -> tuple[Tensor, None, None]:
        gradient = ctx.network.backward_towers(ctx.activations, (params, value.unsqueeze(1)), log_std)
        return gradient, None, None
