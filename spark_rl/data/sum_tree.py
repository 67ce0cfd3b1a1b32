"""Numbers whose sum is kept, so that an index can be drawn with a probability proportional to its number.

Schaul's sum tree with wide nodes: 64 children instead of 2, so that a draw among a million leaves takes four array
operations on blocks instead of twenty steps down. B draws at once.
"""

from __future__ import annotations

import numpy as np

FAN = 64  # children of a node


class SumTree:
    """`capacity` numbers, all 0 at first. Equal leaves give equal sums to the bit, whatever their history.

    Source: Schaul et al. 2016, appendix B.2.1, arXiv:1511.05952.
    """

    def __init__(self, capacity: int) -> None:
        self._levels: list[np.ndarray] = []  # leaves first; float64, padded with zeros to whole blocks
        size = capacity
        while True:
            blocks = -(-size // FAN)
            self._levels.append(np.zeros(blocks * FAN))
            if blocks == 1:
                break
            size = blocks

    @property
    def total(self) -> float:
        """The sum of all leaves."""
        return float(np.cumsum(self._levels[-1])[-1])

    def get(self, index: np.ndarray) -> np.ndarray:
        """The numbers at `index`, float64."""
        values: np.ndarray = self._levels[0][index]
        return values

    def set(self, index: np.ndarray, value: np.ndarray | float) -> None:
        """Puts numbers >= 0 in their places; where an index is there twice, the last one counts."""
        self._levels[0][index] = value
        parent = index
        for below, level in zip(self._levels, self._levels[1:], strict=False):
            parent = parent // FAN
            if len(parent) > FAN:  # many leaves: each parent once
                parent = np.unique(parent)
            # Cumulative, because a pairwise sum's last bits might depend on how many blocks are summed together.
            level[parent] = np.cumsum(below.reshape(-1, FAN)[parent], axis=1)[:, -1]

    def find(self, mass: np.ndarray) -> np.ndarray:
        """The leaf in which each cumulative mass of [0, total) lies: [B] -> int64 [B], never one that is 0."""
        node = np.zeros(len(mass), np.int64)
        left = mass
        lane = np.arange(len(mass))
        for level in reversed(self._levels):
            ends = np.cumsum(level.reshape(-1, FAN)[node], axis=1)
            # Rounding may leave a little more than the block holds, which would give the child after the last.
            left = np.minimum(left, np.nextafter(ends[:, -1], 0.0))
            child = np.count_nonzero(ends <= left[:, None], axis=1)
            left = left - np.where(child > 0, ends[lane, child - 1], 0.0)
            node = node * FAN + child
        return node
