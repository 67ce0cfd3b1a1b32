"""Committed Parquet files -> a Batch of plain arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spark_rl.data.batch import Batch
from spark_rl.data.store import Commit
from spark_rl.errors import RunError
from spark_rl.files import Root
from spark_rl.schema import codec, layout
from spark_rl.schema.reports import FileReport
from spark_rl.schema.spaces import SpaceSpec


def read_iteration(root: Root, commit: Commit, observation: SpaceSpec, action: SpaceSpec) -> Batch:
    """All rows of one iteration, group after group. Raises RunError for a file that is not what was committed."""
    return read_files(root, commit.iteration, commit.of(layout.TRANSITIONS), observation, action)


def read_files(
    root: Root, iteration: int, chosen: Sequence[FileReport], observation: SpaceSpec, action: SpaceSpec
) -> Batch:
    """The rows of some of an iteration's files, in the order given. Raises RunError as `read_iteration` does."""
    return to_batch(pa.concat_tables([_read(root, iteration, file) for file in chosen]), observation, action)


def _read(root: Root, iteration: int, file: FileReport) -> pa.Table:
    path = f"{layout.committed(file.table, iteration)}/{file.name}"
    content = root.read(path)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise RunError(
            where=f"{path} in {root.name}", got="other bytes than were committed", wanted=f"sha256 {file.sha256[:12]}",
            todo="the file was changed after its commit; restore it from a copy",
        )  # fmt: skip
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


def to_batch(table: pa.Table, observation: SpaceSpec, action: SpaceSpec) -> Batch:
    """The rows of a `transitions` table; they must be in stored order."""
    last_row, final = codec.decode_sparse(observation, table["final_observation"])
    raw = codec.decode_space(action, table["raw_action"])[""] if "raw_action" in table.column_names else None
    return Batch(
        observation=codec.decode_space(observation, table["observation"]),
        action=codec.decode_space(action, table["action"])[""],
        raw_action=raw,
        reward=_column(table, "reward"),
        terminated=_column(table, "terminated"),
        truncated=_column(table, "truncated"),
        action_log_prob=_column(table, "action_log_prob").astype(np.float32),
        policy_version=_column(table, "policy_version"),
        episode_id=_column(table, "episode_id"),
        t=_column(table, "t"),
        env_index=_column(table, "env_index"),
        last_row=last_row,
        final_observation=final,
        state=_states(table["state"]) if "state" in table.column_names else None,
    )


def _states(column: pa.ChunkedArray) -> np.ndarray:
    """[N, S] from a column of lists of S numbers."""
    return np.concatenate([chunk.flatten().to_numpy().reshape(len(chunk), -1) for chunk in column.chunks])


def _column(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].to_numpy())
