"""What a run's JSON records say, as small DataFrames: its iterations, its policies, and the runs themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession

from spark_rl import metrics
from spark_rl.data.store import Commit, RunStore
from spark_rl.files import redact
from spark_rl.schema import layout
from spark_rl.sql.runs import Run

_STRING, _INT, _BIGINT, _DOUBLE, _TIMESTAMP = (
    pa.string(),
    pa.int32(),
    pa.int64(),
    pa.float64(),
    pa.timestamp("us", "UTC"),
)
_FROM_COMMIT = {
    "run_id": _STRING,
    "iteration": _INT,
    "policy_version": _BIGINT,
    "num_rows": _BIGINT,
    "num_rows_planned": _BIGINT,
    "num_rows_reset": _BIGINT,
    "env_steps": _BIGINT,
    "num_episodes": _BIGINT,
    "num_files": _INT,
    "size_bytes": _BIGINT,
    "weights_sha256": _STRING,
    "committed_at": _TIMESTAMP,
    "rollout_wall_s": _DOUBLE,
}
_POLICIES = {
    "run_id": _STRING,
    "policy_version": _BIGINT,
    "parent_version": _BIGINT,
    "iteration": _INT,
    "algorithm": _STRING,
    "uri": _STRING,
    "sha256": _STRING,
    "size_bytes": _BIGINT,
    "created_at": _TIMESTAMP,
}
_RUNS = {
    "run_id": _STRING,
    "run_uuid": _STRING,
    "uri": _STRING,
    "created_at": _TIMESTAMP,
    "env_id": _STRING,
    "algorithm": _STRING,
    "seed": _BIGINT,
    "behavior": _STRING,
    "config": _STRING,
    "config_sha256": _STRING,
    "versions": pa.map_(_STRING, _STRING),
}
_IDENTITY = ("iteration", "env_steps", "policy_version")  # the commit record has them too, and decides


def column(metric: str) -> str:
    """A metric's name as a column of `iterations`: "rollout/return_mean" -> rollout_return_mean."""
    return metric.replace("/", "_")


def iterations(spark: SparkSession, runs: Sequence[Run]) -> DataFrame:
    """One row a committed iteration: its commit record, and its line of metrics.jsonl or NULLs where it has none.

    Every metric that is defined has a column, whether these runs have it or not, so that a query does not depend on
    the algorithm; names of a later release that stand in the file come last.
    """
    lines = [{int(row["iteration"]): row for row in run.store.read_metrics()} for run in runs]
    found = {name for by_iteration in lines for row in by_iteration.values() for name in row}
    names = [name for name in metrics.NAMES if name not in _IDENTITY]
    names += sorted(found - set(metrics.NAMES))
    rows = [
        (run.run_id, *_commit_row(commit), *_metrics_row(by_iteration.get(commit.iteration, {}), names))
        for run, by_iteration in zip(runs, lines, strict=True)
        for commit in run.commits
    ]
    return _frame(spark, rows, _FROM_COMMIT | {column(name): _DOUBLE for name in names})


def _frame(spark: SparkSession, rows: Sequence[tuple[Any, ...]], columns: Mapping[str, pa.DataType]) -> DataFrame:
    """Rows of the driver as a DataFrame: from Arrow, which Spark keeps as a local relation and plans without a job."""
    arrays = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(columns.values())]
    return spark.createDataFrame(pa.table(arrays, names=list(columns)))


def _metrics_row(values: Mapping[str, float], names: Sequence[str]) -> Iterator[float | None]:
    return (float(values[name]) if name in values else None for name in names)


def _commit_row(commit: Commit) -> tuple[Any, ...]:
    return (
        commit.iteration,
        commit.policy_version,
        commit.rows_written,
        commit.rows_planned,
        commit.rows_reset,
        commit.env_steps,
        sum(file.rows for file in commit.of(layout.EPISODES)),
        len(commit.files),
        sum(file.size_bytes for file in commit.files),
        commit.weights_sha256,
        _time(commit.committed_at),
        commit.wall_s,
    )


def policies(spark: SparkSession, runs: Sequence[Run]) -> DataFrame:
    """One row a stored policy version, those that never acted included."""
    rows = [row for run in runs for row in _policy_rows(run)]
    return _frame(spark, rows, _POLICIES)


def _policy_rows(run: Run) -> list[tuple[Any, ...]]:
    acted = {commit.policy_version: commit for commit in reversed(run.commits)}  # the first iteration it acted in
    behavior = run.description.get("behavior")  # of a collection: a policy from elsewhere, which learns nothing here
    algorithm = None if behavior else run.description["config"]["algorithm"]["name"]
    files = _weight_files(run.store)
    rows = []
    for version in run.store.policy_versions():
        commit, info = acted.get(version), files.get(layout.weights(version))
        if info is None:
            continue  # a crash came between the directory and the file
        # Only what has not acted yet, one version in a run at rest, has no hash in a commit record.
        sha256 = commit.weights_sha256 if commit else hashlib.sha256(run.store.read_weights(version)).hexdigest()
        parent = version - 1 if version and not behavior else None
        uri = f"{run.uri}/{layout.weights(version)}"
        iteration = commit.iteration if commit else None
        rows.append((run.run_id, version, parent, iteration, algorithm, uri, sha256, info.size, info.mtime))
    return rows


def _weight_files(store: RunStore) -> dict[str, fs.FileInfo]:
    """The stored weights by their path in the run, in one listing."""
    root = store.root.locate("")
    selector = fs.FileSelector(store.root.locate("policies"), allow_not_found=True, recursive=True)
    return {info.path[len(root) + 1 :]: info for info in store.root.filesystem.get_file_info(selector) if info.is_file}


def runs(spark: SparkSession, opened: Sequence[Run]) -> DataFrame:
    """One row a run: what made its rows. `config` is JSON, without credentials."""
    rows = [
        (
            run.run_id,
            run.description["run_id"],
            run.uri,
            _time(run.description["created"]),
            run.description["config"]["env"]["id"],
            run.description["config"]["algorithm"]["name"],
            run.description["seed"],
            _behavior(run.description.get("behavior")),
            json.dumps(run.description["config"]),
            run.description["config_sha256"],
            list(run.description["versions"].items()),
        )
        for run in opened
    ]
    return _frame(spark, rows, _RUNS)


def _behavior(described: dict[str, Any] | None) -> str | None:
    """JSON of what collected; its policy may be a URI with credentials."""
    if described is None:
        return None
    return json.dumps({name: redact(value) if isinstance(value, str) else value for name, value in described.items()})


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
