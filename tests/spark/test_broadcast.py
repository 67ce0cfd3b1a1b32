"""What must not grow with the number of iterations: broadcasts, their files, and the driver's memory."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import harness
import pytest

from spark_rl.rollout import run as rollout
from spark_rl.spark import driver
from spark_rl.train import train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def broadcast_files(spark: SparkSession) -> int:
    """Files in which pyspark keeps the pickled values of broadcasts, on the driver."""
    return sum(len(names) for _, _, names in os.walk(str(spark.sparkContext._temp_dir)))


def block_bytes(spark: SparkSession) -> int:
    """Memory that the block manager gives to broadcasts; those of finished tasks go with the JVM's garbage."""
    gc.collect()  # Python's proxies keep their JVM objects
    spark.sparkContext._jvm.java.lang.System.gc()
    status = spark.sparkContext._jsc.sc().getExecutorMemoryStatus().values().toSeq()
    return sum(status.apply(i)._1() - status.apply(i)._2() for i in range(status.size()))


def resident_bytes() -> int:
    """What this process occupies."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watcher:
    """Measures after each iteration."""

    def __init__(self, measure: Callable[[], int]) -> None:
        self._measure = measure
        self.seen: list[int] = []

    def start(self, run_uri: str, num_iterations: int, first_iteration: int = 0) -> None:
        """Not of interest."""

    def iteration(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """One more number."""
        self.seen.append(self._measure())

    def note(self, text: str) -> None:
        """Not of interest."""


@pytest.mark.parametrize("leak", [False, True], ids=["as it is", "planted leak"])
def test_fifty_iterations_leave_no_broadcasts(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leak: bool
) -> None:
    if leak:  # what never destroying them would do
        monkeypatch.setattr(driver, "_VERSIONS_KEPT", 10**6)
    text = harness.toml("native", iterations=50, steps=2).replace("[16, 16]", "[64, 64]")
    files, blocks = broadcast_files(spark), block_bytes(spark)
    watcher = Watcher(lambda: broadcast_files(spark) - files)
    at_end: list[int] = []
    close = driver.SparkCollector.close

    def look_and_close(self: driver.SparkCollector) -> None:
        with suppress(TimeoutError):  # Spark's cleaner comes after the garbage collector, some time
            harness.wait_for(lambda: block_bytes(spark) - blocks < 300_000, "the cleaner's work", 5.0, 0.5)
        at_end.append(block_bytes(spark) - blocks)
        close(self)

    monkeypatch.setattr(driver.SparkCollector, "close", look_and_close)
    train(harness.parse(text), str(tmp_path / "run"), spark=spark, progress=watcher)
    harness.same(tmp_path / "run", text)
    assert len(watcher.seen) == 50
    # One version is 40 kB.
    if leak:
        assert watcher.seen[-1] >= 50 and at_end[0] > 1_000_000
    else:
        assert max(watcher.seen) <= 3 and at_end[0] < 300_000
    assert broadcast_files(spark) == files  # a run that is over leaves nothing


@pytest.mark.parametrize("leak", [False, True], ids=["as it is", "planted leak"])
def test_memory_is_flat_over_many_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leak: bool) -> None:
    """Of the driver, with the rollouts in the same process: after warming up, less than 50 kB an iteration."""
    kept: list[object] = []
    if leak:  # as if each iteration's tables were kept
        run_group = rollout.run_group
        monkeypatch.setattr(
            "spark_rl.rollout.local.run_group", lambda *args: kept.append(os.urandom(100_000)) or run_group(*args)
        )
    watcher = Watcher(resident_bytes)
    train(harness.parse(harness.toml("native", iterations=120, steps=8)), str(tmp_path / "run"), progress=watcher)
    growth = watcher.seen[119] - watcher.seen[39]
    print(f"{growth:,} bytes in 80 iterations")
    limit = 80 * 50_000
    assert (growth > limit) if leak else (growth < limit)
