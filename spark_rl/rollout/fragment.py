"""The facts of one fragment: recorded step by step into [N, T] arrays, read back as rows.

N environments, T vector steps, R rows (R < N * T where a vector environment spent steps on resets), M last rows.
Environment-major, because rows of one environment are to be contiguous; so the rows are views of the arrays, not copies,
unless steps were spent on resets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spark_rl.envs.group import Group, Step
from spark_rl.envs.spaces import allocate
from spark_rl.policies.acting import Act
from spark_rl.schema.spaces import SpaceSpec

Leaves = dict[str, np.ndarray]


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
    """Preallocated arrays that a rollout fills."""

    def __init__(self, observation: SpaceSpec, action: SpaceSpec, num_envs: int, steps: int, state_size: int) -> None:
        self.observation = allocate(observation, num_envs, steps)
        self.action = allocate(action, num_envs, steps)[""]
        self.raw_action = np.zeros_like(self.action) if action.only.kind == "box" else None
        self.reward = np.zeros((num_envs, steps), np.float64)
        self.terminated = np.zeros((num_envs, steps), bool)
        self.truncated = np.zeros((num_envs, steps), bool)
        self.log_prob = np.zeros((num_envs, steps), np.float32)
        self.state = np.zeros((num_envs, steps, state_size), np.float32) if state_size else None
        self.valid = np.ones((num_envs, steps), bool)
        self._ends: list[tuple[np.ndarray, Leaves]] = []  # flat positions env * T + step, final observations

    def before(self, s: int, observation: Leaves, state: np.ndarray | None) -> None:
        """What the policy sees at step s; recorded first, since environments may write into the same arrays."""
        for name, values in observation.items():
            self.observation[name][:, s] = values
        if self.state is not None:
            self.state[:, s] = state

    def after(self, s: int, act: Act, step: Step) -> None:
        """What the policy did at step s, and what came of it."""
        self.action[:, s] = act.action
        if self.raw_action is not None:
            self.raw_action[:, s] = act.raw_action
        self.log_prob[:, s] = act.log_prob
        self.reward[:, s] = step.reward
        self.terminated[:, s] = step.terminated
        self.truncated[:, s] = step.truncated
        if step.valid is not None:
            self.valid[:, s] = step.valid
        if len(step.ended):
            self._ends.append((step.ended * self.reward.shape[1] + s, step.final))

    def rows(self, group: Group) -> Rows:
        """All valid steps; the group's current observations are the successors of the steps that did not end."""
        steps = self.reward.shape[1]
        unfinished = np.flatnonzero(self.valid[:, -1] & ~(self.terminated[:, -1] | self.truncated[:, -1]))
        ends = [*self._ends, (unfinished * steps + steps - 1, {k: v[unfinished] for k, v in group.observation.items()})]
        positions = np.concatenate([place for place, _ in ends])
        order = np.argsort(positions)
        keep = None if self.valid.all() else self.valid.reshape(-1)
        row_of = positions if keep is None else np.cumsum(keep)[positions] - 1

        def flat(array: np.ndarray) -> np.ndarray:
            rows = array.reshape(-1, *array.shape[2:])
            return rows if keep is None else rows[keep]

        return Rows(
            observation={name: flat(values) for name, values in self.observation.items()},
            action=flat(self.action),
            raw_action=None if self.raw_action is None else flat(self.raw_action),
            reward=flat(self.reward),
            terminated=flat(self.terminated),
            truncated=flat(self.truncated),
            log_prob=flat(self.log_prob),
            state=None if self.state is None else flat(self.state),
            counts=self.valid.sum(axis=1),
            last_row=row_of[order],
            final_observation={
                name: np.concatenate([final[name] for _, final in ends])[order] for name in self.observation
            },
        )
