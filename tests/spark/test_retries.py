"""Attempts that fail: rows do not show it, metrics do, and what cannot be helped ends in one clear line."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import chaos
import harness
import pytest

from spark_rl.data.store import RunStore
from spark_rl.errors import RunError
from spark_rl.spark import driver
from spark_rl.train import train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def plan(spark: SparkSession, monkeypatch: pytest.MonkeyPatch):
    """Puts a chaos.Plan around the tasks of the runs that follow."""
    spark.sparkContext.addPyFile(chaos.__file__)

    def use(what: str, when: str, *tasks: tuple[int, int], **more: object) -> None:
        made = chaos.Plan(what=what, when=when, tasks=tasks, **more)
        monkeypatch.setattr(driver, "collect_partition", partial(chaos.collect_partition, made))

    return use


def retried(run: Path) -> list[float]:
    return [row["rollout/tasks_retried"] for row in RunStore(str(run)).read_metrics()]


@pytest.mark.parametrize("env", ["native", "replay", "recurrent"])
@pytest.mark.parametrize("when", ["before", "half", "after"])
def test_a_failed_attempt_leaves_no_trace_in_rows_and_weights(
    spark: SparkSession, plan, tmp_path: Path, env: str, when: str
) -> None:
    text = harness.toml(env)
    plan("raise", when, (0, 1), (2, 0), (2, 1), (4, 0))
    run = tmp_path / "run"
    train(harness.parse(text), str(run), spark=spark)
    found = harness.same(run, text)
    assert retried(run) == [1, 0, 2, 0, 1, 0]
    assert spark.read.parquet(f"{run}/transitions").count() == found.rows


def test_a_killed_python_worker_is_a_failed_attempt(spark: SparkSession, plan, tmp_path: Path) -> None:
    text = harness.toml("replay")
    plan("kill worker", "half", (1, 0), (3, 1))
    train(harness.parse(text), str(tmp_path / "run"), spark=spark)
    harness.same(tmp_path / "run", text)
    # A dying worker may take the other task of the stage with it, never one of another iteration.
    counts = retried(tmp_path / "run")
    assert counts[1] >= 1 and counts[3] >= 1
    assert [counts[k] for k in (0, 2, 4, 5)] == [0, 0, 0, 0]


def test_pipelined_runs_survive_it_too(spark: SparkSession, plan, tmp_path: Path) -> None:
    text = harness.toml("native").replace("[rollout]", "[rollout]\npipelined = true")
    plan("raise", "after", (0, 1), (2, 0), (3, 1))
    train(harness.parse(text), str(tmp_path / "run"), spark=spark)
    harness.same(tmp_path / "run", text)
    assert retried(tmp_path / "run") == [1, 0, 1, 1, 0, 0]


def test_what_fails_every_time_stops_the_run_and_keeps_what_was_committed(
    spark: SparkSession, plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = harness.toml("native")
    run = tmp_path / "run"
    plan("raise", "after", (3, 1), always=True)
    with pytest.raises(RunError) as caught:
        train(harness.parse(text), str(run), spark=spark)
    assert str(caught.value) == (
        "rollout: iteration 3, policy version 3, 2 groups: got OSError: chaos after iteration 3, group 1; "
        "the executors' logs have the rest; what is committed is intact"
    )
    wanted = harness.undisturbed(text)
    assert harness.facts(run).files == {k: wanted.files[k] for k in (0, 1, 2)}
    rows = sum(RunStore(str(run)).commit(k).rows_written for k in (0, 1, 2))
    assert spark.read.parquet(f"{run}/transitions").count() == rows

    # Mended, it goes on to the same end.
    monkeypatch.undo()
    train(harness.parse(text), str(run), spark=spark, resume=True)
    harness.same(run, text)


def test_an_environment_that_breaks_is_named_with_seed_step_and_action(spark: SparkSession, tmp_path: Path) -> None:
    spark.sparkContext.addPyFile(chaos.__file__)
    text = harness.toml("sync", wrapper="Broken", iteration=2)
    with pytest.raises(RunError) as caught:
        train(harness.parse(text), str(tmp_path / "run"), spark=spark)
    told = str(caught.value)
    assert "\n" not in told
    for part in (
        "rollout: iteration 2, policy version 2",
        "environment CartPole-v1 number ",
        "got ZeroDivisionError: the simulator's pole has no length",
        "step ",
        "action ",
        "seed ",
    ):
        assert part in told
    harness.facts(tmp_path / "run")
    assert RunStore(str(tmp_path / "run")).iterations() == [0, 1]


@pytest.mark.spark
def test_the_command_line_ends_with_one_line_and_exit_code_1(tmp_path: Path) -> None:
    config = harness.write_config(tmp_path, harness.toml("sync", wrapper="Broken", iteration=1))
    command = [*harness.CLI, "train", str(config), "--run", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, "--spark-conf", "spark.master=local[2,2]"], env=harness.environment(), cwd=tmp_path,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if "incubator" not in line]
    assert lines[0].startswith("run ") and lines[1].startswith("iteration 1/6")
    assert len(lines) == 3, done.stderr
    assert lines[2].startswith("spark-rl: rollout: iteration 1, policy version 1")
    assert "ZeroDivisionError: the simulator's pole has no length" in lines[2]
