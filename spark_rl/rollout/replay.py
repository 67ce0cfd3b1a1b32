"""Bring environments back to where they stood by living their unfinished episodes again from the stored actions."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spark_rl.envs.group import SyncGroup
from spark_rl.errors import RunError
from spark_rl.files import Root
from spark_rl.rollout.cursor import Cursor
from spark_rl.rollout.deadline import Rearm
from spark_rl.rollout.spec import GroupTask, RolloutSpec
from spark_rl.rollout.writer import env_indices, episode_ids
from spark_rl.schema import codec, layout


def replay(group: SyncGroup, spec: RolloutSpec, task: GroupTask, cursor: Cursor, root: Root, arm: Rearm) -> int:
    """Take a new group to the cursor's position; the number of env steps it took.

    Every observation is compared with the stored one. Raises RunError with the step at which an environment first
    did something else: it is not deterministic given its seed and actions, and has to run with carry = "cut".
    """
    carried = cursor.carried
    group.episode = carried.episode - 1  # `reset` counts on to the episode that is to be lived again
    episode_id = episode_ids(env_indices(spec, task, np.arange(spec.envs_per_group)), carried.episode)
    stored = _stored(task, cursor, root) if (cursor.t > 0).any() else None
    for i in range(spec.envs_per_group):
        arm()
        group.reset(i)
        if cursor.t[i]:
            assert stored is not None
            rows = stored.filter(pc.equal(stored["episode_id"], int(episode_id[i])))
            _live_again(group, i, rows, cursor, spec, arm)
    return int(cursor.t.sum())


def _stored(task: GroupTask, cursor: Cursor, root: Root) -> pa.Table:
    """This group's rows since the oldest unfinished episode began, oldest first."""
    first = int(cursor.first_iteration[cursor.t > 0].min())
    name = layout.part(layout.TRANSITIONS, task.group)
    parts = []
    for iteration in range(first, task.iteration):
        content = root.read(f"{layout.committed(layout.TRANSITIONS, iteration)}/{name}")
        parts.append(pq.read_table(io.BytesIO(content), columns=["episode_id", "t", "observation", "action"]))
    return pa.concat_tables(parts)


def _live_again(group: SyncGroup, i: int, rows: pa.Table, cursor: Cursor, spec: RolloutSpec, arm: Rearm) -> None:
    length = int(cursor.t[i])
    if rows.num_rows != length or rows["t"].to_numpy().tolist() != list(range(length)):
        raise _differs(group, i, rows.num_rows, spec, f"{rows.num_rows} stored steps", f"{length}, as the cursor says")
    observations = codec.decode_space(spec.policy.observation, rows["observation"])
    actions = codec.decode_space(spec.policy.action, rows["action"])[""]
    for t, action in enumerate(actions):
        arm()
        _compare(group, i, t, {name: values[t] for name, values in observations.items()}, spec)
        _, terminated, truncated = group.advance(i, action)
        if terminated or truncated:
            raise _differs(group, i, t, spec, "the end of the episode", "the episode to go on, as it did before")
    _compare(group, i, length, {name: values[i] for name, values in cursor.carried.observation.items()}, spec)


def _compare(group: SyncGroup, i: int, t: int, wanted: dict[str, np.ndarray], spec: RolloutSpec) -> None:
    for name, value in wanted.items():
        got = group.observation[name][i]
        if not np.array_equal(got, value):
            raise _differs(group, i, t, spec, f"observation {got!r}", f"{value!r}, as stored")


def _differs(group: SyncGroup, i: int, t: int, spec: RolloutSpec, got: str, wanted: str) -> RunError:
    seed = group.episode_seed(i, int(group.episode[i]))
    return RunError(
        where=f"replay of environment {spec.env.id}, episode with seed {seed}, step {t}", got=got, wanted=wanted,
        todo="the environment is not deterministic given its seed and actions: run it with [env] carry = 'cut'",
    )  # fmt: skip
