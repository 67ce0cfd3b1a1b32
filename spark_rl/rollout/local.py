"""Collecting in this process: the same fragments as on Spark, for tests, debugging and tutorials."""

from __future__ import annotations

import threading

from spark_rl.rollout.evaluate import EpisodeResult, EvaluationTask, evaluate_group
from spark_rl.rollout.run import run_group
from spark_rl.rollout.spec import GroupTask, RolloutSpec
from spark_rl.schema.reports import GroupReport


class LocalCollector:
    """Runs the groups one after the other. Same face as `spark.driver.SparkCollector`, same rows to the bit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a pipelined rollout and an evaluation share the policy's scratch arrays

    def collect(self, spec: RolloutSpec, tasks: list[GroupTask], weights: bytes) -> list[GroupReport]:
        """Run every task; their files are in staging afterwards."""
        with self._lock:
            return [run_group(spec, task, weights) for task in tasks]

    def evaluate(self, spec: RolloutSpec, tasks: list[EvaluationTask], weights: bytes) -> list[EpisodeResult]:
        """Greedy episodes."""
        with self._lock:
            return [result for task in tasks for result in evaluate_group(spec, task, weights)]

    def cancel(self) -> None:
        """What runs here ends by itself."""

    def close(self) -> None:
        """Nothing to release."""
