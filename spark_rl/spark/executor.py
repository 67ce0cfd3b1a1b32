"""What a Spark task runs: partition -> rollout. All it needs came with it; it never reaches back to the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.core.broadcast import Broadcast

from spark_rl.rollout.evaluate import EpisodeResult, EvaluationTask, evaluate_group
from spark_rl.rollout.run import run_group
from spark_rl.rollout.spec import GroupTask, RolloutSpec
from spark_rl.schema.parquet import encode
from spark_rl.schema.reports import GroupReport


def collect_partition(
    spec: RolloutSpec, weights: Broadcast[bytes], tasks: Iterable[GroupTask]
) -> Iterator[GroupReport]:
    """Collect the fragments of a partition (one group each) and yield their reports."""
    context = TaskContext.get()
    attempt = context.attemptNumber() if context else 0
    for task in tasks:
        yield run_group(spec, task, weights.value, attempt=attempt)


def evaluate_partition(
    spec: RolloutSpec, weights: Broadcast[bytes], tasks: Iterable[EvaluationTask]
) -> Iterator[EpisodeResult]:
    """Play a partition's greedy episodes."""
    for task in tasks:
        yield from evaluate_group(spec, task, weights.value)


def warm_partition(shared: Broadcast[bytes], slots: Iterable[int]) -> Iterator[int]:
    """Make a new worker ready: importing this module brought in what an MLP's rollout needs, all but one thing."""
    # pyarrow looks for pandas at its first table, which costs 0.15 s where pandas is installed.
    encode(pa.table({"warm": np.frombuffer(shared.value, np.uint8)}), "zstd")
    yield from slots
