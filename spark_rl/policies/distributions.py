"""Action distributions on the learner's side: log-probabilities and entropies with gradients, in torch.

N rows, P distribution parameters a row. The numpy twins, which sample, are in `sampling`; a test holds them equal.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from spark_rl.policies.sampling import LOG_SQRT_2PI
from spark_rl.schema.spaces import Leaf


class Distribution(Protocol):
    """One action space's distribution family; `log_std` [D] belongs to box actions and is None otherwise."""

    num_params: int  # P, outputs of the policy head

    def target(self, action: np.ndarray, raw_action: np.ndarray | None) -> np.ndarray:
        """Stored actions as `log_prob` wants them, made once an update: [N, ...]."""

    def log_prob(self, params: Tensor, log_std: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
        """[N, P] -> log-probability of the target [N] and entropy [N], natural units."""


def distribution(leaf: Leaf) -> Distribution:
    """The distribution for an action space."""
    if leaf.kind == "discrete":
        return Categorical(leaf)
    if leaf.kind == "multi_discrete":
        return MultiCategorical(leaf)
    return Gaussian(leaf)


class Categorical:
    """One choice of n, from unnormalised log-probabilities."""

    def __init__(self, leaf: Leaf) -> None:
        self.num_params = leaf.n[0]
        self._start = leaf.start[0] if leaf.start else 0

    def target(self, action: np.ndarray, raw_action: np.ndarray | None) -> np.ndarray:
        """Indices from 0, int64 [N, 1]."""
        return (action.astype(np.int64) - self._start)[:, None]

    def log_prob(self, params: Tensor, log_std: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
        """See Distribution."""
        log_probs = torch.log_softmax(params, dim=1)
        return log_probs.gather(1, target).squeeze(1), -(log_probs.exp() * log_probs).sum(dim=1)


class MultiCategorical:
    """D independent choices; log-probabilities and entropies add up."""

    def __init__(self, leaf: Leaf) -> None:
        self.num_params = sum(leaf.n)
        self._n = leaf.n
        self._start = np.asarray(leaf.start or (0,) * len(leaf.n), np.int64)

    def target(self, action: np.ndarray, raw_action: np.ndarray | None) -> np.ndarray:
        """Indices from 0, int64 [N, D]."""
        indices: np.ndarray = action.reshape(len(action), -1).astype(np.int64) - self._start
        return indices

    def log_prob(self, params: Tensor, log_std: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
        """See Distribution."""
        log_probs = [torch.log_softmax(logits, dim=1) for logits in torch.split(params, list(self._n), dim=1)]
        chosen = [part.gather(1, target[:, d : d + 1]) for d, part in enumerate(log_probs)]
        # One product over all choices' probabilities instead of D small ones.
        joined = torch.cat(log_probs, dim=1)
        return torch.cat(chosen, dim=1).sum(dim=1), -(joined.exp() * joined).sum(dim=1)


class Gaussian:
    """Independent normals with a state-independent deviation; the target is the sample before clipping."""

    def __init__(self, leaf: Leaf) -> None:
        self.num_params = leaf.size

    def target(self, action: np.ndarray, raw_action: np.ndarray | None) -> np.ndarray:
        """Raw samples, float32 [N, D]; the action itself where no raw one was stored."""
        source = action if raw_action is None else raw_action
        return source.reshape(len(source), -1).astype(np.float32, copy=False)

    def log_prob(self, params: Tensor, log_std: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
        """See Distribution; differential entropy, the same for every row."""
        assert log_std is not None, "a Gaussian policy has a log_std"
        log_norm = log_std.sum() + self.num_params * LOG_SQRT_2PI
        scaled = (target - params) * (-log_std).exp()
        log_prob = scaled.square().sum(dim=1).mul(-0.5) - log_norm
        return log_prob, (log_norm + 0.5 * self.num_params).expand(len(target))
