"""The stored tables of runs as DataFrames: committed iterations only, with the column `run_id` in front.

Transitions and episodes are Parquet that Spark reads itself. Iterations, policies and runs come from the small JSON
records beside them, which the driver reads anyway to know what is committed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from urllib.parse import urlsplit

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import lit
from pyspark.sql.types import StructType

from spark_rl.data.store import Commit, RunStore
from spark_rl.errors import UserError
from spark_rl.schema import layout
from spark_rl.sql import records
from spark_rl.sql.failures import translated
from spark_rl.sql.runs import Run
from spark_rl.sql.types import spark_schema

# pyarrow's names for what Hadoop calls otherwise.
_HADOOP_SCHEME = {"s3": "s3a", "gcs": "gs", "az": "abfs"}
_LISTING_TASKS_PER_SLOT = 4


def frames(spark: SparkSession, runs: Sequence[Run]) -> dict[str, DataFrame]:
    """Every stored table over all runs, by name."""
    return {
        layout.TRANSITIONS: _union(runs, [_read(spark, run, layout.TRANSITIONS) for run in runs]),
        layout.EPISODES: _union(runs, [_read(spark, run, layout.EPISODES) for run in runs]),
        "iterations": records.iterations(spark, runs),
        "policies": records.policies(spark, runs),
        "runs": records.runs(spark, runs),
    }


def _read(spark: SparkSession, run: Run, table: str) -> DataFrame:
    base = f"{hadoop_uri(run.store)}/{table}"
    paths = [f"{_unglob(base)}/{place}" for commit in run.commits for place in _places(run.store, commit, table)]
    with translated(f"run {run.uri}"), _short_listing(spark):
        if paths:
            frame = spark.read.option("basePath", base).parquet(*paths)
        else:
            frame = spark.createDataFrame([], spark_schema(run.schema(table)))
    front = [lit(run.run_id).alias("run_id"), frame["iteration"]]
    return frame.select(*front, *[f"`{name}`" for name in frame.columns if name != "iteration"])


def _places(store: RunStore, commit: Commit, table: str) -> list[str]:
    """What one iteration adds to the paths of a table: nothing where it has no rows there.

    A directory is moved into place whole, so it is exact even while a compaction changes the files in it, and takes
    Spark half the time to list. On an object store old and new files may lie side by side, and the record decides.
    """
    files = commit.of(table)
    directory = f"iteration={commit.iteration}"
    if store.root.has_rename:
        return [directory] if files else []
    return [f"{directory}/{file.name}" for file in files]


def hadoop_uri(store: RunStore) -> str:
    """The run's place as Spark's file systems name it; credentials and options in the URI are pyarrow's alone."""
    scheme = urlsplit(store.uri).scheme if "://" in store.uri else "file"
    if scheme == "file":
        return f"file://{store.root.path}"  # a bare path would mean the cluster's default file system
    if scheme in ("hdfs", "abfs", "abfss"):
        return store.uri.partition("?")[0].rstrip("/")  # pyarrow's path lacks the name node or the account
    return f"{_HADOOP_SCHEME.get(scheme, scheme)}://{store.root.path.lstrip('/')}"


def _unglob(path: str) -> str:
    """The path with the characters escaped that Hadoop would take for a pattern."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", path)


@contextmanager
def _short_listing(spark: SparkSession) -> Iterator[None]:
    """List directories in few tasks: Spark's default is one each (for 2,000 local ones 14 s against 0.8 s)."""
    key = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
    before = spark.conf.get(key)
    spark.conf.set(key, str(_LISTING_TASKS_PER_SLOT * spark.sparkContext.defaultParallelism))
    try:
        yield
    finally:
        spark.conf.set(key, str(before))


def _union(runs: Sequence[Run], parts: Sequence[DataFrame]) -> DataFrame:
    """Rows of all runs. A column that a run lacks is NULL there; one of another type makes a UserError.

    Runs with observations of one SQL type go together whatever their sizes are (ARRAY<FLOAT> of 4 and of 8). Casting
    the others to a common type would hide what the numbers mean, and a column a run would hide the common case.
    """
    known: dict[str, tuple[str, Run]] = {}
    for run, part in zip(runs, parts, strict=True):
        for name, kind in _types(part.schema).items():
            wanted, other = known.setdefault(name, (kind, run))
            if kind != wanted:
                raise UserError(
                    where=f"run {run.uri}", got=f"column {name} of type {kind}",
                    wanted=f"{wanted}, as in {other.uri}",
                    todo="name only runs with the same kind of spaces together",
                )  # fmt: skip
    return reduce(lambda left, right: left.unionByName(right, allowMissingColumns=True), parts)


def _types(schema: StructType) -> dict[str, str]:
    return {field.name: field.dataType.simpleString().upper() for field in schema}
