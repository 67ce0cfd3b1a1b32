"""Retention and compaction: fewer iterations, and fewer files in each, without a wrong count at any instant.

Compaction rewrites an iteration's files of a table as one. The new directory takes the place of the old one in a single
exchange where the file system can do that (Linux), so a plain read sees the rows once. A note of what is under way is
written first; whoever opens the run next finishes what a crash cut short. A query that was planned before the exchange
and opens its files after it fails with a missing file and can be repeated; it never gets a wrong answer.
"""

from __future__ import annotations

import hashlib
import time
from calendar import timegm
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from spark_rl.data.store import Commit, RunStore
from spark_rl.schema import layout
from spark_rl.schema.parquet import encode
from spark_rl.schema.reports import FileReport

# Whoever listed an iteration's files has this long to read them. Spark lists when it plans a query.
GRACE_S = 600.0
_TABLES = (layout.TRANSITIONS, layout.EPISODES)  # cursors are read by group


def retire(store: RunStore, newest: Commit, *, keep: int, grace_s: float = GRACE_S) -> list[int]:
    """Drop the iterations older than the `keep` newest; the dropped ones.

    An iteration stays while an unfinished episode may be replayed from it, and for `grace_s` after the commit that made
    it too old, so that a reader who saw it can finish.
    """
    dropped = []
    for iteration in store.iterations():
        successor = iteration + keep
        if successor > newest.iteration or iteration >= newest.oldest_needed:
            break
        if age_s(store.commit(successor)) < grace_s:
            break
        store.delete_iteration(iteration)
        dropped.append(iteration)
    return dropped


def age_s(commit: Commit) -> float:
    """Seconds since the commit."""
    return time.time() - timegm(time.strptime(commit.committed_at, "%Y-%m-%dT%H:%M:%SZ"))


def candidates(store: RunStore, *, older_than_s: float = GRACE_S) -> list[int]:
    """Iterations that may be compacted: several files in a table, old enough, not needed by the run's next steps."""
    committed = store.iterations()
    if not committed:
        return []
    newest = store.commit(committed[-1])
    return [
        iteration
        for iteration in committed
        if iteration < min(newest.oldest_needed, newest.iteration - 1)  # the newest two may be learned from again
        for commit in [store.commit(iteration)]
        if age_s(commit) >= older_than_s and any(len(commit.of(table)) > 1 for table in _TABLES)
    ]


def compact_iteration(store: RunStore, iteration: int, *, compression: str = "zstd") -> tuple[int, int]:
    """Merge one iteration's files, table by table; how many files there were and are. Rows and their order stay."""
    commit = store.commit(iteration)
    merged = [_merge(store, commit, table, compression) for table in _TABLES if len(commit.of(table)) > 1]
    replaced = {file.table for file in merged}
    new = replace(
        commit,
        files=(*merged, *(file for file in commit.files if file.table not in replaced)),
        merged_from=(*commit.merged_from, *(file for file in commit.files if file.table in replaced)),
    )
    store.root.write(_note(iteration), new.to_json())
    finish(store)
    return len(commit.files), len(new.files)


def finish(store: RunStore) -> list[int]:
    """Bring every compaction that is under way to its end; the iterations concerned. Safe to repeat."""
    done = []
    for name in store.root.names(layout.STAGING):
        if not name.startswith("compact-") or not store.root.exists(f"{layout.STAGING}/{name}/commit.json"):
            continue
        new = Commit.from_json(store.root.read(f"{layout.STAGING}/{name}/commit.json"))
        for table in {file.table for file in new.merged_from}:
            _exchange(store, new, table)
        store.root.write(layout.commit(new.iteration), new.to_json())
        if not store.root.has_rename:  # on object stores old and new lie side by side until the record decides
            for file in new.merged_from:
                store.root.delete(f"{layout.committed(file.table, new.iteration)}/{file.name}")
        store.root.delete(f"{layout.STAGING}/{name}")
        done.append(new.iteration)
    return done


def _merge(store: RunStore, commit: Commit, table: str, compression: str) -> FileReport:
    """The merged file, in staging (on an object store: beside the old ones)."""
    directory = layout.committed(table, commit.iteration)
    contents = (store.root.read(f"{directory}/{file.name}") for file in commit.of(table))
    parts = [pq.ParquetFile(pa.BufferReader(content)).read() for content in contents]
    merged = pa.concat_tables(parts)
    content = encode(merged, compression)
    place = _staged(table, commit.iteration) if store.root.has_rename else directory
    name = f"merged-{len(parts):05d}.parquet"
    store.root.write(f"{place}/{name}", content)
    return FileReport(table=table, name=name, rows=merged.num_rows, size_bytes=len(content),
                      sha256=hashlib.sha256(content).hexdigest())  # fmt: skip


def _exchange(store: RunStore, new: Commit, table: str) -> None:
    visible, staged = layout.committed(table, new.iteration), _staged(table, new.iteration)
    wanted = {file.name for file in new.of(table)}
    if store.root.has_rename and set(store.root.sizes(visible)) != wanted:
        store.root.swap(staged, visible)


def _staged(table: str, iteration: int) -> str:
    return f"{layout.STAGING}/compact-{iteration}/{table}"


def _note(iteration: int) -> str:
    return f"{layout.STAGING}/compact-{iteration}/commit.json"
