"""Action distributions on the acting side, in numpy and vectorised over N environments.

Parameters arrive component-major, [P, N]: with few actions, sums over components are then long vector operations
instead of many short ones. The torch twins, which give gradients, are in `distributions`.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from spark_rl.schema.spaces import Leaf

Sample = tuple[np.ndarray, np.ndarray | None, np.ndarray]  # action, raw action, log-probability float32 [N]

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


# The logit of a choice that is not allowed: its probability is 0 in float32, and unlike with an infinity, p log p is
# 0 too. Where nothing is allowed (the observation after an end), everything is equally probable.
MASKED = np.float32(-1e9)


def action_mask(values: np.ndarray) -> np.ndarray:
    """A mask leaf's values [N, *shape] as bool [N, P], True where the choice is allowed."""
    return values.reshape(len(values), -1) != 0


class Sampler(Protocol):
    """One action space's distribution family."""

    num_params: int  # P, outputs of the policy head

    def sample(self, params: np.ndarray, rng: np.random.Generator) -> Sample:
        """Draws one action a column of `params`, float32 [P, N]."""

    def mode(self, params: np.ndarray) -> Sample:
        """The most probable action of each column."""


def sampler(leaf: Leaf, log_std: np.ndarray | None = None) -> Sampler:
    """The sampler for an action space; `log_std`, float32 [P], belongs to box actions."""
    if leaf.kind == "discrete":
        return Categorical(leaf)
    if leaf.kind == "multi_discrete":
        return MultiCategorical(leaf)
    return Gaussian(leaf, np.zeros(leaf.size, np.float32) if log_std is None else log_std)


def _draw(logits: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of the cumulative distribution: [K, N] -> index [N], log-probability [N]; one uniform a column."""
    logits = logits - logits.max(axis=0)
    cumulative = np.cumsum(np.exp(logits), axis=0)
    total = cumulative[-1]
    threshold = rng.random(len(total), dtype=np.float32) * total
    # The last component is left out, so that rounding at the top cannot give index K.
    index = np.count_nonzero(cumulative[:-1] <= threshold, axis=0)
    return index, logits[index, np.arange(len(total))] - np.log(total)


def _peak(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most probable component: [K, N] -> index [N], log-probability [N]."""
    logits = logits - logits.max(axis=0)
    index = logits.argmax(axis=0)
    return index, -np.log(np.exp(logits).sum(axis=0))


class Categorical:
    """One choice of n, from unnormalised log-probabilities."""

    def __init__(self, leaf: Leaf) -> None:
        self.num_params = leaf.n[0]
        self._start = leaf.start[0] if leaf.start else 0

    def sample(self, params: np.ndarray, rng: np.random.Generator) -> Sample:
        """[n, N] -> action int64 [N]."""
        index, log_prob = _draw(params, rng)
        return index + self._start, None, log_prob

    def mode(self, params: np.ndarray) -> Sample:
        """[n, N] -> action int64 [N]; the first of equals."""
        index, log_prob = _peak(params)
        return index + self._start, None, log_prob


class MultiCategorical:
    """D independent choices, the d-th of n[d]; parameters are their logits one after the other."""

    def __init__(self, leaf: Leaf) -> None:
        self.num_params = sum(leaf.n)
        self._cuts = np.cumsum(leaf.n)[:-1]
        self._shape = leaf.shape
        self._start = np.asarray(leaf.start or (0,) * len(leaf.n), np.int64)

    def sample(self, params: np.ndarray, rng: np.random.Generator) -> Sample:
        """[sum(n), N] -> action int64 [N, *shape]."""
        return self._join([_draw(logits, rng) for logits in np.split(params, self._cuts)])

    def mode(self, params: np.ndarray) -> Sample:
        """[sum(n), N] -> action int64 [N, *shape]."""
        return self._join([_peak(logits) for logits in np.split(params, self._cuts)])

    def _join(self, draws: list[tuple[np.ndarray, np.ndarray]]) -> Sample:
        action = np.stack([index for index, _ in draws], axis=1) + self._start
        log_prob = np.stack([log_prob for _, log_prob in draws]).sum(axis=0)
        return action.reshape(len(action), *self._shape), None, log_prob


class Gaussian:
    """Independent normals whose deviation does not depend on the state; the environment gets the sample clipped.

    The log-probability is that of the unclipped sample: a density in (action units)^-D. The clip belongs to the
    environment, and counting it would take the gradient away wherever the sample lies outside the box.
    """

    def __init__(self, leaf: Leaf, log_std: np.ndarray) -> None:
        self.num_params = leaf.size
        self._shape, self._dtype = leaf.shape, np.dtype(leaf.dtype)
        self._low, self._high = (np.asarray(bound, np.float32) for bound in (leaf.low, leaf.high))
        self._std = np.exp(log_std.astype(np.float32))
        self._log_norm = np.float32(float(log_std.sum()) + leaf.size * LOG_SQRT_2PI)

    def sample(self, params: np.ndarray, rng: np.random.Generator) -> Sample:
        """Mean [D, N] -> action [N, *shape] in the box, raw action float32 [N, *shape]."""
        noise = rng.standard_normal(params.shape[::-1], dtype=np.float32)
        log_prob = np.float32(-0.5) * np.einsum("nd,nd->n", noise, noise) - self._log_norm
        return self._clip(params.T + noise * self._std, log_prob)

    def mode(self, params: np.ndarray) -> Sample:
        """Mean [D, N] -> itself, clipped."""
        return self._clip(params.T.copy(), np.full(params.shape[1], -self._log_norm, np.float32))

    def _clip(self, raw: np.ndarray, log_prob: np.ndarray) -> Sample:
        # Row-major [N, D] clips against flattened bounds whatever the action's shape.
        action = np.clip(raw, self._low, self._high).astype(self._dtype, copy=False)
        shape = (len(raw), *self._shape)
        return action.reshape(shape), raw.reshape(shape), log_prob
