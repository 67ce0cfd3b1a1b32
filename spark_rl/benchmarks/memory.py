"""Megabytes of driver, JVM and Python workers at the end of a long run, over the same early in it: flat is 1.

Ours are samples from the last fifth of a run of many tiny iterations, everything included (rollouts, commits, learning,
checkpoints, metrics); the floor are as many samples from its second fifth, when imports, the JVM's compiler and its
first collections are over. A leak of one broadcast, file handle or table an iteration shows as a ratio above 1. The
resident set sizes come from /proc, so this one runs on Linux only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from spark_rl.benchmarks import workload
from spark_rl.benchmarks.benchmark import Benchmark, Place
from spark_rl.benchmarks.comparison import Comparison
from spark_rl.config import RunConfig
from spark_rl.errors import UserError
from spark_rl.train import train

_PAGE = os.sysconf("SC_PAGE_SIZE")
_KINDS = ("driver", "jvm", "workers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """A run whose iterations are as short as they get, so that there can be many."""

    env: str = "CartPole-v1"
    groups: int = 2
    envs_per_group: int = 8
    steps: int = 16
    rounds: int = 500  # iterations


def run(settings: Settings, place: Place) -> Iterator[Comparison]:
    """One result a kind of process."""
    if not Path("/proc/self/statm").exists():
        raise UserError("benchmark memory", "no /proc", "Linux", "run it there")
    config = _config(settings)
    samples = Samples()
    train(config, f"{place.uri}/memory", spark=place.spark, progress=samples)
    fifth = max(1, len(samples.megabytes) // 5)
    early, late = samples.megabytes[fifth : 2 * fifth], samples.megabytes[-fifth:]
    for kind in _KINDS:
        yield Comparison(
            name=f"memory/{kind}", unit="MB", better="lower",
            ours=[sample[kind] for sample in late], floor=[sample[kind] for sample in early],
            settings={"env": settings.env, "iterations": config.num_iterations, "groups": settings.groups,
                      "rows_per_iteration": config.rows_per_iteration},
            detail={"every_50_iterations": [round(sample[kind]) for sample in samples.megabytes[::50]]},
        )  # fmt: skip


def _config(settings: Settings) -> RunConfig:
    plain = workload.config(settings.env, groups=settings.groups, envs_per_group=settings.envs_per_group,
                            steps=settings.steps).to_dict()  # fmt: skip
    plain["run"]["env_steps"] *= settings.rounds
    plain["evaluation"]["episodes"] = 1
    return RunConfig.from_dict(plain, "benchmark memory")


class Samples:
    """Watches a run, and looks at the processes after every iteration."""

    def __init__(self) -> None:
        self.megabytes: list[dict[str, float]] = []

    def start(self, run_uri: str, num_iterations: int, first_iteration: int = 0) -> None:
        """Nothing to look at yet."""

    def iteration(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """One sample."""
        self.megabytes.append(resident_megabytes())

    def note(self, text: str) -> None:
        """Nothing to look at."""


def resident_megabytes() -> dict[str, float]:
    """Resident sets of this process, of the JVM it started, and of the largest Python worker below that JVM."""
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # "pid (name) state parent ...": the name may hold anything, so what counts begins after its last bracket.
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        names[int(entry.name)] = name
        children.setdefault(int(rest.split()[1]), []).append(int(entry.name))
    below = _descendants(os.getpid(), children)
    jvms = [pid for pid in below if names[pid] == "java"]
    workers = [pid for pid in below if names[pid] != "java"]
    return {
        "driver": _resident(os.getpid()),
        "jvm": max(map(_resident, jvms), default=0.0),
        "workers": max(map(_resident, workers), default=0.0),
    }


def _descendants(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    direct = children.get(pid, [])
    return direct + [inner for child in direct for inner in _descendants(child, children)]


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it ended while we looked


BENCHMARK = Benchmark(settings=Settings(), quick=Settings(rounds=10), needs_spark=True, run=run)
