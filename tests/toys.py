"""Environments made for the tests: each does one thing, and what it does can be computed by hand."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv


class Scripted(gymnasium.Env[np.ndarray, int]):
    """Counts. Observation [episode number, step], reward 100 * episode + step + action / 2.

    The seed decides how long the episode is (1 to 7 steps) and whether it terminates or is truncated.
    """

    observation_space = spaces.Box(-1e6, 1e6, (2,), np.float32)
    action_space = spaces.Discrete(3, start=1)

    def __init__(self) -> None:
        self.number = -1.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.number = float(self.np_random.integers(1000))
        self.length = int(self.np_random.integers(1, 8))
        self.truncates = bool(self.np_random.integers(2))
        self.t = 0
        return self.look(), {}

    def look(self) -> np.ndarray:
        return np.array([self.number, self.t], np.float32)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        over = self.t == self.length
        reward = 100 * self.number + self.t + action / 2
        return self.look(), reward, over and not self.truncates, over and self.truncates, {}


class ScriptedVector(VectorEnv[Any, Any, Any]):
    """Episodes that depend on (environment, ordinal) alone, in the autoreset mode that is asked for.

    Observation [environment, ordinal, step]; reward 100 * ordinal + step + action / 2. In NEXT_STEP mode the step that
    only resets returns a reward of -1,000,000, which must never become a row.
    """

    single_observation_space = spaces.Box(-1e6, 1e6, (3,), np.float32)
    single_action_space = spaces.Discrete(2)

    def __init__(self, num_envs: int, mode: str, max_episode_steps: int | None = None) -> None:
        self.num_envs = num_envs
        self.mode = AutoresetMode(mode)
        self.metadata = {"autoreset_mode": self.mode}
        self.observation_space = spaces.Box(-1e6, 1e6, (num_envs, 3), np.float32)
        self.action_space = spaces.MultiDiscrete([2] * num_envs)
        self.ordinal, self.t = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self.over = np.zeros(num_envs, bool)

    @staticmethod
    def length(env: int, ordinal: int) -> int:
        return 1 + (env * 7 + ordinal * 5) % 6

    @staticmethod
    def truncates(env: int, ordinal: int) -> bool:
        return (env + ordinal) % 3 == 0

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        if seed is not None:
            self.ordinal[:] = -1
        self.begin(mask)
        return self.look(), {}

    def begin(self, mask: np.ndarray) -> None:
        self.ordinal[mask] += 1
        self.t[mask] = 0
        self.over[mask] = False

    def look(self) -> np.ndarray:
        return np.stack([np.arange(self.num_envs), self.ordinal, self.t], axis=1).astype(np.float32)

    def step(self, action: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        resets = self.over.copy() if self.mode is AutoresetMode.NEXT_STEP else np.zeros(self.num_envs, bool)
        self.t[~resets] += 1
        reward = np.where(resets, -1e6, 100.0 * self.ordinal + self.t + np.asarray(action) / 2)
        ends = np.array([self.t[i] == self.length(i, self.ordinal[i]) for i in range(self.num_envs)]) & ~resets
        cut = np.array([self.truncates(i, self.ordinal[i]) for i in range(self.num_envs)])
        self.begin(resets)
        self.over = ends.copy()
        info: dict[str, Any] = {}
        if self.mode is AutoresetMode.SAME_STEP and ends.any():
            final = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(ends):
                final[i] = self.look()[i]
            info = {"final_obs": final, "_final_obs": ends.copy()}
            self.begin(ends)
        return self.look(), reward, ends & ~cut, ends & cut, info


class AnySpace(gymnasium.Env[Any, Any]):
    """Observations drawn from a space of every kind there is, with episodes of 1 to 9 steps."""

    SPACES: ClassVar[dict[str, spaces.Space[Any]]] = {
        "box": spaces.Box(-1, 1, (2, 3), np.float64),
        "scalar": spaces.Box(-1, 1, (), np.float32),
        "image": spaces.Box(0, 255, (4, 5, 3), np.uint8),
        "gray": spaces.Box(0, 255, (), np.uint8),
        "count": spaces.Box(-9, 9, (2,), np.int32),
        "discrete": spaces.Discrete(5, start=-2),
        "multi": spaces.MultiDiscrete([[2, 3], [4, 5]]),
        "binary": spaces.MultiBinary((3, 2)),
        "dict": spaces.Dict(
            {
                "camera": spaces.Dict({"front": spaces.Box(0, 255, (2, 2), np.uint8), "on": spaces.Discrete(2)}),
                "pose": spaces.Tuple((spaces.Box(-1, 1, (3,)), spaces.MultiBinary(4))),
            }
        ),
        "tuple": spaces.Tuple((spaces.Discrete(3), spaces.Dict({"x": spaces.Box(-1, 1, (1,))}))),
    }
    ACTIONS: ClassVar[dict[str, spaces.Space[Any]]] = {
        "discrete": spaces.Discrete(3, start=5),
        "multi": spaces.MultiDiscrete([3, 2]),
        "box": spaces.Box(-0.5, np.array([0.5, 2.0], np.float32), (2,)),
    }

    def __init__(self, space: str, action: str = "discrete") -> None:
        self.observation_space = self.SPACES[space]
        self.action_space = self.ACTIONS[action]
        self.left = 0

    def look(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 10))
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.left -= 1
        over = self.left == 0
        truncates = bool(self.np_random.integers(2))
        return self.look(), float(self.np_random.normal()), over and not truncates, over and truncates, {}


class Faulty(gymnasium.Env[Any, Any]):
    """Goes wrong in its third step, in the way that is asked for."""

    def __init__(self, fault: str, deaf: bool = False) -> None:
        discrete = fault == "outside"
        self.observation_space = spaces.Discrete(4) if discrete else spaces.Box(-9, 9, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.fault, self.discrete, self.deaf, self.t = fault, discrete, deaf, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        if self.fault == "reset":
            raise ArithmeticError("no way to begin")
        return self.look(), {}

    def look(self) -> Any:
        if self.discrete:
            return 4 if self.t == 3 else self.t
        values: Any = np.array([self.t, 0], np.float32)
        if self.t == 3 and self.fault == "nan observation":
            values[1] = np.nan
        if self.t == 3 and self.fault == "shape":
            values = np.float32(1.0)  # numpy would spread it over both numbers
        return values

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        if self.t == 3 and self.fault == "raise":
            raise ArithmeticError("the wheel came off")
        while self.t == 3 and self.fault == "hang":
            try:
                time.sleep(60)
            except Exception:
                if not self.deaf:
                    raise
                self.deaf = False
        return self.look(), float("nan") if self.t == 3 and self.fault == "nan reward" else 1.0, False, False, {}


class Moody(Scripted):
    """Deterministic until somebody sets `mood`: then every observation from step 3 on is off by it."""

    mood: ClassVar[float] = 0.0

    def look(self) -> np.ndarray:
        return super().look() + np.float32(self.mood if self.t >= 3 else 0.0)


class Random(Scripted):
    """Not deterministic: what it shows does not come from its seed."""

    def look(self) -> np.ndarray:
        return super().look() + np.float32(np.random.default_rng().random())


class Greedy(gymnasium.Env[Any, Any]):
    """Doubles the action that it is given in place, as careless environments do. Box actions of 2 numbers."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        action *= 2
        return action.copy(), float(action.sum()), False, False, {}


class Offset(gymnasium.RewardWrapper[Any, Any]):
    """A wrapper with an argument: adds to the reward."""

    def __init__(self, env: gymnasium.Env[Any, Any], by: float = 0.0) -> None:
        super().__init__(env)
        self.by = by

    def reward(self, reward: Any) -> Any:
        return reward + self.by


def function() -> None:
    """Something importable that is no environment."""


for _mode in AutoresetMode:
    gymnasium.register(
        f"toys/{_mode.name}-v0", vector_entry_point="toys:ScriptedVector", entry_point="toys:Scripted",
        kwargs={"mode": _mode.value},
    )  # fmt: skip
gymnasium.register("toys/Scripted-v0", entry_point="toys:Scripted", max_episode_steps=5)
