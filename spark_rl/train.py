"""The main job: broadcast weights, collect, commit, learn, checkpoint, evaluate; again.

Learning on iteration k gives policy version k + 1, which acts in iteration k + 1; or, pipelined, in iteration k + 2,
because iteration k + 1 is then collected while the learner is busy with iteration k. The state on disk only ever moves
forward: weights k -> rows k in staging -> commit k -> metrics k -> checkpoint k. A run that was killed goes on from the
newest checkpoint; an iteration that is committed beyond it is learned from again, one that is not is collected again,
and both give the same bits.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from spark_rl import builder, checkpoint
from spark_rl.config import RunConfig, difference
from spark_rl.data import compact
from spark_rl.data.batch import Batch
from spark_rl.data.reader import read_iteration
from spark_rl.data.store import Commit, RunStore
from spark_rl.errors import UserError
from spark_rl.evaluation.episodes import evaluate
from spark_rl.experience import Collected, Collector, Experience, Progress, Silent, make_collector
from spark_rl.policies import weights as codec
from spark_rl.schema import layout
from spark_rl.tensorboard import Curves

# The newest is enough to resume; the one before is for a disk that lost the newest.
_CHECKPOINTS_KEPT = 2


def train(
    config: RunConfig, run_uri: str, *, spark: Any = None, resume: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Train `config` in the run directory `run_uri`; a summary of the finished run.

    With a SparkSession the rollouts are its jobs, without one they run in this process: same rows, same weights.
    Raises UserError for a directory that cannot be this run's, RunError when the run itself fails.
    """
    collector = make_collector(spark)
    try:
        return Trainer(config, run_uri, collector, progress or Silent(), resume=resume, spark=spark).run()
    finally:
        collector.close()


def evaluate_run(
    run_uri: str, *, spark: Any = None, episodes: int = 100, policy_version: int | None = None
) -> dict[str, Any]:
    """Greedy episodes of a stored policy version (the newest one if None): the `evaluation/` metrics, names shortened.

    Raises UserError where there is no run or no such version.
    """
    store = RunStore(run_uri)
    stored = store.describe()
    config = RunConfig.from_dict(stored["config"], f"{store.name}/{layout.RUN}")
    env = builder.stored_plan(config, stored)
    policy = builder.policy_spec(config, env)
    spec = builder.rollout_spec(config, env, policy, run_id=stored["run_id"], run_uri=store.uri)
    version = store.policy_versions()[-1] if policy_version is None else policy_version
    weights = store.read_weights(version)
    collector = make_collector(spark)
    try:
        found = evaluate(collector, spec, policy_version=version, weights=weights, episodes=episodes)
    finally:
        collector.close()
    return {"policy_version": version} | {name.removeprefix("evaluation/"): value for name, value in found.items()}


