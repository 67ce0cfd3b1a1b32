"""RMSprop on one flat vector."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class FlatRMSprop:
    """Divides the gradient by the root of its decaying mean square; without momentum.

    Epsilon stands under the root, as published with A3C (torch.optim.RMSprop adds it outside).
    Source: Mnih et al. 2016, arXiv:1602.01783, equations S2 and S3.
    """

    def __init__(self, flat: Tensor, *, decay: float, eps: float) -> None:
        self._flat, self._decay, self._eps = flat, decay, eps
        self._square = torch.zeros_like(flat)

    @torch.no_grad()
    def step(self, gradient: Tensor, *, learning_rate: float) -> None:
        """Moves the vector against the gradient, [P]."""
        self._square.mul_(self._decay).addcmul_(gradient, gradient, value=1.0 - self._decay)
        self._flat.addcdiv_(gradient, self._square.add(self._eps).sqrt_(), value=-learning_rate)

    def state(self) -> dict[str, np.ndarray]:
        """`square` [P], copied."""
        return {"square": self._square.cpu().numpy().copy()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Inverse of `state`."""
        self._square.copy_(torch.from_numpy(state["square"].copy()))
