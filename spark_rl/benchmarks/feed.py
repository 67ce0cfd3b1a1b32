"""Learner batches per second from a committed dataset, over the same updates from a batch that is in memory already.

Ours reads an iteration's files (which checks their hashes), makes a batch of them, and learns from it; the floor learns
from that very batch, made before the clock began. So the ratio is the share of its time that a learner learns. Both
are the same object in turn: an update costs the same whatever it has learned so far.

`feed` takes the preset's update; `feed/one_pass` goes through 16 times the rows once, as an algorithm with little to
do per row would, and shows the reading at its most expensive. The files are in the page cache: they were just written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from spark_rl import builder
from spark_rl.benchmarks import workload
from spark_rl.benchmarks.benchmark import Benchmark, Place
from spark_rl.benchmarks.comparison import Comparison, in_turns
from spark_rl.benchmarks.presets import preset
from spark_rl.config import RunConfig
from spark_rl.data.reader import read_iteration
from spark_rl.rollout.local import LocalCollector

_ITERATIONS = 3  # read in turn, so that no single file is always the hot one


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """`config` is the run whose batches are learned from."""

    config: str = "ppo_cartpole"  # a preset of conf/, or a TOML file
    one_pass: int = 16  # how many times longer the fragments of `feed/one_pass` are
    rounds: int = 15


def run(settings: Settings, place: Place) -> Iterator[Comparison]:
    """The preset's update, and one pass over many rows."""
    usual = preset(settings.config)
    times = settings.one_pass
    longer = preset(
        settings.config,
        f"rollout.steps_per_env={usual.rollout.steps_per_env * times}",
        f"run.env_steps={usual.rows_per_iteration * times}",
        "algorithm.num_epochs=1",
    )
    yield _compare("feed", usual, f"{place.uri}/feed", settings)
    yield _compare("feed/one_pass", longer, f"{place.uri}/one_pass", settings)


def _compare(name: str, config: RunConfig, run_uri: str, settings: Settings) -> Comparison:
    source = workload.CollectingRun(config, run_uri, LocalCollector())
    commits = [source.iterate().commit for _ in range(_ITERATIONS)]
    policy = source.spec.policy
    batches = [read_iteration(source.store.root, commit, policy.observation, policy.action) for commit in commits]
    learner = builder.learner(config, policy)
    reading: list[float] = []
    turns = {"dataset": 0, "memory": 0}

    def turn(key: str) -> int:
        turns[key] += 1
        return turns[key] % _ITERATIONS

    def from_dataset() -> float:
        k = turn("dataset")
        began = time.perf_counter()
        batch = read_iteration(source.store.root, commits[k], policy.observation, policy.action)
        reading.append(time.perf_counter() - began)
        learner.update(batch, iteration=k, progress=0.0)
        return 1.0 / (time.perf_counter() - began)

    def from_memory() -> float:
        k = turn("memory")
        began = time.perf_counter()
        learner.update(batches[k], iteration=k, progress=0.0)
        return 1.0 / (time.perf_counter() - began)

    in_turns(2, from_dataset, from_memory)
    reading.clear()
    mine, memory = in_turns(settings.rounds, from_dataset, from_memory)
    chosen = config.to_public_dict()["algorithm"]
    return Comparison(
        name=name, unit="batches/s", better="higher", ours=mine, floor=memory,
        settings=source.settings() | {"config": settings.config, "device": str(learner.device),
                                      "num_threads": config.learner.num_threads,
                                      "num_epochs": chosen.get("num_epochs"),
                                      "minibatch_size": chosen.get("minibatch_size")},
        detail={"rows": batches[0].num_rows, "read_ms": 1000.0 * sorted(reading)[len(reading) // 2]},
    )  # fmt: skip


BENCHMARK = Benchmark(settings=Settings(), quick=Settings(one_pass=2, rounds=2), needs_spark=False, run=run)
