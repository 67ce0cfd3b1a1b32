"""One task: the same bytes whichever way its environments came back, and errors that say where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import toys
from helpers import check_successors, collect, env_spec, episodes_of, hashes, read, rollout_spec, weights_for

from spark_rl import seeding
from spark_rl.data.store import RunStore
from spark_rl.envs.carry import plan
from spark_rl.envs.make import make_single
from spark_rl.envs.spec import EnvSpec
from spark_rl.errors import RunError
from spark_rl.experience import group_tasks
from spark_rl.policies import weights
from spark_rl.rollout import run
from spark_rl.rollout.spec import GroupTask
from spark_rl.schema import layout

ITERATIONS = 5


@pytest.fixture(autouse=True)
def _new_worker() -> Iterator[None]:
    run.forget()
    yield
    run.forget()


def forget_always(iteration: int) -> None:
    run.forget()


def forget_sometimes(iteration: int) -> None:
    if iteration % 2:
        run.forget()


CASES: dict[str, tuple[EnvSpec, str]] = {
    "native CartPole": (env_spec("CartPole-v1"), "snapshot"),
    "native SAME_STEP": (env_spec("toys:toys/SAME_STEP-v0"), "snapshot"),
    "sync CartPole": (env_spec("CartPole-v1", vectorization="sync"), "snapshot"),
    "replayed CartPole": (env_spec("CartPole-v1", vectorization="sync"), "replay"),
    "LunarLander": (env_spec("LunarLander-v3"), "replay"),
    "wrapped Pendulum": (
        env_spec("Pendulum-v1", ("gymnasium.wrappers:NormalizeObservation", {}),
                 ("gymnasium.wrappers:FrameStackObservation", {"stack_size": 2}), max_episode_steps=30),
        "snapshot",
    ),
    "any space": (env_spec("toys:AnySpace", space="dict", action="box"), "replay"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_same_bytes_whichever_way_the_environments_are_carried(name: str, tmp_path: Path) -> None:
    env, method = CASES[name]
    if "Lunar" in name:
        pytest.importorskip("Box2D")
    found = plan(env, carry=method)
    ways = {"live": lambda iteration: None, "mixed": forget_sometimes, "stored": forget_always}
    for way, before in ways.items():
        spec = rollout_spec(tmp_path / way, found)
        history = collect(spec, ITERATIONS, before=before)
        sources = [{report.source for report in reports} for reports in history]
        between = {"live": {"live"}, "stored": {method}}
        if way in between:
            assert sources == [{"start"}] + [between[way]] * (ITERATIONS - 1)
        else:
            assert set().union(*sources) == {"start", "live", method}
        run.forget()
    live, mixed, stored = (hashes(tmp_path / way) for way in ways)
    assert len(live) >= 2 * ITERATIONS * 2
    assert live == mixed
    assert live == stored
    assert check_successors(read(tmp_path / "live")) > 0


def test_snapshot_and_replay_give_the_same_rows(tmp_path: Path) -> None:
    env = env_spec("CartPole-v1", vectorization="sync")
    for method in ("snapshot", "replay"):
        spec = rollout_spec(tmp_path / method, plan(env, carry=method))
        collect(spec, ITERATIONS, before=forget_always)
    tables = (layout.TRANSITIONS, layout.EPISODES)
    assert hashes(tmp_path / "snapshot", *tables) == hashes(tmp_path / "replay", *tables)


def test_where_groups_run_and_how_often_changes_nothing(tmp_path: Path) -> None:
    """A retry, a twin and another order of groups leave the bytes that one quiet attempt leaves."""
    quiet = rollout_spec(tmp_path / "quiet", env_spec("CartPole-v1"), num_groups=3)
    collect(quiet, 2)
    run.forget()
    busy = rollout_spec(tmp_path / "busy", env_spec("CartPole-v1"), num_groups=3)
    content = weights_for(busy.policy, 0)
    for group in (2, 0, 1, 0, 2):
        run.run_group(busy, GroupTask(iteration=0, group=group, policy_version=0), content, attempt=1)
    collect(busy, 1)
    # A worker that has done this task before holds environments that stand after it, not where it begins.
    for task in 2 * group_tasks(RunStore(busy.run_uri), 1, 1, [1, 0, 2]):
        run.run_group(busy, task, weights_for(busy.policy, 1))
    collect(busy, 1, first=1)
    assert hashes(tmp_path / "quiet") == hashes(tmp_path / "busy")


def test_rows_are_what_the_environment_does_with_the_stored_actions(tmp_path: Path) -> None:
    """Every stored episode is lived again in a plain gymnasium environment, and every number compared."""
    spec = rollout_spec(tmp_path, env_spec("CartPole-v1", vectorization="sync", max_episode_steps=20))
    collect(spec, ITERATIONS, before=forget_sometimes)
    env = make_single(spec.env)
    finished = {row["episode_id"]: row for row in read(tmp_path, layout.EPISODES).to_pylist()}
    kinds = set()
    for episode_id, rows in episodes_of(read(tmp_path)).items():
        env_index, ordinal = divmod(episode_id, 2**32)
        seed = seeding.integer(spec.seed, seeding.ENVIRONMENT, env_index, ordinal)
        observation, _ = env.reset(seed=seed)
        total = 0.0
        for t, row in enumerate(rows):
            assert (row["t"], row["env_index"]) == (t, env_index)
            assert row["observation"] == observation.tolist()
            observation, reward, terminated, truncated, _ = env.step(row["action"])
            total += float(reward)
            assert (row["reward"], row["terminated"], row["truncated"]) == (reward, terminated, truncated)
            if row["final_observation"] is not None:
                assert row["final_observation"] == observation.tolist()
        last = rows[-1]
        if last["terminated"] or last["truncated"]:
            ended = finished.pop(episode_id)
            assert (ended["seed"], ended["length"], ended["episode_return"]) == (seed, len(rows), total)
            assert ended["end_reason"] == ("terminated" if last["terminated"] else "truncated")
            versions = [row["policy_version"] for row in rows]
            assert (ended["policy_version_min"], ended["policy_version_max"]) == (min(versions), max(versions))
            assert ended["first_iteration"] == versions[0]  # iteration k is acted by version k here
            kinds.add(ended["end_reason"])
    assert finished == {}
    assert kinds == {"terminated", "truncated"}


def test_log_probabilities_and_actions_are_those_of_the_version_that_acted(tmp_path: Path) -> None:
    """From the stored rows and weights alone, in plain numpy."""
    spec = rollout_spec(tmp_path, env_spec("CartPole-v1"))
    collect(spec, 3)
    rows = read(tmp_path)
    for version in range(3):
        mine = rows.filter(pc.equal(rows["policy_version"], version))
        tensors = weights.decode(weights_for(spec.policy, version))
        observation = np.array(mine["observation"].to_pylist(), np.float64)
        hidden = np.tanh(observation @ tensors["actor.0.weight"].T + tensors["actor.0.bias"])
        logits = hidden @ tensors["actor.head.weight"].T + tensors["actor.head.bias"]
        log_prob = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        taken = log_prob[np.arange(len(log_prob)), mine["action"].to_numpy()]
        np.testing.assert_allclose(mine["action_log_prob"].to_numpy(), taken, atol=1e-6)


def test_cut_episodes_end_at_the_boundary_and_say_so(tmp_path: Path) -> None:
    spec = rollout_spec(tmp_path, plan(env_spec("Pendulum-v1"), carry="cut"), steps_per_env=10)
    history = collect(spec, 3)
    assert [{report.source for report in reports} for reports in history] == [{"start"}, {"cut"}, {"cut"}]
    assert all(report.episode_returns == () for reports in history for report in reports)
    ended, rows = read(tmp_path, layout.EPISODES), read(tmp_path)
    assert set(ended["end_reason"].to_pylist()) == {"cut"}
    assert set(ended["length"].to_pylist()) == {10}
    assert len(set(ended["episode_id"].to_pylist())) == len(ended) == 2 * 3 * 3
    assert set(rows["t"].to_pylist()) == set(range(10))
    finals = [row for row in rows.to_pylist() if row["final_observation"] is not None]
    assert [row["t"] for row in finals] == [9] * len(ended)  # bootstrapped, so it needs its successor


def test_native_resets_are_no_rows_and_are_accounted_for(tmp_path: Path) -> None:
    spec = rollout_spec(tmp_path, env_spec("toys:toys/NEXT_STEP-v0"), steps_per_env=20)
    reports = [report for reports in collect(spec, 3) for report in reports]
    rows = read(tmp_path)
    assert min(rows["reward"].to_pylist()) > 0  # a reset's reward is -1,000,000
    assert sum(report.rows_written for report in reports) == len(rows)
    assert all(report.rows_written + report.rows_reset == report.rows_planned == 60 for report in reports)
    assert sum(report.rows_reset for report in reports) > 0
    assert check_successors(rows) > 0


def test_the_successor_check_catches_a_reset_observation_as_final(tmp_path: Path) -> None:
    spec = rollout_spec(tmp_path, env_spec("toys:Scripted"))
    collect(spec, 2)
    rows = read(tmp_path)
    check_successors(rows)
    for column, value in (("t", 0), ("episode_id", 1)):
        broken = rows.to_pylist()
        middle = next(i for i, row in enumerate(broken) if row["t"] == 2)
        broken[middle][column] = value
        with pytest.raises(AssertionError):
            check_successors(type(rows).from_pylist(broken, rows.schema))


def test_an_environment_that_changes_its_ways_is_found_on_replay_with_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = rollout_spec(tmp_path, plan(env_spec("toys:Moody"), carry="replay"), envs_per_group=8, steps_per_env=20)
    collect(spec, 1)
    monkeypatch.setattr(toys.Moody, "mood", 0.5)
    run.forget()
    message = r"replay of environment toys:Moody, episode with seed \d+, step 3: got observation .*\.5.*carry = 'cut'"
    with pytest.raises(RunError, match=message):
        collect(spec, 1, first=1)


def test_a_cursor_that_was_changed_is_refused(tmp_path: Path) -> None:
    spec = rollout_spec(tmp_path, env_spec("CartPole-v1"))
    collect(spec, 1)
    path = tmp_path / layout.committed(layout.CURSORS, 0) / layout.part(layout.CURSORS, 1)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RunError, match="cursor of group 1 after iteration 0 .* changed after its commit"):
        collect(spec, 1, first=1)


@pytest.mark.parametrize(
    ("fault", "got"),
    [
        ("nan reward", "step 2, action .*: got reward nan; wanted a finite reward"),
        ("nan observation", r"step 2, action .*: got next observation array\(\[ 3., nan\].*; wanted finite numbers"),
        ("outside", "step 2, action .*: got ValueError: observation '' is array.4., outside its space"),
        ("raise", "step 2, action .*: got ArithmeticError: the wheel came off"),
        ("hang", "step 2, action .*: got RunError: environment toys:Faulty, group 1.*no answer for 0.2 s"),
    ],
)
@pytest.mark.parametrize("steps", [3, 8])
def test_a_broken_environment_is_named_with_seed_step_and_action(
    fault: str, got: str, steps: int, tmp_path: Path
) -> None:
    found = plan(env_spec("toys:Faulty", fault=""), carry="cut")
    if fault == "outside":
        found = plan(env_spec("toys:Faulty", fault="outside"), carry="cut")
    spec = rollout_spec(tmp_path, found, deadline_s=0.2, steps_per_env=steps)
    spec = type(spec)(
        **{name: getattr(spec, name) for name in spec.__slots__} | {"env": env_spec("toys:Faulty", fault=fault)}
    )
    seed = seeding.integer(spec.seed, seeding.ENVIRONMENT, 3, 0)
    wanted = rf"environment toys:Faulty number 3, episode 0 \(seed {seed}\), {got}"
    with pytest.raises(RunError) as caught:
        run.run_group(spec, GroupTask(iteration=0, group=1, policy_version=0), weights_for(spec.policy))
    assert re.search(wanted, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_packages_on_the_executor_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = rollout_spec(tmp_path, env_spec("toys:Scripted"))
    monkeypatch.setattr(toys.Scripted, "action_space", toys.spaces.Discrete(4))
    with pytest.raises(RunError, match="on an executor: got spaces .*install the same packages"):
        run.run_group(spec, GroupTask(iteration=0, group=0, policy_version=0), weights_for(spec.policy))


@pytest.mark.parametrize("action", toys.AnySpace.ACTIONS)
@pytest.mark.parametrize("space", toys.AnySpace.SPACES)
def test_any_space_goes_through(space: str, action: str, tmp_path: Path) -> None:
    spec = rollout_spec(tmp_path, plan(env_spec("toys:AnySpace", space=space, action=action), carry="replay"))
    collect(spec, 3, before=forget_always)
    rows: Any = read(tmp_path)
    assert check_successors(rows) > 0
    assert len(rows) == 3 * 2 * 3 * 8
