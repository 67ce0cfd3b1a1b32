"""Tables on Spark: executors reduce rows to counts, and the run is the one without Spark, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spark_rl import builder
from spark_rl.config import RunConfig
from spark_rl.data.store import RunStore
from spark_rl.errors import RunError
from spark_rl.parallel.counts import CountingTask, count_iteration
from spark_rl.policies import weights as codec
from spark_rl.schema import layout
from spark_rl.tabular.counted import Counting
from spark_rl.train import Trainer, train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def tabular(name: str) -> RunConfig:
    return RunConfig.from_dict({
        "run": {"env_steps": 3 * 3 * 4 * 40}, "env": {"id": "Taxi-v4", "carry": "replay"}, "algorithm": {"name": name},
        "rollout": {"num_groups": 3, "envs_per_group": 4, "steps_per_env": 40}, "evaluation": {"episodes": 1},
    })  # fmt: skip


@pytest.mark.parametrize("name", ["q_learning", "double_q_learning", "sarsa"])
def test_executors_counts_give_the_weights_of_a_run_without_spark(
    spark: SparkSession, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = train(tabular(name), str(tmp_path / "here"))
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_read", None)  # the driver must not read the rows
        there = train(tabular(name), str(tmp_path / "there"), spark=spark)
    assert here["weights_sha256"] == there["weights_sha256"]
    q = codec.decode(RunStore(str(tmp_path / "there")).read_weights(3))["q"]
    assert (q != 0).sum() > 100


def test_a_changed_file_is_noticed_on_the_executor(spark: SparkSession, tmp_path: Path) -> None:
    trainer = tmp_path / "run"
    train(tabular("q_learning"), str(trainer))
    store = RunStore(str(trainer))
    commit = store.commit(1)
    file = commit.of(layout.TRANSITIONS)[2]
    (trainer / layout.committed(file.table, 1) / file.name).write_bytes(b"other")
    stored = store.describe()
    env = builder.stored_plan(RunConfig.from_dict(stored["config"]), stored)
    task = CountingTask(store.uri, 1, env.observation, env.action, Counting())
    with pytest.raises(RunError, match=f"{file.name}.*other bytes than were committed"):
        count_iteration(spark, task, commit)
