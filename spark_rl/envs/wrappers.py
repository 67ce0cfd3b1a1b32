"""Wrappers for `[[env.wrappers]]` that gymnasium does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from spark_rl.errors import RunError, UserError

KEY = "action_mask"  # gymnasium's name for it


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


class MaskObservation(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Makes `info["action_mask"]` a part of the observation, so that it is recorded, carried and replayed with it.

    The observation becomes a Dict: the mask, one int8 for each choice, under "action_mask", beside the keys of a Dict
    observation or else beside "observation". Put it outermost. Raises RunError where an info has no mask of that size.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        inner = env.observation_space
        self._plain = not isinstance(inner, gymnasium.spaces.Dict)
        parts = {"observation": inner} if not isinstance(inner, gymnasium.spaces.Dict) else dict(inner.spaces)
        if isinstance(env.action_space, gymnasium.spaces.Discrete):
            self._choices = int(env.action_space.n)
        elif isinstance(env.action_space, gymnasium.spaces.MultiDiscrete):
            self._choices = int(env.action_space.nvec.sum())
        else:
            raise UserError("policy.action_mask 'info'", str(env.action_space), "Discrete or MultiDiscrete actions",
                            "use action_mask = 'off'")  # fmt: skip
        self.observation_space = gymnasium.spaces.Dict(parts | {KEY: gymnasium.spaces.MultiBinary(self._choices)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(observation, info, "reset"), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(observation, info, "step"), reward, terminated, truncated, info

    def _with_mask(self, observation: Any, info: dict[str, Any], where: str) -> dict[str, Any]:
        found = info.get(KEY, ())
        # gymnasium masks each component of a MultiDiscrete action with an array of its own.
        parts = [np.ravel(part) for part in found] if isinstance(found, tuple) else [np.ravel(found)]
        mask = np.concatenate([np.zeros(0, np.int8), *parts])
        if len(mask) != self._choices:
            raise RunError(f"the info of {where}", f"{len(mask)} numbers under {KEY!r}",
                           f"one for each of {self._choices} choices", "use action_mask = 'off'")  # fmt: skip
        shown = {"observation": observation} if self._plain else dict(observation)
        return shown | {KEY: mask.astype(np.int8)}
