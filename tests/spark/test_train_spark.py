"""The main job on Spark: the rows and the weights of a run without Spark, on any number of cores, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import harness
import pytest

from spark_rl.config import difference
from spark_rl.train import evaluate_run, train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def one_core(tmp_path_factory: pytest.TempPathFactory):
    with harness.driver("local[1]", tmp_path_factory.mktemp("one_core")) as driver:
        yield driver


@pytest.mark.parametrize("env", ["native", "replay", "sync", "recurrent"])
def test_two_cores_give_the_rows_and_weights_of_a_run_without_spark(
    spark: SparkSession, tmp_path: Path, env: str
) -> None:
    text = harness.toml(env)
    run = str(tmp_path / "run")
    summary = train(harness.parse(text), run, spark=spark)
    found = harness.same(run, text)
    assert summary["weights_sha256"] == found.weights
    assert summary["env_steps"] == found.rows

    # A plain read sees the committed rows, and every iteration's.
    transitions = spark.read.parquet(f"{run}/transitions")
    assert transitions.count() == found.rows
    counts = {row["iteration"]: row["count"] for row in transitions.groupBy("iteration").count().collect()}
    assert counts == {
        k: sum(rows for (table, _), (rows, _) in files.items() if table == "transitions")
        for k, files in found.files.items()
    }
    assert transitions.select("episode_id", "t").distinct().count() == found.rows
    wanted_episodes = sum(
        rows for files in found.files.values() for (table, _), (rows, _) in files.items() if table == "episodes"
    )
    assert wanted_episodes > 0
    assert spark.read.parquet(f"{run}/episodes").count() == wanted_episodes


@pytest.mark.spark
@pytest.mark.parametrize("env", ["native", "replay"])
def test_one_core_gives_the_same(one_core: harness.Driver, env: str) -> None:
    text = harness.toml(env)
    assert one_core.master == "local[1]"
    harness.same(one_core.train(text), text)


def test_another_seed_gives_other_rows_and_weights(spark: SparkSession, tmp_path: Path) -> None:
    """What the tests of equality rest on: the facts do tell two runs apart."""
    text = harness.toml("native")
    other = text.replace("seed = 3", "seed = 4")
    assert difference(harness.parse(text), harness.parse(other)) == ["run.seed: 3 -> 4"]
    train(harness.parse(other), str(tmp_path / "run"), spark=spark)
    got, wanted = harness.facts(tmp_path / "run"), harness.undisturbed(text)
    assert got.weights != wanted.weights
    for k in wanted.files:
        assert not set(got.files[k].values()) & set(wanted.files[k].values())


def test_evaluation_on_spark_is_the_evaluation_in_this_process(spark: SparkSession, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    train(harness.parse(harness.toml("native")), run, spark=spark)
    on_spark = evaluate_run(run, spark=spark, episodes=9)
    assert on_spark == evaluate_run(run, episodes=9)
    assert on_spark["episodes"] == 9
    assert evaluate_run(run, spark=spark, episodes=9, policy_version=0) != on_spark


def test_jobs_have_names_for_the_spark_ui(spark: SparkSession, tmp_path: Path) -> None:
    seen = []
    context = spark.sparkContext
    before = context.setJobDescription

    def spy(words: str | None) -> None:
        seen.append(words)
        before(words)

    context.setJobDescription = spy  # type: ignore[method-assign]
    try:
        train(harness.parse(harness.toml("native", iterations=2)), str(tmp_path / "run"), spark=spark)
    finally:
        del context.setJobDescription
    assert "rollout: iteration 1, policy version 1, 2 groups" in seen
    assert "evaluation: policy version 2, 4 episodes" in seen
    assert seen[-1] is None  # a caller's own jobs do not inherit ours
