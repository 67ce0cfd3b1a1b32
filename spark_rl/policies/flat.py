"""Named parameters in one flat vector, so that clipping, the optimizer and copies are each a call or two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spark_rl.errors import RunError


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named part of the flat vector: orthogonal with `gain` where that is positive, else filled with `value`."""

    name: str
    shape: tuple[int, ...]
    gain: float = 0.0
    value: float = 0.0

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


class FlatParameters:
    """The vector `flat` [P], in the order of `parameters`; equal seeds give equal bits."""

    def __init__(self, parameters: Sequence[Parameter], *, seed: int, device: torch.device) -> None:
        self.parameters = tuple(parameters)
        # Drawn on the CPU whatever the device, so that a seed means the same weights everywhere.
        rng = torch.Generator().manual_seed(seed)
        self.flat = torch.cat([_initial(parameter, rng).flatten() for parameter in parameters]).to(device)

    def views(self, flat: Tensor, parameters: Sequence[Parameter] | None = None) -> dict[str, Tensor]:
        """Name -> view of a vector that holds `parameters` (all of them if None) one after the other."""
        result, first = {}, 0
        for parameter in self.parameters if parameters is None else parameters:
            result[parameter.name] = flat[first : first + parameter.size].view(parameter.shape)
            first += parameter.size
        return result

    def weights(self) -> dict[str, np.ndarray]:
        """Name -> a copy of the parameter."""
        return {name: view.cpu().numpy().copy() for name, view in self.views(self.flat.detach()).items()}

    @torch.no_grad()
    def load_weights(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Inverse of `weights`; other names are ignored. RunError where a name is missing or has another shape."""
        for name, view in self.views(self.flat).items():
            got = tensors.get(name)
            if got is None or got.shape != tuple(view.shape):
                raise RunError(
                    f"weights {name!r}",
                    "nothing" if got is None else f"shape {list(got.shape)}",
                    f"shape {list(view.shape)}",
                    "these weights belong to another policy",
                )
            view.copy_(torch.from_numpy(np.ascontiguousarray(got)))


def leaves(views: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same views as leaves of autograd's graph: gradients can then be asked for, without a scatter into `flat`."""
    return {name: view.detach().requires_grad_() for name, view in views.items()}


def _initial(parameter: Parameter, rng: torch.Generator) -> Tensor:
    tensor = torch.full(parameter.shape, parameter.value)
    if parameter.gain > 0.0:
        torch.nn.init.orthogonal_(tensor, gain=parameter.gain, generator=rng)
    return tensor
