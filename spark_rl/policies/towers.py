"""E MLPs of equal shape side by side, each layer of all of them one product: twin critics, and single actors.

N rows, F features. The gradient is autograd's.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from spark_rl.policies.flat import FlatParameters, Parameter

HIDDEN_GAIN = math.sqrt(2.0)


class Towers(FlatParameters):
    """`{name}.{i}.weight` [out, in], `{name}.{i}.bias` and `{name}.head.*` for each of the E `names`."""

    def __init__(
        self,
        names: tuple[str, ...],
        sizes: tuple[int, ...],
        *,
        tanh: bool,
        head_gain: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self._tanh = tanh
        self._num = len(names)
        parameters: list[Parameter] = []
        layers = [*map(str, range(len(sizes) - 2)), "head"]
        for layer, inputs, outputs in zip(layers, sizes[:-1], sizes[1:], strict=True):
            gain = head_gain if layer == "head" else HIDDEN_GAIN
            # Neighbours, so that one view covers all towers.
            parameters += [Parameter(f"{name}.{layer}.weight", (outputs, inputs), gain) for name in names]
            parameters += [Parameter(f"{name}.{layer}.bias", (outputs,)) for name in names]
        super().__init__(parameters, seed=seed, device=device)
        self.leaves: list[Tensor] = []  # weight and bias of each layer, [E, out, in] and [E, 1, out], in flat's memory
        first = 0
        for inputs, outputs in pairwise(sizes):
            for shape in ((self._num, outputs, inputs), (self._num, 1, outputs)):
                end = first + math.prod(shape)
                self.leaves.append(self.flat[first:end].view(shape).requires_grad_())
                first = end

    def __call__(self, features: Tensor, *, learn: bool = False) -> Tensor:
        """[N, F] -> [E, N, out]. With `learn`, gradients may be asked for: of `leaves`, and of the features."""
        with torch.set_grad_enabled(learn):
            if self._num == 1:
                return self._single(features).unsqueeze(0)
            x = features.expand(self._num, *features.shape)
            pairs = list(zip(self.leaves[::2], self.leaves[1::2], strict=True))
            for weight, bias in pairs[:-1]:
                x = self._activate(torch.baddbmm(bias, x, weight.transpose(1, 2)))
            weight, bias = pairs[-1]
            return torch.baddbmm(bias, x, weight.transpose(1, 2))

    def gradient(self, output: Tensor, slope: Tensor | None = None) -> Tensor:
        """The gradient [P] of a loss: of `output` itself where it is a number, else from its derivative there."""
        parts = torch.autograd.grad(output, self.leaves, slope)
        return torch.cat([part.flatten() for part in parts])

    def _single(self, x: Tensor) -> Tensor:
        pairs = list(zip(self.leaves[::2], self.leaves[1::2], strict=True))
        for weight, bias in pairs[:-1]:
            x = self._activate(functional.linear(x, weight[0], bias[0, 0]))
        return functional.linear(x, pairs[-1][0][0], pairs[-1][1][0, 0])

    def _activate(self, x: Tensor) -> Tensor:
        return x.tanh() if self._tanh else x.relu()


def squash(outputs: Tensor, noise: Tensor, log_std_range: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """A squashed Gaussian's samples and their log-densities, differentiable: [N, 2 D], [N, D] -> [N, D], [N].

    Samples lie in [-1, 1]. Source: Haarnoja et al. 2018, appendix C, arXiv:1801.01290.
    """
    mean, log_std = outputs.chunk(2, dim=1)
    log_std = log_std.clamp(*log_std_range)
    before = mean + log_std.exp() * noise
    # log(1 - tanh(x)^2) without cancellation: 2 (log 2 - x - softplus(-2 x)).
    log_slope = 2.0 * (math.log(2.0) - before - functional.softplus(-2.0 * before))
    constant = 0.5 * math.log(2.0 * math.pi)
    density = -0.5 * noise.square() - log_std - constant - log_slope
    return before.tanh(), density.sum(dim=1)
