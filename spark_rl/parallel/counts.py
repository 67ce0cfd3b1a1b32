"""The rows of an iteration as counts, made where the files can be read: one task a file, sums merged in a tree.

The driver gets distinct transitions instead of rows. They are integers, so the result has the same bits as counting
on the driver, whatever order Spark merges in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from spark_rl.data.reader import read_files
from spark_rl.data.store import Commit
from spark_rl.files import open_root
from spark_rl.policies.states import StateIndex
from spark_rl.schema import layout
from spark_rl.schema.reports import FileReport
from spark_rl.schema.spaces import SpaceSpec
from spark_rl.tabular.counted import Counted, Counting, merge, rows_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, slots=True)
class CountingTask:
    """What every task gets; it crosses the wire."""

    run_uri: str
    iteration: int
    observation: SpaceSpec
    action: SpaceSpec
    how: Counting


def count_iteration(spark: SparkSession, task: CountingTask, commit: Commit) -> Counted:
    """All rows of a committed iteration. Raises RunError for a file that is not what was committed."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PythonException

    from spark_rl.spark.driver import explain

    context, files = spark.sparkContext, commit.of(layout.TRANSITIONS)
    words = f"count: iteration {commit.iteration}, {commit.rows_written:,} rows"
    context.setJobDescription(words)
    try:
        return context.parallelize(files, len(files)).map(partial(_count, task)).treeReduce(_both)
    except (Py4JJavaError, PythonException) as error:
        raise explain(error, words) from error
    finally:
        context.setJobDescription(None)  # type: ignore[arg-type]


def _count(task: CountingTask, file: FileReport) -> Counted:
    batch = read_files(open_root(task.run_uri), task.iteration, [file], task.observation, task.action)
    return merge([rows_of(batch, StateIndex(task.observation), task.action.only, task.how)])


def _both(one: Counted, other: Counted) -> Counted:
    return merge([one, other])
