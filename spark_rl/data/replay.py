"""A window of the committed iterations in memory: one copy of every row, and samples of n-step transitions from it.

The window is the newest iterations whose rows fit `capacity`, whole iterations only; so the committed dataset alone,
read again in order, rebuilds it. C rows of capacity, B sampled rows, n steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spark_rl.data.batch import Batch
from spark_rl.data.sum_tree import SumTree
from spark_rl.errors import RunError
from spark_rl.schema.spaces import SpaceSpec

_NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Sample:
    """B n-step transitions. The target of a value is `reward + bootstrap * value(next_observation)`."""

    observation: dict[str, np.ndarray]  # leaf -> [B, *shape], in the stored dtype
    action: np.ndarray  # [B] or [B, *shape]
    reward: np.ndarray  # float64 [B], discounted sum of up to n rewards
    bootstrap: np.ndarray  # float64 [B], discount ** steps; 0 after a real end
    next_observation: dict[str, np.ndarray]  # the true successor of the last step, before any reset


class Replay:
    """The rows of the window, and how they hang together.

    A row's successor is the row after it or, at ends of episodes and fragments, its final observation. Its
    continuation is the next row of its episode, which may lie in the next iteration: environments go on. Observations
    stay in their stored dtype. With `prioritized`, every row has a priority, and new rows the largest one so far.
    """

    def __init__(self, observation: SpaceSpec, action: SpaceSpec, *, capacity: int, prioritized: bool = False) -> None:
        self.capacity = capacity
        # np.empty takes no memory until a row is written.
        self._observation = {leaf.name: np.empty((capacity, *leaf.shape), leaf.dtype) for leaf in observation.leaves}
        self._final = {leaf.name: np.empty((0, *leaf.shape), leaf.dtype) for leaf in observation.leaves}
        self._free = np.zeros(0, np.int64)  # places in _final that no row uses
        self._action = np.empty((capacity, *action.only.shape), action.only.dtype)
        self._reward = np.empty(capacity)
        self._terminated = np.empty(capacity, bool)
        self._final_place = np.empty(capacity, np.int64)  # of a row's own successor in _final, or _NOWHERE
        self._continuation = np.empty(capacity, np.int64)  # the place of the next row of the episode, or _NOWHERE
        self._tree = SumTree(capacity) if prioritized else None
        self._max_priority = 1.0
        self._start = 0  # place of the oldest row
        self._window: dict[int, int] = {}  # iteration -> rows, oldest first
        # Environment -> iteration, place, episode and t of its newest row.
        self._tail: dict[int, tuple[int, int, int, int]] = {}
        self._to_recall: dict[int, int] = {}
        self._recalled_priority = np.zeros(0)

    @property
    def num_rows(self) -> int:
        """Rows in the window."""
        return sum(self._window.values())

    @property
    def to_recall(self) -> list[int]:
        """Iterations that a loaded state spoke of and that have not been given again."""
        return list(self._to_recall)

    @property
    def iterations(self) -> list[int]:
        """The window, oldest first."""
        return list(self._window)

    @property
    def oldest(self) -> int:
        """The first iteration of the window; RunError while it is empty."""
        if not self._window:
            raise RunError("replay", "no rows", "at least one iteration", "this is a defect in spark_rl")
        return next(iter(self._window))

    def append(self, batch: Batch, iteration: int) -> None:
        """Takes in the rows of the next iteration, and lets go of the oldest iterations that no longer fit.

        Raises RunError when the iteration alone is larger than the capacity, or when others must be recalled first.
        """
        if self._to_recall:
            raise RunError("replay", f"iteration {iteration}", f"iteration {next(iter(self._to_recall))} first",
                           "give a restored learner its window again (recall)")  # fmt: skip
        if batch.num_rows > self.capacity:
            raise RunError(
                "replay", f"{batch.num_rows:,} rows in iteration {iteration}", f"at most {self.capacity:,}",
                "raise algorithm.replay_capacity, or lower rollout.steps_per_env",
            )  # fmt: skip
        while self.num_rows + batch.num_rows > self.capacity:
            self._evict()
        place = self._write(batch, iteration)
        if self._tree is not None:
            self._tree.set(place, self._max_priority)

    def recall(self, batch: Batch, iteration: int) -> None:
        """Takes an iteration of `to_recall` in again, in order, into the places that it had.

        Raises RunError for another iteration, or for another number of rows than it had.
        """
        wanted = next(iter(self._to_recall.items()), None)
        if wanted != (iteration, batch.num_rows):
            raise RunError(
                "replay", f"iteration {iteration} with {batch.num_rows:,} rows", f"iteration and rows {wanted}",
                "the dataset is not the one that was learned from",
            )  # fmt: skip
        del self._to_recall[iteration]
        done = self.num_rows
        place = self._write(batch, iteration)
        if self._tree is not None:
            self._tree.set(place, self._recalled_priority[done : done + batch.num_rows])

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Places of `size` rows, each as likely as any other, int64 [size]."""
        place: np.ndarray = (self._start + rng.integers(0, self.num_rows, size)) % self.capacity
        return place

    def draw_prioritized(self, rng: np.random.Generator, size: int, *, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """Places drawn in proportion to priority, one from each of `size` equal parts of the mass; importance weights.

        The weights are (1 / (rows * probability)) ** beta over the largest of the sample, float32 [size].
        Source: Schaul et al. 2016, section 3.4 and appendix B.2.1, arXiv:1511.05952.
        """
        assert self._tree is not None, "made without priorities"
        total = self._tree.total
        place = self._tree.find((np.arange(size) + rng.random(size)) * (total / size))
        weight = (self.num_rows * self._tree.get(place) / total) ** -beta
        return place, (weight / weight.max()).astype(np.float32)

    def set_priorities(self, place: np.ndarray, priority: np.ndarray) -> None:
        """New priorities > 0 of rows that were drawn."""
        assert self._tree is not None, "made without priorities"
        self._tree.set(place, priority)
        self._max_priority = max(self._max_priority, float(priority.max()))

    def sample(self, place: np.ndarray, *, num_steps: int, discount: float) -> Sample:
        """The n-step transitions that begin at these rows.

        A transition takes in `num_steps` rewards, or fewer where the episode ends, is truncated, or has not been
        collected any further; it then bootstraps from the state it came to, unless that was a real end.
        """
        last = place
        reward = self._reward[place]
        factor = np.full(len(place), discount)
        for _ in range(num_steps - 1):
            following = self._continuation[last]
            goes_on = following != _NOWHERE
            if not goes_on.any():
                break
            last = np.where(goes_on, following, last)
            reward = reward + np.where(goes_on, factor * self._reward[last], 0.0)
            factor = np.where(goes_on, factor * discount, factor)
        return Sample(
            observation={name: values[place] for name, values in self._observation.items()},
            action=self._action[place],
            reward=reward,
            bootstrap=np.where(self._terminated[last], 0.0, factor),
            next_observation=self._successors(last),
        )

    def state(self) -> dict[str, Any]:
        """Which rows there are and where, and their priorities; not the rows themselves, which the dataset has."""
        if self._to_recall:
            raise RunError("replay", "a state asked for half-way through recall", "the whole window", "a defect")
        result: dict[str, Any] = {"iterations": list(self._window), "sizes": list(self._window.values())}
        result |= {"start": self._start, "max_priority": self._max_priority}
        if self._tree is not None:
            result["priority"] = self._tree.get((self._start + np.arange(self.num_rows)) % self.capacity)
        return result

    def load(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`; the iterations `to_recall` must then be given again."""
        self._window, self._tail = {}, {}
        self._start, self._max_priority = int(state["start"]), float(state["max_priority"])
        self._to_recall = dict(zip(state["iterations"], state["sizes"], strict=True))
        if self._tree is not None:
            self._tree = SumTree(self.capacity)
            self._recalled_priority = state["priority"]

    def _evict(self) -> None:
        size = self._window.pop(self.oldest)
        place = (self._start + np.arange(size)) % self.capacity
        finals = self._final_place[place]
        self._free = np.concatenate([self._free, finals[finals != _NOWHERE]])
        if self._tree is not None:
            self._tree.set(place, 0.0)
        self._start = (self._start + size) % self.capacity

    def _write(self, batch: Batch, iteration: int) -> np.ndarray:
        place = (self._start + self.num_rows + np.arange(batch.num_rows)) % self.capacity
        for name, values in batch.observation.items():
            self._observation[name][place] = values
        self._action[place] = batch.action
        self._reward[place] = batch.reward
        self._terminated[place] = batch.terminated
        self._continuation[place] = (place + 1) % self.capacity
        self._final_place[place] = _NOWHERE
        last = place[batch.last_row]
        self._continuation[last] = _NOWHERE
        self._final_place[last] = self._keep_finals(batch)
        self._join(batch, place, iteration)
        self._window[iteration] = batch.num_rows
        return place

    def _join(self, batch: Batch, place: np.ndarray, iteration: int) -> None:
        """Rows that an earlier iteration left unfinished go on at their episode's first row here."""
        env, episode, t = batch.env_index, batch.episode_id, batch.t
        first = np.flatnonzero(np.diff(env, prepend=env[0] - 1))
        for i in first.tolist():
            tail = self._tail.get(int(env[i]))
            # A row that has left the window may have given its place to another.
            if tail is not None and tail[0] in self._window and tail[2:] == (int(episode[i]), int(t[i]) - 1):
                self._continuation[tail[1]] = place[i]
        for i in [*(first[1:] - 1).tolist(), len(env) - 1]:
            self._tail[int(env[i])] = (iteration, int(place[i]), int(episode[i]), int(t[i]))

    def _keep_finals(self, batch: Batch) -> np.ndarray:
        """Stores the final observations; their places, int64 [M]."""
        num = len(batch.last_row)
        have = len(next(iter(self._final.values())))
        if num > len(self._free):
            more = max(num - len(self._free), have)
            self._free = np.concatenate([self._free, np.arange(have, have + more)])
            for name, values in self._final.items():
                self._final[name] = np.concatenate([values, np.empty((more, *values.shape[1:]), values.dtype)])
        place, self._free = self._free[:num], self._free[num:]
        for name, values in batch.final_observation.items():
            self._final[name][place] = values
        return place

    def _successors(self, place: np.ndarray) -> dict[str, np.ndarray]:
        final = self._final_place[place]
        own = np.flatnonzero(final != _NOWHERE)
        following = (place + 1) % self.capacity
        result = {}
        for name, values in self._observation.items():
            result[name] = values[following]
            result[name][own] = self._final[name][final[own]]
        return result
