"""Small worlds whose optimum is known, with their table of transitions in `P` as gymnasium's own have it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class DeepSea(gymnasium.Env[np.int64, np.int64]):
    """A chain that punishes looking: dithering finds the treasure once in 2^size episodes.

    The diver begins top left in a size x size grid, sinks one row a step, and goes left or right; which action is
    right differs from cell to cell. Going right costs 0.01 / size; from the bottom right corner it earns 1. Always
    right is the optimum: 0.99. Every episode has `size` steps. The state is row * size + column, as one number.

    Source: Osband et al. 2020, "Behaviour suite for reinforcement learning", arXiv:1908.03568, deep_sea.
    """

    MOVE_COST = 0.01

    def __init__(self, size: int = 10, mapping_seed: int = 0) -> None:
        self.size = size
        self.observation_space = gymnasium.spaces.Discrete(size * size)
        self.action_space = gymnasium.spaces.Discrete(2)
        # int8 [size, size]: the action that goes right.
        self._right = np.random.default_rng(mapping_seed).integers(0, 2, (size, size), np.int8)
        self._row = self._column = 0

    @property
    def initial_state_distrib(self) -> np.ndarray:
        """Where episodes begin, [states]."""
        start = np.zeros(self.size * self.size)
        start[0] = 1.0
        return start

    @property
    def P(self) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
        """state -> action -> [(probability, successor, reward, terminated)]."""
        return {
            s: {a: [(1.0, *self._outcome(s // self.size, s % self.size, a))] for a in (0, 1)}
            for s in range(self.size * self.size)
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.int64, dict]:
        """Top left, always."""
        super().reset(seed=seed)
        self._row = self._column = 0
        return np.int64(0), {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """One row down."""
        state, reward, terminated = self._outcome(self._row, self._column, int(action))
        self._row, self._column = self._row + 1, state % self.size
        return np.int64(state), reward, terminated, False, {}

    def _outcome(self, row: int, column: int, action: int) -> tuple[int, float, bool]:
        right = action == self._right[row, column]
        treasure = right and row == column == self.size - 1
        reward = float(treasure) - (self.MOVE_COST / self.size if right else 0.0)
        column = min(column + 1, self.size - 1) if right else max(column - 1, 0)
        # After the last step there is no row left to stand in; the bottom one is in the space.
        return min(row + 1, self.size - 1) * self.size + column, reward, row == self.size - 1
