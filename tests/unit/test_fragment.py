"""Recorded steps as rows: environment by environment, without resets, each end with its own successor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from helpers import env_spec

from spark_rl import seeding
from spark_rl.envs.group import Group, make_group
from spark_rl.envs.make import has_native_vector
from spark_rl.policies.acting import Act
from spark_rl.rollout import fragment
from spark_rl.rollout.fragment import Recorder, Rows

NUM_ENVS, STEPS = 4, 12


def group_of(env_id: str) -> Group:
    env = env_spec(env_id)
    group = make_group(env, native=has_native_vector(env), seed=1, stream=seeding.ENVIRONMENT, first_env=0,
                       num_envs=NUM_ENVS)  # fmt: skip
    group.start(0)
    return group


def record(group: Group, steps: int = STEPS) -> tuple[Rows, list[list[tuple[Any, ...]]]]:
    """The recorder's rows, and the same facts kept in lists of Python objects as they happened."""
    recorder = Recorder(group, group.observation_space, group.action_space, steps, 2)
    wanted: list[list[tuple[Any, ...]]] = [[] for _ in range(NUM_ENVS)]
    first = group.action_space.only.start[0]
    for s in range(steps):
        state = np.full((NUM_ENVS, 2), s, np.float32)
        seen, pending = group.observation[""].tolist(), group.pending.tolist()
        recorder.before(s, group.observation, state)
        action = first + (np.arange(NUM_ENVS) + s) % 2
        act = Act(action, np.arange(NUM_ENVS, dtype=np.float32) - s)
        step = group.step(action)
        recorder.after(s, act, step)
        final = {} if step.final is None else dict(zip(step.ended.tolist(), step.final[""].tolist(), strict=True))
        for i in range(NUM_ENVS):
            if not pending[i]:
                successor = final.get(i, group.observation[""][i].tolist())
                wanted[i].append((seen[i], int(action[i]), float(step.reward[i]), bool(step.terminated[i]),
                                  bool(step.truncated[i]), float(i - s), s, successor))  # fmt: skip
    return recorder.rows(group), wanted


def compare(rows: Rows, wanted: list[list[tuple[Any, ...]]]) -> None:
    assert rows.counts.tolist() == [len(mine) for mine in wanted]
    assert rows.state is not None
    flat = [fact for mine in wanted for fact in mine]
    assert rows.num_rows == len(flat)
    last = 0
    ends = np.cumsum(rows.counts) - 1
    finals = dict(zip(rows.last_row.tolist(), rows.final_observation[""].tolist(), strict=True))
    for row, (seen, action, reward, terminated, truncated, log_prob, s, successor) in enumerate(flat):
        assert rows.observation[""][row].tolist() == seen
        assert (rows.action[row], rows.reward[row], rows.log_prob[row]) == (action, reward, log_prob)
        assert (rows.terminated[row], rows.truncated[row]) == (terminated, truncated)
        assert rows.state[row].tolist() == [s, s]
        if terminated or truncated or row in ends:
            assert finals[row] == successor
            last += 1
        else:
            assert rows.observation[""][row + 1].tolist() == successor
    assert last == len(finals)
    assert (np.diff(rows.last_row) > 0).all()


MODES = [f"toys:toys/{mode.name}-v0" for mode in AutoresetMode]


@pytest.mark.parametrize("env_id", [*MODES, "toys:Scripted", "CartPole-v1"])
def test_rows_are_what_happened(env_id: str) -> None:
    group = group_of(env_id)
    ends = 0
    for _ in range(4):  # the group goes on, so later fragments begin in the middle of episodes and of resets
        rows, wanted = record(group)
        compare(rows, wanted)
        ends += int((rows.terminated | rows.truncated).sum())
    assert ends > 2


@pytest.mark.parametrize("env_id", MODES)
def test_a_fragment_of_one_step_may_have_no_rows_for_some(env_id: str) -> None:
    group, empty = group_of(env_id), 0
    for _ in range(30):
        rows, wanted = record(group, steps=1)
        compare(rows, wanted)
        empty += int((rows.counts == 0).sum())
    assert (empty > 0) == (env_id == MODES[0])


def test_the_comparison_catches_reset_steps_as_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_of("toys:toys/NEXT_STEP-v0")
    record(group, 3)
    original = Recorder.rows
    monkeypatch.setattr(Recorder, "rows", lambda self, g: original(self, _Always(g)))
    with pytest.raises(AssertionError):
        compare(*record(group))


class _Always:
    """A group that says it never resets in the next step."""

    resets_in_next_step = False

    def __init__(self, group: Group) -> None:
        self.observation = group.observation


def test_the_comparison_catches_a_successor_one_step_late(monkeypatch: pytest.MonkeyPatch) -> None:
    original = fragment.Recorder._finals

    def wrong(self: Recorder, group: Group, over: np.ndarray, valid: np.ndarray) -> Any:
        places, final = original(self, group, over, valid)
        return places, {name: np.roll(values, 1, axis=0) for name, values in final.items()}

    monkeypatch.setattr(fragment.Recorder, "_finals", wrong)
    with pytest.raises(AssertionError):
        compare(*record(group_of("toys:Scripted")))
