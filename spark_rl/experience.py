"""A run's iterations, one after the other: collected by tasks, checked, committed. Knows nothing of learning."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from spark_rl.accounting import rollout_metrics
from spark_rl.data.store import Commit, RunStore
from spark_rl.policies import weights as codec
from spark_rl.rollout.evaluate import EpisodeResult, EvaluationTask
from spark_rl.rollout.local import LocalCollector
from spark_rl.rollout.spec import GroupTask, RolloutSpec
from spark_rl.schema import layout
from spark_rl.schema.reports import GroupReport


class Collector(Protocol):
    """Where rollouts run: `rollout.local.LocalCollector`, or `spark.driver.SparkCollector`."""

    def collect(self, spec: RolloutSpec, tasks: list[GroupTask], weights: bytes) -> list[GroupReport]:
        """Run every task; their files are in staging afterwards."""

    def evaluate(self, spec: RolloutSpec, tasks: list[EvaluationTask], weights: bytes) -> list[EpisodeResult]:
        """Play every task's episodes."""

    def cancel(self) -> None:
        """Stop what runs, from another thread."""

    def close(self) -> None:
        """Stop what runs, and release what the collector holds."""


def make_collector(spark: Any) -> Collector:
    """Where rollouts run: as jobs of the session, or in this process where `spark` is None."""
    if spark is None:
        return LocalCollector()
    from spark_rl.spark.driver import SparkCollector  # deferred: a machine without pyspark can collect and learn too

    return SparkCollector(spark)


class Progress(Protocol):
    """Who watches a run."""

    def start(self, run_uri: str, num_iterations: int, first_iteration: int = 0) -> None:
        """The run begins, or goes on."""

    def iteration(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """One more iteration is done."""

    def note(self, text: str) -> None:
        """Something to know once."""


class Silent:
    """Nobody watches."""

    def start(self, run_uri: str, num_iterations: int, first_iteration: int = 0) -> None:
        """Say nothing."""

    def iteration(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Collected:
    """An iteration whose files are in staging."""

    iteration: int
    policy_version: int
    weights: bytes
    reports: list[GroupReport]
    wall_s: float  # of the rollout job


class Experience:
    """Collects and commits the iterations of one run."""

    def __init__(self, store: RunStore, spec: RolloutSpec, collector: Collector) -> None:
        self._store, self._spec, self._collector = store, spec, collector
        # Idle Python workers are handed out in the order in which they became idle. So listing the groups in the order
        # in which they ended gives most of them the worker that still has their environments. Only a hint: any order
        # gives the same rows.
        self._order = list(range(spec.num_groups))

    def collect(self, iteration: int, policy_version: int) -> Collected:
        """Run the iteration's tasks with the stored weights of a version. Iteration - 1 must be committed."""
        weights = self._store.read_weights(policy_version)
        tasks = group_tasks(self._store, iteration, policy_version, self._order)
        began = time.perf_counter()
        reports = self._collector.collect(self._spec, tasks, weights)
        wall_s = time.perf_counter() - began
        self._order = [report.group for report in sorted(reports, key=lambda report: report.ended_at)]
        reports = sorted(reports, key=lambda report: report.group)  # a mean's last bits depend on the order
        return Collected(iteration, policy_version, weights, reports, wall_s)

    def commit(self, collected: Collected, *, env_steps: int) -> tuple[Commit, dict[str, float]]:
        """Publish and commit; the record, and the iteration's metrics. `env_steps` were committed before it."""
        began = time.perf_counter()
        row = rollout_metrics(collected.reports, wall_s=collected.wall_s,
                              staleness=max(0, collected.iteration - collected.policy_version))  # fmt: skip
        row["time/rollout_s"] = collected.wall_s
        commit = self._store.publish(
            collected.iteration, collected.reports, num_groups=self._spec.num_groups, env_steps=env_steps,
            wall_s=collected.wall_s, weights_sha256=codec.sha256(collected.weights), rollout_metrics=row,
        )  # fmt: skip
        return commit, row | {"time/commit_s": time.perf_counter() - began}


def group_tasks(store: RunStore, iteration: int, policy_version: int, groups: list[int]) -> list[GroupTask]:
    """The tasks of an iteration, each with the cursor that its group left in the iteration before."""
    cursors = store.commit(iteration - 1).hashes(layout.CURSORS) if iteration else {}
    return [
        GroupTask(iteration=iteration, group=group, policy_version=policy_version,
                  cursor_sha256=cursors.get(layout.part(layout.CURSORS, group), ""))
        for group in groups
    ]  # fmt: skip
