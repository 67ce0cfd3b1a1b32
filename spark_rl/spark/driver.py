"""The driver's side of a rollout: broadcast weights, one job, small reports back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.core.broadcast import Broadcast
from pyspark.errors import PythonException
from pyspark.sql import SparkSession

from spark_rl.errors import RunError
from spark_rl.rollout.evaluate import EpisodeResult, EvaluationTask
from spark_rl.rollout.spec import GroupTask, RolloutSpec
from spark_rl.schema.reports import GroupReport
from spark_rl.spark.executor import collect_partition, evaluate_partition

Task = TypeVar("Task")
Result = TypeVar("Result")


class SparkCollector:
    """Runs each group as one Spark task. Same face as `rollout.local.LocalCollector`, same rows to the bit.

    Weights are broadcast once per version and destroyed when the next version comes, on the driver too: `unpersist`
    alone would leave a copy and a temporary file per iteration behind.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._context: SparkContext = spark.sparkContext
        self._weights: tuple[bytes, Broadcast[bytes]] | None = None

    def collect(self, spec: RolloutSpec, tasks: list[GroupTask], weights: bytes) -> list[GroupReport]:
        """Run every task; their files are in staging afterwards. RunError when one failed for good."""
        first = tasks[0]
        words = f"rollout: iteration {first.iteration}, policy version {first.policy_version}, {len(tasks)} groups"
        return self._run(collect_partition, spec, tasks, weights, words, "rollout")

    def evaluate(self, spec: RolloutSpec, tasks: list[EvaluationTask], weights: bytes) -> list[EpisodeResult]:
        """Play every task's greedy episodes."""
        episodes = sum(task.num_episodes for task in tasks)
        words = f"evaluation: policy version {tasks[0].policy_version}, {episodes} episodes"
        return self._run(evaluate_partition, spec, tasks, weights, words, "evaluation")

    def close(self) -> None:
        """Free the broadcast weights."""
        if self._weights is not None:
            self._weights[1].destroy()
            self._weights = None

    def _run(
        self,
        function: Callable[[RolloutSpec, Broadcast[bytes], Iterable[Task]], Iterator[Result]],
        spec: RolloutSpec,
        tasks: Sequence[Task],
        weights: bytes,
        words: str,
        pool: str,
    ) -> list[Result]:
        context = self._context
        shared = self._broadcast(weights)
        context.setJobDescription(words)
        context.setLocalProperty("spark.scheduler.pool", pool)  # only read where spark.scheduler.mode is FAIR
        try:
            return context.parallelize(tasks, len(tasks)).mapPartitions(partial(function, spec, shared)).collect()
        except (Py4JJavaError, PythonException) as error:
            raise explain(error, words) from error
        finally:
            context.setJobDescription(None)  # type: ignore[arg-type]

    def _broadcast(self, weights: bytes) -> Broadcast[bytes]:
        if self._weights is not None and self._weights[0] == weights:
            return self._weights[1]
        self.close()
        self._weights = (weights, self._context.broadcast(weights))
        return self._weights[1]


def explain(error: Any, words: str) -> RunError:
    """The task's own message, out of Spark's report of a failed job."""
    java = getattr(error, "java_exception", None)
    text = str(java.getMessage() if java is not None else error)
    ours = [line for line in text.splitlines() if line.startswith("spark_rl.errors.")]
    if ours:
        _, _, message = ours[-1].partition(": ")
        return RunError(where=words, got=message)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    python = [line for line in lines if _is_exception_line(line)]
    cause = python[-1] if python else lines[0] if lines else type(error).__name__
    return RunError(where=words, got=cause, todo="the executors' logs have the rest; what is committed is intact")


def _is_exception_line(line: str) -> bool:
    name = line.partition(":")[0]
    return name.isidentifier() and name.endswith(("Error", "Exception"))
