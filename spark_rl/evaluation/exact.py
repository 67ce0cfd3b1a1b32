"""Exact values of environments that publish their table of transitions (`env.unwrapped.P`).

S states, A actions, O outcomes: a pair of state and action has several, each with its probability.

The oracle of the tabular tests, and `evaluate --exact`: no episode is played, so there is no sampling error.
Source: Puterman 1994, chapters 4 (finite horizon) and 6 (discounted).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spark_rl.envs.make import make_single
from spark_rl.envs.spec import EnvSpec
from spark_rl.errors import UserError

# Sweeps after which an undiscounted value without a time limit counts as divergent.
_MOST_SWEEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Model:
    """All outcomes of all state-action pairs, and where episodes begin. States and actions count from 0."""

    num_states: int
    num_actions: int
    pair: np.ndarray  # int64 [O]: state * A + action
    probability: np.ndarray  # float64 [O]
    successor: np.ndarray  # int64 [O]
    reward: np.ndarray  # float64 [O]
    terminated: np.ndarray  # bool [O]
    start: np.ndarray  # float64 [S], the distribution of first states
    max_episode_steps: int  # 0: no limit

    def backup(self, value: np.ndarray, discount: float) -> np.ndarray:
        """One step ahead of `value` [S]: the expected reward and discounted value of every pair, [S, A]."""
        target = self.reward + discount * np.where(self.terminated, 0.0, value[self.successor])
        sums = np.bincount(self.pair, self.probability * target, self.num_states * self.num_actions)
        return sums.reshape(self.num_states, self.num_actions)


def model_of(spec: EnvSpec) -> Model:
    """The model of an environment. UserError where it has no table, or wrappers, which may change what it says."""
    if spec.wrappers:
        raise UserError(f"the exact model of {spec.id}", "wrappers, which may change it", "none", "play episodes")
    env = make_single(spec)
    try:
        table = getattr(env.unwrapped, "P", None)
        start = getattr(env.unwrapped, "initial_state_distrib", None)
        if table is None or start is None:
            raise UserError(f"the exact model of {spec.id}", "no table of transitions",
                            "env.unwrapped.P and initial_state_distrib", "play episodes instead")  # fmt: skip
        num_actions = len(table[0])
        rows = [(s * num_actions + a, *outcome) for s in table for a in table[s] for outcome in table[s][a]]
        limit = spec.max_episode_steps or (env.spec.max_episode_steps if env.spec is not None else 0)
    finally:
        env.close()
    pair, probability, successor, reward, terminated = (np.array(column) for column in zip(*rows, strict=True))
    return Model(len(table), num_actions, pair, probability, successor, reward.astype(float), terminated.astype(bool),
                 np.asarray(start, float), limit or 0)  # fmt: skip


def value_iteration(model: Model, discount: float, *, tolerance: float = 1e-12) -> tuple[np.ndarray, int]:
    """Optimal action values [S, A], and the sweeps until no state's value moved by more than `tolerance`.

    Raises UserError where they do not settle, which without discount is possible.
    """
    value = np.zeros(model.num_states)
    for sweep in range(1, _MOST_SWEEPS + 1):
        action_value = model.backup(value, discount)
        before, value = value, action_value.max(axis=1)
        if np.abs(value - before).max() < tolerance:
            return action_value, sweep
    raise UserError("value iteration", f"no end after {_MOST_SWEEPS:,} sweeps", "a discount below 1", "lower it")


def policy_value(model: Model, policy: np.ndarray, *, horizon: int, discount: float = 1.0) -> float:
    """Expected return from the start over at most `horizon` env steps of a policy, probabilities [S, A]."""
    value = np.zeros(model.num_states)
    for _ in range(horizon):
        value = (policy * model.backup(value, discount)).sum(axis=1)
    return float(model.start @ value)


def best_value(model: Model, *, horizon: int, discount: float = 1.0) -> float:
    """The most any policy can expect over at most `horizon` env steps, one that counts them included."""
    value = np.zeros(model.num_states)
    for _ in range(horizon):
        value = model.backup(value, discount).max(axis=1)
    return float(model.start @ value)


def deterministic(action: np.ndarray, num_actions: int) -> np.ndarray:
    """Actions int64 [S] as probabilities [S, A]."""
    return np.eye(num_actions)[action]


def horizon_of(model: Model) -> int:
    """The time limit in env steps. UserError where the environment has none: undiscounted values may then not exist."""
    if not model.max_episode_steps:
        raise UserError("exact evaluation", "an environment without a time limit", "a limit",
                        "set env.max_episode_steps")  # fmt: skip
    return model.max_episode_steps
