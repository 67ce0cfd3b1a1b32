"""Milliseconds of an iteration with one env step per environment, over a bare Spark job of as many Python tasks.

Ours is what an iteration costs before any environment has done much: reading the last commit for its cursors, a
broadcast, a job whose tasks act and step once, write and hash their files, and the commit. The floor is
`parallelize(range(n), n).mapPartitions(f).collect()` with an `f` that does nothing: the least that n Python tasks cost
on that session, whatever they do. Its workers are the same warm ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from spark_rl.benchmarks import workload
from spark_rl.benchmarks.benchmark import Benchmark, Place
from spark_rl.benchmarks.comparison import Comparison, in_turns
from spark_rl.experience import make_collector


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Defaults as conf/ppo_cartpole.toml has them."""

    env: str = "CartPole-v1"
    groups: int = 2  # tasks
    envs_per_group: int = 16
    warmup: int = 5  # iterations and bare jobs before the first round; the JVM compiles meanwhile
    rounds: int = 30


def run(settings: Settings, place: Place) -> Iterator[Comparison]:
    """One result."""
    config = workload.config(settings.env, groups=settings.groups, envs_per_group=settings.envs_per_group, steps=1)
    collector = make_collector(place.spark)
    try:
        ours = workload.CollectingRun(config, f"{place.uri}/iteration", collector)
        commits: list[float] = []

        def iterate() -> float:
            iteration = ours.iterate()
            commits.append(1000.0 * iteration.commit_s)
            return 1000.0 * iteration.wall_s

        in_turns(settings.warmup, iterate, lambda: bare_job_ms(place.spark, settings.groups))
        commits.clear()
        mine, bare = in_turns(settings.rounds, iterate, lambda: bare_job_ms(place.spark, settings.groups))
    finally:
        collector.close()
    yield Comparison(name="iteration", unit="ms", better="lower", ours=mine, floor=bare, settings=ours.settings(),
                     detail={"commit_ms": sorted(commits)[len(commits) // 2]})  # fmt: skip


def bare_job_ms(spark: Any, tasks: int) -> float:
    """Wall time of a job of that many Python tasks that do nothing."""
    context = spark.sparkContext
    began = time.perf_counter()
    context.parallelize(range(tasks), tasks).mapPartitions(lambda rows: rows).collect()
    return 1000.0 * (time.perf_counter() - began)


BENCHMARK = Benchmark(
    settings=Settings(), quick=Settings(envs_per_group=2, warmup=1, rounds=2), needs_spark=True, run=run
)
