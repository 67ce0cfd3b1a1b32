"""A whole run in this process: the same bits every time, whenever and however often it is killed on its way."""

from __future__ import annotations

import functools
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
from helpers import check_successors, config, hashes, read

from spark_rl import metrics
from spark_rl.config import RunConfig
from spark_rl.data.store import RunStore
from spark_rl.envs.carry import plan as plan_of
from spark_rl.errors import RunError, UserError
from spark_rl.files import Root
from spark_rl.policies import weights
from spark_rl.rollout import run
from spark_rl.schema import layout
from spark_rl.train import evaluate_run, train

# What every undisturbed run of a config has in common with every disturbed one.
TABLES = (*layout.TABLES, "policies")


@pytest.fixture(autouse=True)
def _new_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    run.forget()
    # A tenth of a second each time it is opened, and not what these tests are about.
    monkeypatch.setattr("spark_rl.train.Curves", NoCurves)
    monkeypatch.setattr("spark_rl.builder.plan", PLANNED)  # half of a small run's time


PLANNED = functools.cache(plan_of)


class NoCurves:
    def __init__(self, root: Root, *, resumed_at: int) -> None:
        pass

    def write(self, row: object) -> None:
        pass

    def close(self) -> None:
        pass


class Killed(BaseException):
    """Stands for kill -9. No Exception, so that nothing on the way mistakes it for an ordinary failure."""


def kill_at(patch: pytest.MonkeyPatch, number: int, *, after: bool) -> list[str]:
    """The operation with this number (from 0) does not happen, or is the last to happen; nor does any after it."""
    log: list[str] = []
    for name in ("write", "rename", "delete"):
        original = getattr(Root, name)

        def dying(self: Root, relative: str, *args: Any, _original: Any = original, _name: str = name) -> Any:
            log.append(f"{_name} {relative}")
            if len(log) - 1 == number and after:
                _original(self, relative, *args)
            if len(log) > number:
                raise Killed(log[-1])
            return _original(self, relative, *args)

        patch.setattr(Root, name, dying)
    return log


def begin_or_go_on(plan: RunConfig, where: Path) -> dict[str, Any]:
    """What somebody does after a kill: --resume where there is a run, else begin."""
    run.forget()
    return train(plan, str(where), resume=(where / layout.RUN).exists())


def until_killed(plan: RunConfig, where: Path, number: int, *, after: bool) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, number, after=after)
        return begin_or_go_on(plan, where)


def reference(plan: RunConfig, where: Path) -> tuple[dict[str, Any], int]:
    """An undisturbed run, and how many operations it took."""
    with pytest.MonkeyPatch.context() as patch:
        log = kill_at(patch, 10**9, after=False)
        return train(plan, str(where)), len(log)


def check_run(where: Path, plan: RunConfig) -> None:
    """What must hold in every finished run directory."""
    store = RunStore(str(where))
    commits = [store.commit(iteration) for iteration in store.iterations()]
    rows = int(ds.dataset(where / layout.TRANSITIONS, format="parquet").count_rows())
    assert rows == sum(commit.rows_written for commit in commits) == commits[-1].env_steps
    table = read(where)
    keys = list(zip(table["episode_id"].to_pylist(), table["t"].to_pylist(), strict=True))
    assert len(set(keys)) == len(keys), "a step was counted twice"
    check_successors(table)
    assert [row["iteration"] for row in store.read_metrics()] == list(range(len(commits)))
    assert not (where / layout.STAGING).exists()
    for commit in commits:
        assert weights.sha256(store.read_weights(commit.policy_version)) == commit.weights_sha256
    assert len(commits) == plan.num_iterations


