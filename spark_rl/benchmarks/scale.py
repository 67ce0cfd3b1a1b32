"""What more tasks bring, and what each of them costs the driver.

`scale` is how much faster `tasks` groups are than one (committed env steps/s), over how much faster as many plain
processes are than one (see `steppers.plain`): two cores that share caches and memory do not give twice of one, and no
engine can be asked for more than they give. Fragments are long, as in `benchmark rollout`.

`scale/driver` collects iterations of ever more groups, one environment and one step each, next to two jobs of as many
tasks: Python tasks that do nothing (the floor), and tasks inside the JVM that do nothing. A line is fitted to each
(fixed + per task, least squares of the relative error). Tasks and driver share this machine's cores, so the Python
jobs' slopes are mostly the executors' work, which a cluster does elsewhere; what stays with the driver is less than
the JVM job's slope (launching, bookkeeping) plus that of the commit, which is the driver's alone. Their sum at 10,000
tasks is what one iteration of a cluster with 10,000 cores would cost its driver.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spark_rl.benchmarks import steppers, workload
from spark_rl.benchmarks.benchmark import Benchmark, Place
from spark_rl.benchmarks.comparison import Comparison, in_turns
from spark_rl.benchmarks.crew import Crew
from spark_rl.benchmarks.iteration import bare_job_ms
from spark_rl.experience import make_collector

_CLUSTER = 10_000  # tasks, one a core


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Zeros stand for what the benchmark finds by itself."""

    env: str = "CartPole-v1"
    envs_per_group: int = 0  # 0: the environment's preset
    tasks: int = 2
    steps: int = 0  # env steps of a fragment; 0: as many as fill `seconds`
    seconds: float = 3.5  # of an iteration of one task
    rounds: int = 5
    driver_tasks: tuple[int, ...] = (2, 20, 200, 2000)


def run(settings: Settings, place: Place) -> Iterator[Comparison]:
    """Scaling, then the driver's costs."""
    yield _scaling(settings, place)
    if settings.driver_tasks:
        yield _driver(settings, place)


def _scaling(settings: Settings, place: Place) -> Comparison:
    collector = make_collector(place.spark)
    try:
        one, many = (
            workload.CollectingRun(
                workload.config(settings.env, groups=groups, envs_per_group=settings.envs_per_group),
                f"{place.uri}/scale-{groups}", collector,
            )
            for groups in (1, settings.tasks)
        )  # fmt: skip
        members = [(one.spec, one.weights(0), seed) for seed in range(settings.tasks)]
        with Crew(steppers.plain, members) as crew:
            steps = settings.steps or one.fill(settings.seconds)
            for group in (one, many):
                group.lengthen(steps)
                group.iterate()
            crew.run(min(steps, 64))
            rates = in_turns(settings.rounds, lambda: one.iterate().rate, lambda: crew.rate(steps, 1),
                             lambda: many.iterate().rate, lambda: crew.rate(steps))  # fmt: skip
    finally:
        collector.close()
    alone, alone_plain, together, together_plain = rates
    return Comparison(
        name="scale", unit=f"times the rate of 1 task, with {settings.tasks}", better="higher",
        ours=[b / a for a, b in zip(alone, together, strict=True)],
        floor=[b / a for a, b in zip(alone_plain, together_plain, strict=True)],
        settings=many.settings(),
        detail={"env_steps_per_s": {"ours_1": alone, f"ours_{settings.tasks}": together, "floor_1": alone_plain,
                                    f"floor_{settings.tasks}": together_plain}},
    )  # fmt: skip


def _driver(settings: Settings, place: Place) -> Comparison:
    collector = make_collector(place.spark)
    try:
        rows = [_costs(tasks, place, collector) for tasks in settings.driver_tasks]
    finally:
        collector.close()
    tasks = [row["tasks"] for row in rows]
    lines = {name: fit(tasks, [row[name] for row in rows]) for name in ("job_ms", "bare_ms", "jvm_ms", "commit_ms")}
    predicted = {name: (fixed + each * _CLUSTER) / 1000.0 for name, (fixed, each) in lines.items()}
    files = sum(row["files"] for row in rows) / sum(tasks)
    return Comparison(
        name="scale/driver", unit="ms a task more, driver and executors on this machine", better="lower",
        ours=[lines["job_ms"][1] + lines["commit_ms"][1]], floor=[lines["bare_ms"][1]],
        settings={"env": "CartPole-v1", "envs_per_group": 1, "steps_per_env": 1, "tasks": tasks},
        detail={
            "costs": rows,
            "fit_ms": {name: {"fixed": fixed, "per_task": each} for name, (fixed, each) in lines.items()},
            "commit_ms_per_file": lines["commit_ms"][1] / files,
            "driver_s_at_10000_tasks": predicted["jvm_ms"] + predicted["commit_ms"],
            "of_it_commit_s": predicted["commit_ms"],
        },
    )  # fmt: skip


def _costs(tasks: int, place: Place, collector: Any) -> dict[str, Any]:
    """Medians for iterations of that many tiny tasks; fewer rounds where one takes a minute."""
    ours = workload.CollectingRun(workload.config("CartPole-v1", groups=tasks, envs_per_group=1),
                                  f"{place.uri}/driver-{tasks}", collector)  # fmt: skip
    reported = len(pickle.dumps(ours.iterate().reports))
    files: list[int] = []
    commits: list[float] = []

    def job() -> float:
        iteration = ours.iterate()
        files.append(len(iteration.commit.files))
        commits.append(1000.0 * iteration.commit_s)
        return 1000.0 * (iteration.wall_s - iteration.commit_s)

    rounds = max(1, min(7, 1000 // tasks))
    found = in_turns(rounds, job, lambda: bare_job_ms(place.spark, tasks), lambda: _jvm_job_ms(place.spark, tasks))
    job_ms, bare_ms, jvm_ms = (float(np.median(values)) for values in found)
    return {
        "tasks": tasks, "files": int(np.median(files)), "rounds": rounds, "job_ms": job_ms, "bare_ms": bare_ms,
        "jvm_ms": jvm_ms, "commit_ms": float(np.median(commits)), "report_bytes_per_task": reported // tasks,
    }  # fmt: skip


def _jvm_job_ms(spark: Any, tasks: int) -> float:
    """A job whose tasks never leave the JVM and write nothing."""
    began = time.perf_counter()
    spark.range(0, tasks, 1, tasks).write.format("noop").mode("overwrite").save()
    return 1000.0 * (time.perf_counter() - began)


def fit(tasks: Sequence[int], cost: Sequence[float]) -> tuple[float, float]:
    """cost = fixed + per_task * tasks, least squares of the relative error; at least two points."""
    per_task, fixed = np.polyfit(tasks, cost, 1, w=1.0 / np.asarray(cost))
    return float(fixed), float(per_task)


BENCHMARK = Benchmark(
    settings=Settings(),
    quick=Settings(envs_per_group=4, steps=16, rounds=1, driver_tasks=(2, 6)),
    needs_spark=True,
    run=run,
)
