"""Q-learning, Double Q-learning, SARSA and Expected SARSA in a table: one update on one iteration's rows.

S states, A actions, U distinct transitions; two tables for Double Q-learning, else one. In parallel mode the rows of
all groups become counts (`tabular.counted`), on executors or here, and all of them make one step with the values of
before; its size comes from the visits of all groups together. In serial mode rows are learned one after the other, in
their stored order: the textbook's algorithm, against which the rest is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spark_rl import seeding
from spark_rl.algorithms.tabular_config import TabularConfig
from spark_rl.data.batch import Batch
from spark_rl.policies import exploration
from spark_rl.policies.spec import PolicySpec
from spark_rl.policies.states import StateIndex
from spark_rl.policies.tabular import behaviour, num_actions
from spark_rl.tabular.counted import Counted, Counting, merge, nothing, rows_of
from spark_rl.tabular.steps import StepSizes
from spark_rl.tabular.update import one_step, successor_value

_MEMORY = "memory."


class Tabular:
    """The learner's state: tables, visits, and with replay every distinct transition so far."""

    Config = TabularConfig

    def __init__(self, config: TabularConfig, policy: PolicySpec, *, seed: int) -> None:
        self.config = config
        self.states = StateIndex(policy.observation)
        self.action = policy.action.only
        self._seed = seed
        self._progress = 0.0  # of the iteration learned from last; the schedules follow it
        double = config.name == "double_q_learning"
        self.counting = Counting(next_actions=config.name == "sarsa", coins=double, seed=seed)
        shape = (2 if double else 1, self.states.size, num_actions(self.action))
        self._tables = np.full(shape, config.initial_value)
        self._updates = np.zeros(shape, np.int64)  # replayed ones too: they decide the step sizes
        self._visits = np.zeros(shape[1:], np.int64)  # env steps only: they decide bonuses
        self._memory = nothing()
        self._sizes = StepSizes(first=config.step_size, power=config.step_size_power, visits=config.step_size_visits)

    @property
    def q(self) -> np.ndarray:
        """Action values [S, A]; the mean of both tables for Double Q-learning."""
        return np.asarray(self._tables.mean(axis=0))

    def update(self, batch: Batch | Counted, *, iteration: int, progress: float) -> dict[str, float]:
        """See learner.Algorithm. A batch that executors have counted already gives the same bits."""
        serial = self.config.mode == "serial"
        rows = batch if isinstance(batch, Counted) else rows_of(batch, self.states, self.action, self.counting)
        moves = rows if isinstance(batch, Counted) else merge([rows])
        self._progress = progress
        np.add.at(self._visits, (moves.state, moves.action), moves.count)
        error = self._one_by_one(rows) if serial else self._at_once(moves)
        replayed = self._replay(moves, iteration) if self.config.replay_ratio else 0
        return {
            "learner/td_error": error,
            "learner/value_mean": float(self.q.max(axis=1).mean()),
            "learner/pairs_visited": int((self._visits > 0).sum()),
            "learner/rows_replayed": replayed,
            "learner/exploration": self._scheduled(),
        }

    def _replay(self, moves: Counted, iteration: int) -> int:
        """Learn from a sample, with replacement, of all rows so far; its size."""
        self._memory = merge([self._memory, moves])
        rng = seeding.generator(self._seed, seeding.LEARNER, iteration)
        share = self._memory.count / self._memory.num_rows
        left = round(self.config.replay_ratio * moves.num_rows)
        total = left
        while left > 0:  # as many rows at once as an iteration has, each time with the values of then
            num = min(left, moves.num_rows)
            drawn = rng.multinomial(num, share)
            chosen = np.flatnonzero(drawn)
            sample = self._memory.take(chosen, drawn[chosen])
            if self.config.mode == "serial":
                self._one_by_one(sample.take(rng.permutation(np.repeat(np.arange(len(chosen)), drawn[chosen])),
                                             np.ones(num, np.int64)))  # fmt: skip
            else:
                self._at_once(sample)
            left -= num
        return total

    def _at_once(self, moves: Counted) -> float:
        """One step for all; the mean size of the TD error."""
        before = self._tables.copy()
        error, tables = 0.0, len(before)
        for own in range(tables):
            mine = moves.coin == own
            part = moves.take(np.flatnonzero(mine), moves.count[mine]) if tables > 1 else moves
            if len(part.state):
                target = self._targets(part, before[own], before[1 - own if tables > 1 else own])
                pair = part.state * before.shape[2] + part.action
                size = one_step(self._tables[own].reshape(-1), self._updates[own].reshape(-1), pair, target,
                                part.count, self._sizes)  # fmt: skip
                error += size * part.num_rows / moves.num_rows
        return error

    def _one_by_one(self, rows: Counted) -> float:
        """A step for every row, with the values that the row before left; the mean size of the TD error."""
        error = 0.0
        one = np.ones(1, np.int64)
        for i in range(len(rows.state)):
            row = rows.take(np.array([i]), one)
            own = int(row.coin[0])
            table = self._tables[own]
            target = self._targets(row, table, self._tables[1 - own if len(self._tables) > 1 else own])
            place = own, row.state[0], row.action[0]
            delta = float(target[0] - self._tables[place])
            self._updates[place] += 1
            self._tables[place] += float(self._sizes.size(self._updates[place])) * delta
            error += abs(delta)
        return error / max(1, len(rows.state))

    def _targets(self, moves: Counted, table: np.ndarray, other: np.ndarray) -> np.ndarray:
        explore = self._explore()

        def acts(value: np.ndarray, state: np.ndarray) -> np.ndarray:
            return behaviour(value, self._visits[state], explore)

        at = moves.successor
        ahead = successor_value(self.config.name, table[at], other[at], moves, acts)
        reward = moves.reward
        if self.config.count_bonus:
            reward = reward + self.config.count_bonus / np.sqrt(self._visits[moves.state, moves.action])
        return np.asarray(reward + self.config.discount * np.where(moves.terminated, 0.0, ahead))

    def weights(self) -> dict[str, np.ndarray]:
        """See policies.tabular. Schedules lag one iteration: a version explores by the progress of its last rows."""
        counts = {"count": self._visits} if self.config.exploration == "ucb" else {}
        return {"q": self.q} | counts | self._explore()

    def _scheduled(self) -> float:
        """Epsilon or temperature of now."""
        config = self.config
        heat = config.exploration == "boltzmann"
        start, end = (config.temperature, config.temperature_end) if heat else (config.epsilon, config.epsilon_end)
        curve = exploration.linear if config.schedule == "linear" else exploration.exponential
        return curve(self._progress, start=start, end=start if end is None else end, fraction=config.schedule_fraction)

    def _explore(self) -> dict[str, np.ndarray]:
        config, value = self.config, np.array(self._scheduled())
        if config.exploration == "greedy":
            return {}
        if config.exploration == "ucb":
            return {"explore.ucb": np.array(config.ucb)}
        if config.exploration == "boltzmann":
            return {"explore.temperature": value}
        found = {"explore.epsilon": value}
        if config.epsilon_ladder:
            found["explore.ladder"] = np.array(config.epsilon_ladder)
        if config.exploration == "max_boltzmann":
            found["explore.temperature"] = np.array(config.temperature)
        return found

    def state_dict(self) -> dict[str, Any]:
        """See learner.Algorithm."""
        memory = {_MEMORY + name: values for name, values in self._memory.arrays().items()}
        return {"tables": self._tables, "updates": self._updates, "visits": self._visits,
                "progress": self._progress, **memory}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See learner.Algorithm."""
        self._tables, self._updates, self._visits = (
            np.array(state[key]) for key in ("tables", "updates", "visits")
        )  # fmt: skip
        self._progress = state["progress"]
        self._memory = Counted(
            **{key.removeprefix(_MEMORY): value for key, value in state.items() if key.startswith(_MEMORY)}
        )
