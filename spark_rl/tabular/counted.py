"""Transitions of a finite environment as a multiset: every distinct one once, with how often it occurred.

The sufficient statistics of every tabular update, in integers. So sums over groups do not depend on who adds what
first: K groups of n / K steps give what one group of n steps gives, to the bit, on any number of machines.
R rows, U distinct transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from spark_rl.data.batch import Batch
from spark_rl.policies.states import StateIndex
from spark_rl.schema.spaces import Leaf

UNKNOWN = -1  # a next action that has not been taken yet, or that nobody asked for


@dataclass(frozen=True, slots=True)
class Counted:
    """U transitions in the order of their columns; all arrays are [U]."""

    state: np.ndarray  # int64
    action: np.ndarray  # int64, from 0
    successor: np.ndarray  # int64, before any reset
    terminated: np.ndarray  # bool
    reward: np.ndarray  # float64
    next_action: np.ndarray  # int64, what was done in the successor, or UNKNOWN
    coin: np.ndarray  # int64, 0 or 1: which of two tables learns from it
    count: np.ndarray  # int64, at least 1

    @property
    def num_rows(self) -> int:
        """Transitions counted (R)."""
        return int(self.count.sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """The columns by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def take(self, rows: np.ndarray, count: np.ndarray) -> Counted:
        """Some of the transitions, with other counts."""
        columns = {name: values[rows] for name, values in self.arrays().items()}
        return Counted(**columns | {"count": count})


@dataclass(frozen=True, kw_only=True, slots=True)
class Counting:
    """What a batch is counted by: `next_actions` for SARSA, `coins` for Double Q-learning split counts further."""

    next_actions: bool = False
    coins: bool = False
    seed: int = 0


def rows_of(batch: Batch, states: StateIndex, action: Leaf, how: Counting) -> Counted:
    """A batch's R rows in their order, each counted once."""
    state = states.index(batch.observation)
    first = action.start[0] if action.start else 0
    taken = batch.action.astype(np.int64) - first
    successor = np.empty_like(state)
    successor[:-1] = state[1:]
    successor[batch.last_row] = states.index(batch.final_observation)
    next_action = np.full(len(state), UNKNOWN)
    if how.next_actions:
        next_action[:-1] = taken[1:]
        next_action[batch.last_row] = UNKNOWN
    coin = _coins(batch, how.seed) if how.coins else np.zeros(len(state), np.int64)
    return Counted(state, taken, successor, batch.terminated, batch.reward, next_action, coin,
                   np.ones(len(state), np.int64))  # fmt: skip


def merge(parts: Sequence[Counted]) -> Counted:
    """The multiset of all parts; the same bits in whatever order and grouping they come."""
    columns = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Counted)}
    columns["reward"] = columns["reward"] + 0.0  # -0.0 is 0.0
    keys = [columns[name] for name in ("coin", "next_action", "reward", "terminated", "successor", "action", "state")]
    order = np.lexsort(keys)
    different = np.zeros(len(order), bool)
    different[:1] = True
    for key in keys:
        ordered = key[order]
        different[1:] |= ordered[1:] != ordered[:-1]
    first = np.flatnonzero(different)
    count = np.add.reduceat(columns["count"][order], first) if len(first) else columns["count"]
    chosen = order[first]
    return Counted(**{name: values[chosen] for name, values in columns.items()} | {"count": count})


def nothing() -> Counted:
    """No transitions."""
    whole, real, truth = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool)
    return Counted(whole, whole, whole, truth, real, whole, whole, whole)


def _coins(batch: Batch, seed: int) -> np.ndarray:
    """A fair coin for every row, decided by its episode and step alone; int64 [R] of 0 and 1.

    Source: Steele et al. 2014, "Fast splittable pseudorandom number generators" (the finalizer of SplitMix64).
    """
    with np.errstate(over="ignore"):
        x = batch.episode_id.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + batch.t.astype(np.uint64)
        x += np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return ((x ^ (x >> np.uint64(31))) & np.uint64(1)).astype(np.int64)
