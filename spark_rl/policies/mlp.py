"""Two towers of equal shape, actor and critic, computed side by side with a backward pass written by hand.

Each layer of both towers is one batched product. Autograd gives the same gradient (a test holds it to that), but
2 x 64 units on 256 rows cost half as much this way on a CPU. N rows, F features, H units, P distribution parameters;
the leading 2 is (actor, critic).
"""

from __future__ import annotations

import torch
from torch import Tensor

from spark_rl.policies.features import width
from spark_rl.policies.flat import Parameter
from spark_rl.policies.networks import HEAD_GAIN, HIDDEN_GAIN, Memory, Network, Output, Slopes, num_params
from spark_rl.policies.spec import PolicySpec

TOWERS = ("actor", "critic")


class TwinMLP(Network):
    """`actor.{i}.weight` [out, in], `actor.{i}.bias`, `actor.head.*`, and the same for `critic`."""

    def __init__(self, spec: PolicySpec, *, seed: int, device: torch.device) -> None:
        self._sizes = (sum(width(leaf) for leaf in spec.visible.leaves), *spec.hidden)
        self._tanh = spec.activation == "tanh"
        parameters: list[Parameter] = []
        for i, (size, units) in enumerate(zip(self._sizes[:-1], self._sizes[1:], strict=True)):
            # Both towers' weights are neighbours, so that one view covers them.
            parameters += [Parameter(f"{tower}.{i}.weight", (units, size), HIDDEN_GAIN) for tower in TOWERS]
            parameters += [Parameter(f"{tower}.{i}.bias", (units,)) for tower in TOWERS]
        for tower, outputs in (("actor", num_params(spec)), ("critic", 1)):
            parameters.append(Parameter(f"{tower}.head.weight", (outputs, self._sizes[-1]), HEAD_GAIN[tower]))
            parameters.append(Parameter(f"{tower}.head.bias", (outputs,)))
        super().__init__(spec, parameters, seed=seed, device=device)
        # Views are made once: slicing costs as much as a small product.
        self._layers, self._heads = self._stacked(self.flat)
        self._layer_slopes, self._head_slopes = self._stacked(self.gradient)
        self._log_std = self.views(self.flat).get("log_std")
        self._log_std_slope = self.views(self.gradient).get("log_std")

    @torch.no_grad()
    def __call__(
        self, features: Tensor, images: list[Tensor], *, memory: Memory | None = None, learn: bool = False
    ) -> Output:
        """See Network; there are no images."""
        hidden = features.expand(2, *features.shape)
        saved = [hidden]
        for weight, bias in self._layers:
            hidden = torch.baddbmm(bias, hidden, weight.transpose(1, 2))
            hidden = hidden.tanh_() if self._tanh else hidden.relu_()
            saved.append(hidden)
        (actor, actor_bias), (critic, critic_bias) = self._heads
        params = torch.addmm(actor_bias, hidden[0], actor.t())
        value = torch.addmm(critic_bias, hidden[1], critic.t()).squeeze(1)
        return Output(params, self._log_std, value, saved if learn else [])

    @torch.no_grad()
    def backward(self, output: Output, slopes: Slopes) -> Tensor:
        """See Network."""
        last = output.saved[-1]
        slope = torch.empty(last.shape, device=last.device)
        for tower, at_head in enumerate((slopes.params, slopes.value.unsqueeze(1))):
            weight_slope, bias_slope = self._head_slopes[tower]
            torch.mm(at_head.t(), last[tower], out=weight_slope)
            torch.sum(at_head, 0, out=bias_slope)
            torch.mm(at_head, self._heads[tower][0], out=slope[tower])
        for i in range(len(self._layers) - 1, -1, -1):
            below, above = output.saved[i], output.saved[i + 1]
            if self._tanh:
                slope = torch.ops.aten.tanh_backward(slope, above, grad_input=slope)
            else:
                slope = torch.ops.aten.threshold_backward(slope, above, 0)
            weight_slope, bias_slope = self._layer_slopes[i]
            torch.bmm(slope.transpose(1, 2), below, out=weight_slope)
            torch.sum(slope, 1, keepdim=True, out=bias_slope)
            if i > 0:
                slope = torch.bmm(slope, self._layers[i][0])
        if slopes.log_std is not None and self._log_std_slope is not None:
            self._log_std_slope.copy_(slopes.log_std)
        return self.gradient

    def _stacked(self, flat: Tensor) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """Views for both towers: layers' weights [2, out, in] and biases [2, 1, out]; heads' [out, in] and [out]."""
        layers, first = [], 0
        for size, units in zip(self._sizes[:-1], self._sizes[1:], strict=True):
            middle, end = first + 2 * units * size, first + 2 * units * (size + 1)
            layers.append((flat[first:middle].view(2, units, size), flat[middle:end].view(2, 1, units)))
            first = end
        named = self.views(flat)
        return layers, [(named[f"{tower}.head.weight"], named[f"{tower}.head.bias"]) for tower in TOWERS]