class Trainer:
    """One run, from where it stands to its end."""

    def __init__(
        self, config: RunConfig, run_uri: str, collector: Collector, progress: Progress, *, resume: bool = False,
        spark: Any = None,
    ) -> None:  # fmt: skip
        # Executors reduce the rows for an algorithm that learns from counts, where there are executors.
        self._spark = spark if getattr(config.algorithm, "mode", "") == "parallel" else None
        self.config, self.collector, self.progress = config, collector, progress
        self.store = RunStore(run_uri)
        if resume:
            stored = self._continue()
            env = builder.stored_plan(config, stored)
        else:
            env = builder.env_plan(config)
        self.policy = builder.policy_spec(config, env)
        self.learner = builder.learner(config, self.policy)
        if not resume:
            stored = builder.description(config, env, self.learner)
            self.store.create(stored)
            if env.carry == "cut":
                progress.note(f"episodes are cut at the end of every iteration: {env.reason}")
        self.spec = builder.rollout_spec(config, env, self.policy, run_id=stored["run_id"], run_uri=self.store.uri)
        self.position = self._restore()
        self.experience = Experience(self.store, self.spec, collector)
        self._background = ThreadPoolExecutor(1, "rollout")
        self._ahead: Future[Collected] | None = None

    def _continue(self) -> dict[str, Any]:
        stored = self.store.describe()
        differing = difference(stored["config"], self.config)
        if differing:
            raise UserError(
                where=f"--resume of {self.store.name}", got=f"another config: {', '.join(differing)}",
                wanted="the config that the run was begun with", todo="undo the difference, or begin another run",
            )  # fmt: skip
        return stored

    def _restore(self) -> _Position:
        """Sweep what a crash left, and load the newest checkpoint."""
        compact.finish(self.store)
        self.store.sweep()
        found = checkpoint.newest(self.store.root, self.store.iterations())
        if found is None:
            self.store.keep_metrics(0)
            return _Position(iteration=0, env_steps=0, finished="")
        self.learner.load(found.state_tensors, found.state_scalars, self._read)
        self.store.keep_metrics(found.iteration + 1)
        return _Position(iteration=found.iteration + 1, env_steps=found.env_steps, finished=found.finished)

    def _read(self, iteration: int) -> Batch:
        """The rows of a committed iteration."""
        return read_iteration(
            self.store.root, self.store.commit(iteration), self.policy.observation, self.policy.action
        )

    def _rows(self, commit: Commit) -> Any:
        """What the algorithm learns from: the iteration's rows, or on Spark their counts if these are enough for it."""
        if self._spark is None:
            return self._read(commit.iteration)
        from spark_rl.parallel.counts import CountingTask, count_iteration  # deferred: it names pyspark

        algorithm: Any = self.learner.algorithm
        task = CountingTask(self.store.uri, commit.iteration, self.policy.observation, self.policy.action,
                            algorithm.counting)  # fmt: skip
        return count_iteration(self._spark, task, commit)

    def run(self) -> dict[str, Any]:
        """All iterations that are left. What it returns is the run's summary."""
        began = time.perf_counter()
        position = self.position
        if position.finished:
            self.progress.note(f"run {self.store.name} is complete: {position.finished}")
            return self._summary(position, began)
        self.progress.start(self.store.name, self.config.num_iterations, position.iteration)
        curves = Curves(self.store.root, resumed_at=position.env_steps)
        try:
            while not position.finished:
                self._iterate(position, curves)
        finally:
            curves.close()
            if self._ahead is not None:  # the run ended, or failed, with a rollout under way
                self.collector.cancel()
            self._background.shutdown(wait=True)
        self.store.sweep()
        return self._summary(position, began)

    def _iterate(self, position: _Position, curves: Curves) -> None:
        began = time.perf_counter()
        k = position.iteration
        self._publish_weights(k)
        row: dict[str, float] = {"iteration": k}
        commit = self._commit(position, row)
        if self.config.rollout.pipelined and k + 1 < self.config.num_iterations:
            self._ahead = self._background.submit(self.experience.collect, k + 1, self._acting_version(k + 1))
        read_began = time.perf_counter()
        batch = self._rows(commit)
        row["time/read_s"] = time.perf_counter() - read_began
        window = self.learner.window  # what the checkpoint before this one would have to be given again
        learn_began = time.perf_counter()
        row |= self.learner.update(batch, iteration=k, progress=k / self.config.num_iterations)
        row["time/learn_s"] = time.perf_counter() - learn_began
        position.iteration, position.env_steps = k + 1, commit.env_steps
        content = self._publish_weights(k + 1)
        position.finished = self._evaluate(position, content, row)
        row["env_steps"], row["policy_version"] = commit.env_steps, commit.policy_version
        elapsed = row["time/iteration_s"] = time.perf_counter() - began
        row["throughput/env_steps_per_s"] = commit.rows_written / elapsed
        self.store.append_metrics([row])
        curves.write(row)
        state = checkpoint.Checkpoint(k, position.env_steps, content, *self.learner.save(), position.finished)
        state.save(self.store.root)
        checkpoint.prune(self.store.root, _CHECKPOINTS_KEPT)
        if self.config.store.keep_iterations:
            needed = k + 1 - min([k, *window])
            compact.retire(self.store, commit, keep=max(self.config.store.keep_iterations, needed))
        self.progress.iteration(k, row)

    def _publish_weights(self, version: int) -> bytes:
        content = codec.encode(self.learner.weights())
        self.store.write_weights(version, content)
        return content

    def _acting_version(self, iteration: int) -> int:
        """Pipelined, an iteration is collected while the one before it is learned from: one version behind."""
        return max(0, iteration - 1) if self.config.rollout.pipelined else iteration

    def _commit(self, position: _Position, row: dict[str, float]) -> Commit:
        """The iteration's commit: the one on disk if a crash came after it, else of rows collected ahead, or now."""
        k = position.iteration
        if self._ahead is None and k in self.store.iterations():
            commit = self.store.commit(k)
            row |= commit.metrics
            return commit
        ahead, self._ahead = self._ahead, None
        collected = ahead.result() if ahead is not None else self.experience.collect(k, self._acting_version(k))
        commit, metrics = self.experience.commit(collected, env_steps=position.env_steps)
        row |= metrics
        return commit

    def _evaluate(self, position: _Position, weights: bytes, row: dict[str, float]) -> str:
        """Evaluate where it is due; why the run is over now, or ''."""
        plan = self.config.evaluation
        last = position.iteration >= self.config.num_iterations
        if last or (plan.every and position.iteration % plan.every == 0):
            began = time.perf_counter()
            row |= evaluate(self.collector, self.spec, policy_version=position.iteration, weights=weights,
                            episodes=plan.episodes)  # fmt: skip
            row["time/evaluation_s"] = time.perf_counter() - began
            if plan.stop_at_return is not None and row["evaluation/return_mean"] >= plan.stop_at_return:
                return f"evaluation reached a mean return of {plan.stop_at_return:g}"
        return f"all {self.config.num_iterations} iterations are done" if last else ""

    def _summary(self, position: _Position, began: float) -> dict[str, Any]:
        version = position.iteration
        rows = self.store.read_metrics()
        returns = [row["evaluation/return_mean"] for row in rows if "evaluation/return_mean" in row]
        return {
            "run": self.store.name,
            "finished": position.finished,
            "iterations": position.iteration,
            "env_steps": position.env_steps,
            "policy_version": version,
            "evaluation_return_mean": returns[-1] if returns else None,
            "weights_sha256": codec.sha256(self.store.read_weights(version)),
            "wall_s": round(time.perf_counter() - began, 3),
        }


@dataclass(slots=True)
class _Position:
    """Where a run stands: the next iteration, env steps committed before it, and why it is over ('' if it is not)."""

    iteration: int
    env_steps: int
    finished: str
