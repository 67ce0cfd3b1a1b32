"""Wrappers for `[[env.wrappers]]` that gymnasium does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from spark_rl.errors import UserError


class SelectObservation(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Shows only some elements of a flat Box observation, in the order of `indices`.

    With the velocities left out (CartPole-v1: indices = [0, 2]) a task needs a policy with a memory.
    Raises UserError where the observation is no flat Box or has no such element.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], indices: Sequence[int]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise UserError("SelectObservation", str(space), "a flat Box observation", "flatten it first")
        size = space.shape[0]
        if not indices or any(not 0 <= i < size for i in indices):
            raise UserError("SelectObservation indices", str(list(indices)), f"some of 0 to {size - 1}", "correct them")
        self._indices = np.asarray(indices, np.int64)
        self.observation_space = gymnasium.spaces.Box(
            space.low[self._indices], space.high[self._indices], dtype=space.dtype.type
        )

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """The chosen elements, [len(indices)]."""
        return observation[self._indices]
