"""The report of real runs, through Spark: the page's numbers against the run's own records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from spark_rl.collect import collect
from spark_rl.config import RunConfig
from spark_rl.errors import UserError
from spark_rl.train import train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def config(iterations: int = 3) -> RunConfig:
    return RunConfig.from_dict({
        "run": {"env_steps": iterations * 128},
        "env": {"id": "CartPole-v1"},
        "rollout": {"num_groups": 1, "envs_per_group": 4, "steps_per_env": 32},
        "policy": {"hidden": [8]},
        "algorithm": {"name": "ppo", "num_epochs": 1, "minibatch_size": 64},
        "evaluation": {"episodes": 3},
    })  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report") / "run"
    train(config(), str(place))
    return place


def test_a_report(run: Path, spark: SparkSession, tmp_path: Path) -> None:
    from spark_rl.report import build

    spark.sql("SELECT 'mine' AS whose").createOrReplaceTempView("transitions")
    assert build(str(run), spark=spark, png_dir=tmp_path / "new" / "pictures") == f"{run}/report.html"
    text = (run / "report.html").read_text(encoding="utf-8")

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert f">{lines[-1]['env_steps']:,}<" in text
    assert "✓ every committed row is there exactly once" in text
    assert "3 of 3 planned iterations" in text
    for commit in (run / "_commits").iterdir():
        assert json.loads(commit.read_text())["weights_sha256"][:16] in text
    for path in (tmp_path / "new" / "pictures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    assert {path.stem for path in (tmp_path / "new" / "pictures").iterdir()} >= {"learning_curve", "time", "entropy"}
    assert spark.table("transitions").collect()[0]["whose"] == "mine"  # the caller's own view

    again = build(str(run), spark=spark, output=tmp_path / "page.html")
    assert again == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == text


def test_rows_that_are_there_twice_are_found(run: Path, spark: SparkSession, tmp_path: Path) -> None:
    from spark_rl.report.data import EXACTLY_ONCE_SQL
    from spark_rl.sql import query, views

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (part,) = (copy / "transitions" / "iteration=1").iterdir()
    rows = pq.ParquetFile(part).read().to_pylist()
    shutil.copy(part, part.with_name("part-00007.parquet"))
    views.register(spark, [str(copy)])
    (found,) = query.fetch(spark, EXACTLY_ONCE_SQL)
    committed = json.loads((copy / "metrics.jsonl").read_text().splitlines()[-1])["env_steps"]
    assert found["rows_stored"] == committed + len(rows)
    assert found["num_episodes_broken"] == len({row["episode_id"] for row in rows})


def test_a_collection(spark: SparkSession, tmp_path: Path) -> None:
    from spark_rl.report import build

    collect(config(1), str(tmp_path / "random"))
    text = Path(build(str(tmp_path / "random"), spark=spark)).read_text(encoding="utf-8")
    assert "CartPole-v1, collected by random" in text
    assert ">Learner<" not in text


def test_a_run_that_has_only_begun(run: Path, spark: SparkSession, tmp_path: Path) -> None:
    from spark_rl.report import build

    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(run / "run.json", begun)
    text = Path(build(str(begun), spark=spark)).read_text(encoding="utf-8")
    assert text.count("No episode has ended in this run yet.") == 3
    assert "0 of 3 planned iterations" in text


def test_a_page_that_cannot_be_written(run: Path, spark: SparkSession, tmp_path: Path) -> None:
    from spark_rl.report import build

    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"/file: got .*; wanted a place to write"):
        build(str(run), spark=spark, output=tmp_path / "file" / "page.html")
    with pytest.raises(UserError, match=r"nothing: got no run\.json"):
        build(str(tmp_path / "nothing"), spark=spark)
