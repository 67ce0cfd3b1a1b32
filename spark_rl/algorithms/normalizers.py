"""Running statistics that a learner keeps: of the observations' features, and of the discounted return."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spark_rl.data.sequences import Fragments

CLIP = 10.0  # scaled rewards are held within this many standard deviations; OpenAI baselines' VecNormalize
EPS = 1e-8  # added to the variance; same source


class RunningMoments:
    """Mean and variance of a stream of rows, [size] each, merged batch by batch in float64.

    Source: Chan, Golub & LeVeque 1979 (parallel form of Welford's recurrence): stable for large means.
    """

    def __init__(self, size: int) -> None:
        self.mean = np.zeros(size)
        self.var = np.ones(size)  # without rows, normalising changes nothing
        self.count = 0

    def merge(self, rows: np.ndarray) -> None:
        """Adds rows [N, size]; the variance is the population's (divided by the count)."""
        if len(rows) == 0:
            return
        mean, var = rows.mean(axis=0, dtype=np.float64), rows.var(axis=0, dtype=np.float64)
        total = self.count + len(rows)
        delta = mean - self.mean
        squares = self.var * self.count + var * len(rows) + delta**2 * (self.count * len(rows) / total)
        self.mean = self.mean + delta * (len(rows) / total)
        self.var, self.count = squares / total, total

    def state(self) -> dict[str, np.ndarray]:
        """`mean`, `var` and `count`, copied."""
        return {"mean": self.mean.copy(), "var": self.var.copy(), "count": np.asarray(self.count, np.int64)}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Inverse of `state`."""
        self.mean, self.var, self.count = state["mean"].copy(), state["var"].copy(), int(state["count"])


class RewardScaler:
    """Divides rewards by the running standard deviation of every environment's discounted return.

    The mean stays, because taking it off would change what is optimal where episodes differ in length. The return
    accumulates forward in time, R <- discount * R + r, goes on across iterations and restarts after an end.
    Source: Engstrom et al. 2020, arXiv:2005.12729, section 2; OpenAI baselines' VecNormalize.
    """

    def __init__(self, num_envs: int, *, discount: float) -> None:
        self._discount = discount
        self.moments = RunningMoments(1)
        self.running = np.zeros(num_envs)  # R of every environment, reward units

    def update(self, reward: np.ndarray, ended: np.ndarray, layout: Fragments) -> None:
        """Takes in rewards [N] and the rows after which the episode does not go on, bool [N]."""
        rewards, ends = layout.pack(reward), layout.pack(ended)
        present = layout.pack(np.ones(len(reward), bool))
        # One lane a fragment; fragments of one environment (several iterations in a batch) go one after the other.
        returns = np.empty_like(rewards)
        for column in _rounds(layout.env_index):
            env = layout.env_index[column]
            running = self.running[env]
            for t in range(layout.length):
                step = present[t, column]
                running = np.where(step, self._discount * running + rewards[t, column], running)
                returns[t, column] = running
                running = np.where(ends[t, column], 0.0, running)
            self.running[env] = running
        self.moments.merge(layout.unpack(returns)[:, None])

    def scale(self, reward: np.ndarray) -> np.ndarray:
        """[N] -> [N], clipped."""
        scaled: np.ndarray = np.clip(reward / np.sqrt(self.moments.var[0] + EPS), -CLIP, CLIP)
        return scaled

    def state(self) -> dict[str, np.ndarray]:
        """The moments and the unfinished returns."""
        return {**self.moments.state(), "running": self.running.copy()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Inverse of `state`."""
        self.moments.load(state)
        self.running = state["running"].copy()


def _rounds(env_index: np.ndarray) -> list[np.ndarray]:
    """Columns grouped so that no environment is twice in a group, in order."""
    seen: dict[int, int] = {}
    turn = np.empty(len(env_index), np.int64)
    for column, env in enumerate(env_index.tolist()):
        turn[column] = seen[env] = seen.get(env, -1) + 1
    return [np.flatnonzero(turn == k) for k in range(int(turn.max()) + 1)]
