"""Actor-critic networks in torch, every parameter a named view of one flat vector.

On small networks an update is mostly interpreter and dispatch time: with one vector, gradient clipping is one norm
and Adam a handful of calls, whatever the number of layers. N rows, F flat features, P distribution parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from spark_rl.policies.distributions import family
from spark_rl.policies.features import Features
from spark_rl.policies.flat import FlatParameters, Parameter
from spark_rl.policies.spec import PolicySpec

HEAD_GAIN = {"actor": 0.01, "critic": 1.0}  # a near-uniform first policy; Andrychowicz et al. 2020, section 3.2
HIDDEN_GAIN = math.sqrt(2.0)


@dataclass(slots=True)
class Memory:
    """Where N rows lie in time, for a recurrent network: B sequences of at most T steps, each in a row of its own.

    Steps of the grid that hold no row are padding; they come after a sequence's last row, so nothing reads them.
    """

    state: Tensor  # float32 [B, S], before the first step of each sequence
    fresh: Tensor  # bool [T, B]: an episode begins at this step, so what was remembered before is forgotten
    place: Tensor  # int64 [N], position of each row in the grid, flattened row-major


@dataclass(slots=True)
class Output:
    """What the network says about N observations."""

    params: Tensor  # [N, P] of the action distribution
    log_std: Tensor | None  # [D] for box actions
    value: Tensor  # [N]
    saved: list[Tensor] = field(default_factory=list)  # what the network's own backward pass needs
    state: Tensor | None = None  # [B, S] after the last step of the grid; recurrent networks only


@dataclass(slots=True)
class Slopes:
    """Derivatives of the loss with respect to an Output's tensors, shaped as they are."""

    params: Tensor
    log_std: Tensor | None
    value: Tensor


class Network(FlatParameters):
    """Parameters, their names and their gradient; forward and backward pass are a subclass's.

    An algorithm gives the slopes at the output in closed form or from autograd, as it likes: the network asks for
    numbers only.
    """

    def __init__(self, spec: PolicySpec, parameters: list[Parameter], *, seed: int, device: torch.device) -> None:
        if spec.action.only.kind == "box":
            parameters = [*parameters, Parameter("log_std", (spec.action.only.size,), value=spec.log_std_init)]
        super().__init__(parameters, seed=seed, device=device)
        self.gradient = torch.zeros_like(self.flat)

    def __call__(
        self, features: Tensor, images: list[Tensor], *, memory: Memory | None = None, learn: bool = False
    ) -> Output:
        """Features [N, F] float32 and images uint8 [N, *shape] each, in the order of the space's leaves.

        With `learn`, the output keeps what `backward` needs. A recurrent network needs `memory`, others ignore it.
        """
        raise NotImplementedError

    def backward(self, output: Output, slopes: Slopes) -> Tensor:
        """Overwrites `gradient` with that of the loss whose derivatives at the output are `slopes`; returns it."""
        raise NotImplementedError


class AutogradNetwork(Network):
    """A network whose backward pass is autograd's."""

    def __init__(self, spec: PolicySpec, parameters: list[Parameter], *, seed: int, device: torch.device) -> None:
        super().__init__(spec, parameters, seed=seed, device=device)
        # Leaves of the graph that share the flat vector's memory: autograd then needs no scatter into it.
        self._named = self.views(self.flat)
        self._log_std = self._named.pop("log_std", None)  # no part of the graph: its slope comes from the algorithm
        for view in self._named.values():
            view.requires_grad_()

    def backward(self, output: Output, slopes: Slopes) -> Tensor:
        """See Network."""
        parts = torch.autograd.grad(
            [output.params, output.value], list(self._named.values()), [slopes.params, slopes.value]
        )
        if slopes.log_std is not None:
            parts = (*parts, slopes.log_std)  # the last parameter
        return torch.cat([part.flatten() for part in parts], out=self.gradient)

    def linear(self, name: str, x: Tensor) -> Tensor:
        """The layer of that name, [N, in] -> [N, out]."""
        return functional.linear(x, self._named[f"{name}.weight"], self._named[f"{name}.bias"])

    def heads(self, x: Tensor) -> Output:
        """Actor's and critic's linear heads on shared units [N, H]."""
        # Under bfloat16 autocast the heads' outputs come back as float32, which probabilities need.
        params, value = self.linear("actor.head", x).float(), self.linear("critic.head", x).float()
        return Output(params, self._log_std, value.squeeze(1))


def head_parameters(spec: PolicySpec, size: int) -> list[Parameter]:
    """Both heads' parameters, on `size` shared units."""
    result = []
    for tower, units in (("actor", num_params(spec)), ("critic", 1)):
        result.append(Parameter(f"{tower}.head.weight", (units, size), HEAD_GAIN[tower]))
        result.append(Parameter(f"{tower}.head.bias", (units,)))
    return result


def features_of(spec: PolicySpec) -> Features:
    """The encoding that the spec's network expects."""
    return Features(spec.visible, images=spec.network == "nature_cnn")


def num_params(spec: PolicySpec) -> int:
    """Outputs of the policy head."""
    return family(spec.action.only).num_params
