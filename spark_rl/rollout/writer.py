"""Facts -> Arrow -> one Parquet file per table, in staging, under its final name."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from spark_rl.files import Root
from spark_rl.policies.sampling import action_mask
from spark_rl.rollout.episodes import ORDINAL_BITS, Episodes, Places
from spark_rl.rollout.fragment import Rows
from spark_rl.rollout.spec import GroupTask, RolloutSpec
from spark_rl.schema import codec, layout, tables
from spark_rl.schema.reports import FileReport


def transitions_table(spec: RolloutSpec, task: GroupTask, rows: Rows, places: Places) -> pa.Table:
    """The rows as the `transitions` table."""
    policy = spec.policy
    state_size = 0 if rows.state is None else rows.state.shape[1]
    schema = tables.transitions(policy.observation, policy.action, state_size=state_size,
                                masked=policy.action_mask != "")  # fmt: skip
    env_index = env_indices(spec, task, places.env)
    columns = {
        "episode_id": pa.array(episode_ids(env_index, places.ordinal)),
        "env_index": pa.array(env_index),
        "t": pa.array(places.t),
        "observation": codec.encode_space(policy.observation, rows.observation),
        "action": codec.encode_space(policy.action, {"": rows.action}),
        "reward": pa.array(rows.reward),
        "terminated": pa.array(rows.terminated),
        "truncated": pa.array(rows.truncated),
        "final_observation": codec.encode_sparse(
            policy.observation, rows.final_observation, rows.last_row, rows.num_rows
        ),
        "action_log_prob": pa.array(rows.log_prob.astype(np.float64), from_pandas=True),  # NaN, unknown, becomes NULL
        "policy_version": pa.array(np.full(rows.num_rows, task.policy_version, np.int64)),
    }
    if rows.raw_action is not None:
        columns["raw_action"] = codec.encode_space(policy.action, {"": rows.raw_action})
    if policy.action_mask:
        allowed = action_mask(rows.observation[policy.action_mask])
        columns["action_mask"] = pa.FixedSizeListArray.from_arrays(
            pa.array(allowed.reshape(-1)), type=schema.field("action_mask").type
        )
    if rows.state is not None:
        columns["state"] = pa.FixedSizeListArray.from_arrays(
            pa.array(rows.state.reshape(-1)), type=schema.field("state").type
        )
    return pa.table([columns[name] for name in schema.names], schema=schema)


def episodes_table(spec: RolloutSpec, task: GroupTask, episodes: Episodes, seeds: np.ndarray | None) -> pa.Table:
    """The ended (or cut) episodes as the `episodes` table; `seeds` [K] where every episode was seeded by itself."""
    env_index = env_indices(spec, task, episodes.env)
    reason = np.where(episodes.terminated, "terminated", np.where(episodes.truncated, "truncated", "cut"))
    columns = {
        "episode_id": episode_ids(env_index, episodes.ordinal),
        "env_index": env_index,
        "seed": pa.nulls(len(env_index), pa.int64()) if seeds is None else seeds,
        "length": episodes.length.astype(np.int32),
        "episode_return": episodes.episode_return,
        "terminated": episodes.terminated,
        "truncated": episodes.truncated,
        "end_reason": pa.array(reason.tolist(), pa.string()),
        "first_iteration": episodes.first_iteration.astype(np.int32),
        "policy_version_min": episodes.policy_version_min,
        "policy_version_max": np.full(len(env_index), task.policy_version, np.int64),
    }
    return pa.table([pa.array(columns[name]) for name in tables.EPISODES.names], schema=tables.EPISODES)


def env_indices(spec: RolloutSpec, task: GroupTask, env: np.ndarray) -> np.ndarray:
    """Run-wide numbers of a group's environments."""
    return (env + task.group * spec.envs_per_group).astype(np.int32)


def episode_ids(env_index: np.ndarray, ordinal: np.ndarray) -> np.ndarray:
    """BIGINT ids, unique in the run."""
    return (env_index.astype(np.int64) << ORDINAL_BITS) | ordinal.astype(np.int64)


def put(root: Root, table: str, task: GroupTask, content: bytes | pa.Buffer, num_rows: int) -> FileReport:
    """Leave a file where the driver will look for it.

    Retries and speculative twins write the same bytes to the same name, each through a temporary name of its own. On an
    object store, where publishing would be a copy, the file gets its final name at once and the commit record decides.
    """
    name = layout.part(table, task.group)
    place = layout.staged if root.has_rename else layout.committed
    root.write(f"{place(table, task.iteration)}/{name}", content)
    digest = hashlib.sha256(content).hexdigest()
    return FileReport(table=table, name=name, rows=num_rows, size_bytes=len(content), sha256=digest)
