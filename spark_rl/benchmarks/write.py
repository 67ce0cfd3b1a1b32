"""MB/s of the store, over a bare `pyarrow.parquet.write_table` of the same table to the same disk.

Ours is what a task does with a finished table: encode it with the store's options, write it under a temporary name,
rename it, hash it. Building the table is left out, because the floor gets it too. There are two floors: `defaults` is
`write_table(table, path)` as everybody types it; `same_options` passes the store's own compression and encodings, and
so leaves only the hash and the detour through memory between the two. MB are 10^6 bytes of the Arrow table in memory,
the same for all three. Nobody syncs: what is compared is the work, not the disk.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from spark_rl.benchmarks import workload
from spark_rl.benchmarks.benchmark import Benchmark, Place
from spark_rl.benchmarks.comparison import Comparison, in_turns
from spark_rl.files import Root
from spark_rl.rollout import writer
from spark_rl.rollout.local import LocalCollector
from spark_rl.rollout.spec import GroupTask
from spark_rl.schema import layout, parquet


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The table is a real fragment: one group's rows."""

    env: str = "CartPole-v1"
    envs_per_group: int = 256
    steps: int = 2048  # env steps; half a million rows of CartPole
    rounds: int = 15


def run(settings: Settings, place: Place) -> Iterator[Comparison]:
    """A result for each floor."""
    config = workload.config(settings.env, groups=1, envs_per_group=settings.envs_per_group, steps=settings.steps)
    source = workload.CollectingRun(config, f"{place.uri}/write", LocalCollector())
    commit = source.iterate().commit
    root, compression = source.store.root, source.spec.compression
    table = stored_table(root, commit.of(layout.TRANSITIONS)[0].name)
    options = store_options(table, compression)
    task = GroupTask(iteration=1, group=0, policy_version=1)
    bare = root.locate(layout.staged("bare", 1))
    root.make_parent(layout.staged("bare", 1))

    def store() -> float:
        began = time.perf_counter()
        writer.put(root, layout.TRANSITIONS, task, parquet.encode(table, compression), table.num_rows)
        return megabytes / (time.perf_counter() - began)

    def plain(**given: Any) -> float:
        began = time.perf_counter()
        pq.write_table(table, bare, filesystem=root.filesystem, **given)
        return megabytes / (time.perf_counter() - began)

    megabytes = table.nbytes / 1e6
    in_turns(2, store, plain, lambda: plain(**options))
    mine, *floors = in_turns(settings.rounds, store, plain, lambda: plain(**options))
    sizes = {}
    for name, given in (("defaults", {}), ("same_options", options)):
        plain(**given)
        sizes[f"{name}_bytes"] = root.filesystem.get_file_info(bare).size
    detail = {"rows": table.num_rows, "table_mb": megabytes, "store_bytes": commit.of(layout.TRANSITIONS)[0].size_bytes}
    for name, floor in zip(("defaults", "same_options"), floors, strict=True):
        yield Comparison(name=f"write/{name}", unit="MB/s", better="higher", ours=mine, floor=floor,
                         settings=source.settings(), detail=detail | sizes)  # fmt: skip


def stored_table(root: Root, name: str) -> pa.Table:
    """A committed file of iteration 0, in one piece, as its task had it."""
    content = root.read(f"{layout.committed(layout.TRANSITIONS, 0)}/{name}")
    return pq.ParquetFile(pa.BufferReader(content)).read().combine_chunks()


def store_options(table: pa.Table, compression: str) -> dict[str, Any]:
    """What the store says to pyarrow, caught on the way there: a copy of it here would drift."""
    with mock.patch.object(pq, "write_table") as call:
        parquet.encode(table, compression)
    return dict(call.call_args.kwargs)


BENCHMARK = Benchmark(
    settings=Settings(), quick=Settings(envs_per_group=4, steps=32, rounds=2), needs_spark=False, run=run
)