PLANS = {
    "native": config({"id": "CartPole-v1", "max_episode_steps": 30}),
    "normalised": config(
        {"id": "Pendulum-v1", "max_episode_steps": 20},
        policy={"normalize_observation": True},
        algorithm={"normalize_return": True, "learning_rate_schedule": "linear"},
    ),
    "pipelined": config({"id": "CartPole-v1", "max_episode_steps": 30}, rollout={"pipelined": True}),
    "replayed": config({"id": "CartPole-v1", "max_episode_steps": 30, "carry": "replay"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(name: str, tmp_path: Path) -> None:
    plan = PLANS[name]
    one, other = (train(plan, str(tmp_path / run)) for run in "ab")
    assert one["weights_sha256"] == other["weights_sha256"]
    assert hashes(tmp_path / "a", *TABLES) == hashes(tmp_path / "b", *TABLES)
    check_run(tmp_path / "a", plan)
    changed = RunConfig.from_dict(plan.to_dict() | {"run": plan.to_dict()["run"] | {"seed": 8}})
    assert train(changed, str(tmp_path / "c"))["weights_sha256"] != one["weights_sha256"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_run_that_is_killed_at_any_operation_goes_on_to_the_same_bits(after: bool, tmp_path: Path) -> None:
    plan = PLANS["native"]
    wanted, total = reference(plan, tmp_path / "reference")
    bits = hashes(tmp_path / "reference", *TABLES)
    assert total > 40
    for number in range(total):
        where = tmp_path / "run"
        with pytest.raises(Killed):
            until_killed(plan, where, number, after=after)
        summary = begin_or_go_on(plan, where)
        assert summary["weights_sha256"] == wanted["weights_sha256"], number
        assert summary["evaluation_return_mean"] == wanted["evaluation_return_mean"], number
        assert hashes(where, *TABLES) == bits, number
        check_run(where, plan)
        shutil.rmtree(where)


@pytest.mark.parametrize("name", ["normalised", "pipelined", "replayed"])
def test_a_run_that_is_killed_again_and_again_gets_there_all_the_same(name: str, tmp_path: Path) -> None:
    plan = PLANS[name]
    wanted, total = reference(plan, tmp_path / "reference")
    where, rng, kills = tmp_path / "run", np.random.default_rng(0), 0
    for _ in range(200):
        try:
            summary = until_killed(plan, where, int(rng.integers(0, total // 2)), after=bool(rng.integers(2)))
            break
        except Killed:
            kills += 1
    assert kills > 1
    assert summary["weights_sha256"] == wanted["weights_sha256"]
    assert hashes(where, *TABLES) == hashes(tmp_path / "reference", *TABLES)
    check_run(where, plan)


def test_metrics_do_not_depend_on_kills(tmp_path: Path) -> None:
    """All but the clock's: an iteration that was committed before the kill keeps its returns."""
    plan = PLANS["native"]
    _, total = reference(plan, tmp_path / "reference")

    def rows(where: Path) -> list[dict[str, float]]:
        clock = ("time/", "throughput/", "rollout/live", "rollout/restored", "rollout/tasks_retried")
        return [{name: value for name, value in row.items() if not name.startswith(clock)}
                for row in RunStore(str(where)).read_metrics()]  # fmt: skip

    wanted = rows(tmp_path / "reference")
    assert all("rollout/return_mean" in row for row in wanted)
    for number in range(0, total, 3):
        where = tmp_path / str(number)
        with pytest.raises(Killed):
            until_killed(plan, where, number, after=False)
        begin_or_go_on(plan, where)
        assert rows(where) == wanted, number


def test_every_metric_is_defined_and_written_once_an_iteration(tmp_path: Path) -> None:
    train(PLANS["native"], str(tmp_path / "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / layout.METRICS).read_text().splitlines()]
    assert Counter(line["iteration"] for line in lines) == Counter(range(3))
    for line in lines:
        metrics.check(line)
    assert lines[-1]["env_steps"] == RunStore(str(tmp_path / "run")).commit(2).env_steps


class Notes:
    """Somebody who watches."""

    def __init__(self) -> None:
        self.started: list[tuple[Any, ...]] = []
        self.iterations: list[int] = []
        self.notes: list[str] = []

    def start(self, *args: Any) -> None:
        self.started.append(args)

    def iteration(self, iteration: int, row: object) -> None:
        self.iterations.append(iteration)

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_complete_run_says_so_and_does_nothing(tmp_path: Path) -> None:
    plan, where = PLANS["native"], tmp_path / "run"
    first = train(plan, str(where))
    before = {path: path.read_bytes() for path in where.rglob("*") if path.is_file()}
    watch = Notes()
    again = train(plan, str(where), resume=True, progress=watch)
    assert watch.notes == [f"run {where} is complete: all 3 iterations are done"]
    assert (watch.started, watch.iterations) == ([], [])
    assert {path: path.read_bytes() for path in where.rglob("*") if path.is_file()} == before
    assert {key: value for key, value in first.items() if key != "wall_s"} == {
        key: value for key, value in again.items() if key != "wall_s"
    }


def test_progress_goes_on_where_the_run_does(tmp_path: Path) -> None:
    plan, where, watch = PLANS["native"], tmp_path / "run", Notes()
    _, total = reference(plan, tmp_path / "reference")
    with pytest.raises(Killed):
        until_killed(plan, where, total * 2 // 3, after=False)
    train(plan, str(where), resume=True, progress=watch)
    assert watch.started[0][2] == watch.iterations[0] > 0
    assert watch.iterations[-1] == 2


def test_another_config_is_refused_with_the_difference(tmp_path: Path) -> None:
    train(PLANS["native"], str(tmp_path / "run"))
    other = config(
        {"id": "CartPole-v1", "max_episode_steps": 30}, algorithm={"clip": 0.1}, rollout={"steps_per_env": 8}
    )
    with pytest.raises(UserError, match=r"another config: algorithm.clip: 0.2 -> 0.1, rollout.steps_per_env: 16 -> 8"):
        train(other, str(tmp_path / "run"), resume=True)


def test_other_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run.json; wanted the directory of a run"):
        train(PLANS["native"], str(tmp_path / "nothing"), resume=True)
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/main.tex").write_text("")
    for resume in (False, True):
        with pytest.raises(UserError, match="other content|no run.json"):
            train(PLANS["native"], str(tmp_path / "thesis"), resume=resume)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["main.tex"]
    train(PLANS["native"], str(tmp_path / "run"))
    with pytest.raises(UserError, match="a run that has begun already"):
        train(PLANS["native"], str(tmp_path / "run"))


def test_a_run_stops_at_the_return_that_was_asked_for(tmp_path: Path) -> None:
    plan = config(evaluation={"every": 2, "stop_at_return": 1.0})
    summary = train(plan, str(tmp_path / "run"))
    assert (summary["iterations"], summary["finished"]) == (2, "evaluation reached a mean return of 1")
    assert train(plan, str(tmp_path / "run"), resume=True)["iterations"] == 2
    hard = config(evaluation={"every": 2, "stop_at_return": 1e9})
    assert train(hard, str(tmp_path / "hard"))["finished"] == "all 3 iterations are done"


def test_pipelined_iterations_are_acted_by_the_version_before(tmp_path: Path) -> None:
    train(PLANS["pipelined"], str(tmp_path / "run"))
    store = RunStore(str(tmp_path / "run"))
    assert [store.commit(iteration).policy_version for iteration in range(3)] == [0, 0, 1]
    assert sorted(set(read(tmp_path / "run")["policy_version"].to_pylist())) == [0, 1]


def test_a_broken_environment_stops_the_run_and_leaves_what_is_committed(tmp_path: Path) -> None:
    env = {"id": "toys:Faulty", "kwargs": {"fault": "nan reward"}}
    good = train(config(env | {"max_episode_steps": 2}), str(tmp_path / "run"))  # episodes end before the third step
    assert good["iterations"] == 3
    longer = config(env)
    with pytest.raises(RunError, match=r"environment toys:Faulty number 0, episode 0 \(seed \d+\), step 2.*reward nan"):
        train(longer, str(tmp_path / "broken"))
    assert RunStore(str(tmp_path / "broken")).iterations() == []


def test_a_stored_version_is_evaluated_from_the_run_alone(tmp_path: Path) -> None:
    summary = train(PLANS["native"], str(tmp_path / "run"))
    newest = evaluate_run(str(tmp_path / "run"), episodes=4)
    assert (newest["policy_version"], newest["return_mean"]) == (3, summary["evaluation_return_mean"])
    assert evaluate_run(str(tmp_path / "run"), episodes=4, policy_version=0)["policy_version"] == 0
    with pytest.raises(UserError, match=r"policy version 9 .*one of 0 to 3 \(4\)"):
        evaluate_run(str(tmp_path / "run"), policy_version=9)
    with pytest.raises(UserError, match="no run.json"):
        evaluate_run(str(tmp_path / "nothing"))


def test_an_environment_without_an_end_is_not_evaluated_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spark_rl.rollout.evaluate._LONGEST", 50)
    with pytest.raises(
        RunError, match=r"evaluation of toys:Greedy, episode 0: got no end after 50 steps.*max_episode_st"
    ):
        train(config({"id": "toys:Greedy"}), str(tmp_path / "run"))
    assert RunStore(str(tmp_path / "run")).iterations() == [0, 1, 2]


def test_curves_are_written_once_for_every_iteration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    train(PLANS["native"], str(tmp_path / "run"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / layout.TENSORBOARD))
    events.Reload()
    steps = [event.step for event in events.Scalars("learner/policy_loss")]
    assert steps == [RunStore(str(tmp_path / "run")).commit(iteration).env_steps for iteration in range(3)]
