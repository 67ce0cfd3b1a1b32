"""One number for every observation of a finite space, so that a table can be looked up. N observations, S states."""

from __future__ import annotations

import math

import numpy as np

from spark_rl.errors import UserError
from spark_rl.policies.features import Observation
from spark_rl.schema.spaces import Leaf, SpaceSpec


class StateIndex:
    """Mixed radix over the leaves in their order, the first leaf most significant.

    Raises UserError for a space with a box in it: it has no finite number of observations.
    """

    def __init__(self, space: SpaceSpec) -> None:
        boxes = [leaf.name or "the observation" for leaf in space.leaves if leaf.kind == "box"]
        if boxes:
            raise UserError("observation space", f"{', '.join(boxes)} is a box", "discrete leaves, for a table",
                            "discretise it with a wrapper, or choose an algorithm with a network")  # fmt: skip
        self._leaves = space.leaves
        self._radix = tuple(n for leaf in space.leaves for n in _choices(leaf))
        self.size = math.prod(self._radix)

    def index(self, observation: Observation) -> np.ndarray:
        """{leaf: [N, *shape]} -> int64 [N] in [0, size)."""
        state: np.ndarray | None = None
        radix = iter(self._radix)
        for leaf in self._leaves:
            values = observation[leaf.name].astype(np.int64, copy=False).reshape(len(observation[leaf.name]), -1)
            digits = values - np.asarray(leaf.start or (0,), np.int64)
            for column in digits.T:
                n = next(radix)
                state = column if state is None else state * n + column
        assert state is not None
        return state

    def observation(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Inverse of `index`: int64 [N] -> {leaf: [N, *shape]}."""
        digits: list[np.ndarray] = []
        rest = np.asarray(state, np.int64)
        for n in reversed(self._radix):
            rest, digit = np.divmod(rest, n)
            digits.append(digit)
        digits.reverse()
        found, first = {}, 0
        for leaf in self._leaves:
            columns = np.stack(digits[first : first + leaf.size], axis=1) + np.asarray(leaf.start or (0,), np.int64)
            found[leaf.name] = columns.reshape(len(columns), *leaf.shape).astype(leaf.dtype)
            first += leaf.size
        return found


def _choices(leaf: Leaf) -> tuple[int, ...]:
    return (2,) * leaf.size if leaf.kind == "multi_binary" else leaf.n
