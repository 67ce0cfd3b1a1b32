"""What goes wrong on purpose in Spark tasks. Workers import this module too, so it imports nothing of pytest."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
from pyspark import TaskContext

from spark_rl.rollout import writer
from spark_rl.spark import executor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which task attempts meet which mishap, once a (iteration, group) unless `always`.

    `what`: "raise" | "kill worker" | "kill executor" | "sleep". `when`: "before" the rollout, "half" (the first file is
    written, the others are not) or "after" (all files are written, the report is not delivered).
    """

    what: str
    when: str
    tasks: tuple[tuple[int, int], ...]  # (iteration, group)
    always: bool = False
    seconds: float = 0.0

    def strike(self, when: str, iteration: int, group: int) -> None:
        """Do it if this is the place."""
        if when != self.when or (iteration, group) not in self.tasks:
            return
        if not self.always and TaskContext.get().attemptNumber() > 0:
            return
        if self.what == "raise":
            raise OSError(f"chaos {when} iteration {iteration}, group {group}")
        if self.what == "kill worker":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "kill executor":
            os.kill(_executor_jvm(), signal.SIGKILL)
            time.sleep(60)  # the executor's end is this process's end too
        time.sleep(self.seconds)


def collect_partition(plan: Plan, spec: Any, weights: Any, tasks: Iterable[Any]) -> Iterator[Any]:
    """`spark.executor.collect_partition` with `plan` around and inside of it."""
    for task in tasks:
        plan.strike("before", task.iteration, task.group)
        put = writer.put

        def put_and_strike(root: Any, table: str, *rest: Any, task: Any = task, put: Any = put) -> Any:
            report = put(root, table, *rest)
            if table == "transitions":
                plan.strike("half", task.iteration, task.group)
            return report

        writer.put = put_and_strike
        try:
            reports = list(executor.collect_partition(spec, weights, [task]))
        finally:
            writer.put = put
        plan.strike("after", task.iteration, task.group)
        yield from reports


def _executor_jvm() -> int:
    """The JVM above this worker's daemon; never the driver's, which in local mode is the same process."""
    with open(f"/proc/{os.getppid()}/stat") as stat:
        pid = int(stat.read().rpartition(")")[2].split()[1])
    with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
        words = cmdline.read()
    assert b"CoarseGrainedExecutorBackend" in words, words
    return pid


# ---- wrappers for [env]: in the config, so they reach any cluster ----


def iteration_of_task() -> int:
    """The iteration whose rollout this task belongs to; -1 outside of rollouts, such as on the driver."""
    context = TaskContext.get()
    words = (context.getLocalProperty("spark.job.description") or "") if context else ""
    head, _, rest = words.partition("rollout: iteration ")
    return int(rest.partition(",")[0]) if head == "" and rest else -1


class Broken(gymnasium.Wrapper):
    """Raises on every step from `iteration` on, in every attempt."""

    def __init__(self, env: gymnasium.Env, iteration: int) -> None:
        super().__init__(env)
        self.from_iteration = iteration

    def step(self, action: Any) -> Any:
        if iteration_of_task() >= self.from_iteration:
            raise ZeroDivisionError("the simulator's pole\nhas no length")
        return self.env.step(action)


class Straggler(gymnasium.Wrapper):
    """Sleeps `seconds` before one step: of the first attempt of partition 0 in `iteration`, once a run."""

    def __init__(self, env: gymnasium.Env, iteration: int, seconds: float, marker: str) -> None:
        super().__init__(env)
        self.iteration, self.seconds, self.marker = iteration, seconds, marker

    def step(self, action: Any) -> Any:
        if iteration_of_task() == self.iteration and TaskContext.get().partitionId() == 0 and self._first():
            time.sleep(self.seconds)
        return self.env.step(action)

    def _first(self) -> bool:
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


class Slow(gymnasium.Wrapper):
    """Sleeps a little in each step on executors, so that there is time to watch a run."""

    def __init__(self, env: gymnasium.Env, seconds: float) -> None:
        super().__init__(env)
        self.seconds = seconds

    def step(self, action: Any) -> Any:
        if iteration_of_task() >= 0:
            time.sleep(self.seconds)
        return self.env.step(action)


class Halting(gymnasium.Wrapper):
    """Waits at `iteration` until the file `go` exists."""

    def __init__(self, env: gymnasium.Env, iteration: int, go: str) -> None:
        super().__init__(env)
        self.iteration, self.go = iteration, go

    def step(self, action: Any) -> Any:
        while iteration_of_task() == self.iteration and not os.path.exists(self.go):
            time.sleep(0.05)
        return self.env.step(action)
