"""The facts of one fragment: recorded step by step into [T, N] arrays, read back as rows.

N environments, T vector steps, R rows (R < N * T where a vector environment spent steps on resets), M last rows.
Recording is time-major, because that is how steps arrive; rows are environment-major, because rows of one environment
are to be contiguous. One transposition per column turns the one into the other; then the reset steps are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spark_rl.envs.group import Group, Step
from spark_rl.envs.spaces import allocate
from spark_rl.policies.acting import Act
from spark_rl.schema.spaces import SpaceSpec

Leaves = dict[str, np.ndarray]

_BLOCK_STEPS = 64


@dataclass(frozen=True, slots=True)
class Rows:
    """Transitions of a group, environment by environment, each in the order of time."""

    observation: Leaves  # [R, *shape]
    action: np.ndarray
    raw_action: np.ndarray | None
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    log_prob: np.ndarray
    state: np.ndarray | None
    counts: np.ndarray  # int64 [N]: rows of each environment
    last_row: np.ndarray  # int64 [M], ascending
    final_observation: Leaves  # [M, *shape]

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.reward)


class Recorder:
    """Preallocated arrays that a rollout fills. Made when the group stands at the fragment's beginning."""

    def __init__(self, group: Group, observation: SpaceSpec, action: SpaceSpec, steps: int, state_size: int) -> None:
        num_envs = group.num_envs
        self.observation = allocate(observation, steps, num_envs)
        self.action = allocate(action, steps, num_envs)[""]
        self.raw_action = np.zeros_like(self.action) if action.only.kind == "box" else None
        self.reward = np.zeros((steps, num_envs), np.float64)
        self.terminated = np.zeros((steps, num_envs), bool)
        self.truncated = np.zeros((steps, num_envs), bool)
        self.log_prob = np.zeros((steps, num_envs), np.float32)
        self.state = np.zeros((steps, num_envs, state_size), np.float32) if state_size else None
        self._pending = group.pending.copy()
        self._ends: list[tuple[np.ndarray, Leaves]] = []  # (step * N + env, final observations), where known at once

    def before(self, s: int, observation: Leaves, state: np.ndarray | None) -> None:
        """What the policy sees at step s; recorded first, since environments may write into the same arrays."""
        for name, values in observation.items():
            self.observation[name][s] = values
        if self.state is not None:
            self.state[s] = state

    def after(self, s: int, act: Act, step: Step) -> None:
        """What the policy did at step s, and what came of it."""
        self.action[s] = act.action
        if self.raw_action is not None:
            self.raw_action[s] = act.raw_action
        self.log_prob[s] = act.log_prob
        self.reward[s] = step.reward
        self.terminated[s] = step.terminated
        self.truncated[s] = step.truncated
        if step.final is not None and step.ended is not None and len(step.ended):
            self._ends.append((step.ended + s * self.reward.shape[1], step.final))

    def rows(self, group: Group) -> Rows:
        """All transitions; the group's current observations are the successors of the last steps."""
        steps, num_envs = self.reward.shape
        over = self.terminated | self.truncated
        valid = np.ones((steps, num_envs), bool)
        if group.resets_in_next_step:
            valid[0] = ~self._pending
            np.logical_not(over[:-1], out=valid[1:])
        by_environment = valid.T.reshape(-1)
        kept = None if by_environment.all() else np.flatnonzero(by_environment)

        def flat(array: np.ndarray) -> np.ndarray:
            rows = _environment_major(array)
            return rows if kept is None else rows.take(kept, axis=0)

        positions, final = self._finals(group, over, valid)
        step, env = np.divmod(positions, num_envs)
        row_of = np.cumsum(by_environment) - 1
        last_row = row_of[env * steps + step]
        ascending = np.argsort(last_row)
        return Rows(
            observation={name: flat(values) for name, values in self.observation.items()},
            action=flat(self.action),
            raw_action=None if self.raw_action is None else flat(self.raw_action),
            reward=flat(self.reward),
            terminated=flat(self.terminated),
            truncated=flat(self.truncated),
            log_prob=flat(self.log_prob),
            state=None if self.state is None else flat(self.state),
            counts=valid.sum(axis=0),
            last_row=last_row[ascending],
            final_observation={name: values[ascending] for name, values in final.items()},
        )

    def _finals(self, group: Group, over: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, Leaves]:
        """Flat positions of the last rows, and their true successors."""
        steps, num_envs = over.shape
        open_last = np.flatnonzero(valid[-1] & ~over[-1])  # the fragment's end, not the episode's
        current = group.observation
        ends = [(open_last + (steps - 1) * num_envs, {name: values[open_last] for name, values in current.items()})]
        if group.resets_in_next_step:
            # What an ended environment returned is what it showed at its next step, the one that only reset.
            inner = np.flatnonzero(over[:-1])
            outer = np.flatnonzero(over[-1])
            seen = {name: values.reshape(-1, *values.shape[2:]) for name, values in self.observation.items()}
            ends.append((inner, {name: values[inner + num_envs] for name, values in seen.items()}))
            ends.append((outer + (steps - 1) * num_envs, {name: values[outer] for name, values in current.items()}))
        else:
            ends += self._ends
        final = {name: np.concatenate([leaves[name] for _, leaves in ends]) for name in self.observation}
        return np.concatenate([places for places, _ in ends]), final


def _environment_major(array: np.ndarray) -> np.ndarray:
    """[T, N, *shape] -> [N * T, *shape], environment by environment.

    In blocks of steps: a plain transposition walks through memory with a stride of N values, and at thousands of steps
    every value is a cache miss (measured at 4,000 steps of 256 environments: 0.022 microseconds a row, against 0.052).
    """
    steps, num_envs = array.shape[:2]
    rows = np.empty((num_envs, steps, *array.shape[2:]), array.dtype)
    for first in range(0, steps, _BLOCK_STEPS):
        block = slice(first, first + _BLOCK_STEPS)
        rows[:, block] = array[block].swapaxes(0, 1)
    return rows.reshape(-1, *array.shape[2:])
