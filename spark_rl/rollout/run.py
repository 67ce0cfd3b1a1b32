"""One task: a pure function of (spec, task, weights) that leaves files in staging and reports what it did.

A Python worker may serve many tasks, so it keeps what is expensive to make: environments and decoded policies. These
are caches, never state: a task that finds nothing, or something else, makes its own and gets the same rows.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Generic, TypeVar

import numpy as np

from spark_rl import files, seeding
from spark_rl.envs.group import Group, SyncGroup, make_group
from spark_rl.errors import RunError
from spark_rl.policies.acting import ActingPolicy, in_group
from spark_rl.policies.load import load_acting
from spark_rl.policies.weights import sha256
from spark_rl.rollout import writer
from spark_rl.rollout.check import check
from spark_rl.rollout.cursor import Cursor
from spark_rl.rollout.deadline import Rearm, deadline
from spark_rl.rollout.episodes import locate
from spark_rl.rollout.fragment import Recorder, Rows
from spark_rl.rollout.replay import replay
from spark_rl.rollout.spec import GroupTask, RolloutSpec
from spark_rl.schema import layout
from spark_rl.schema.parquet import encode
from spark_rl.schema.reports import FileReport, GroupReport

Value = TypeVar("Value")


class _Cache(Generic[Value]):
    """The few values used last. `take` removes: whoever fails half-way leaves nothing behind."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[tuple[object, ...], Value] = OrderedDict()

    def take(self, *key: object) -> Value | None:
        return self._values.pop(key, None)

    def put(self, value: Value, *key: object) -> list[Value]:
        """The values that had to go."""
        self._values[key] = value
        return [self._values.popitem(last=False)[1] for _ in range(len(self._values) - self._capacity)]


_policies: _Cache[ActingPolicy] = _Cache(2)  # the version of now and the one before, or a policy and its evaluation
_groups: _Cache[tuple[str, Group]] = _Cache(64)  # (run, group) -> (cursor's hash, environments standing there)


def policy_for(spec: RolloutSpec, weights: bytes) -> ActingPolicy:
    """The policy, decoded once per version and worker."""
    key = (spec.policy, sha256(weights))
    policy = _policies.take(*key) or load_acting(spec.policy, weights)
    _policies.put(policy, *key)
    return policy


def forget() -> None:
    """Empty the caches: what a new worker starts with."""
    for cache in (_policies, _groups):
        cache._values.clear()


def run_group(spec: RolloutSpec, task: GroupTask, weights: bytes, *, attempt: int = 0) -> GroupReport:
    """Collect one fragment and leave its files in staging.

    Raises RunError when the environment raises, hangs, or returns what is not in its space.
    """
    began = time.perf_counter()
    root = files.open_root(spec.run_uri)
    output = files.open_root(spec.output_uri) if spec.output_uri else root
    policy = in_group(policy_for(spec, weights), task.group, spec.num_groups)
    with deadline(spec.deadline_s, f"{_name(spec, task)}, before its first step") as arm:
        arm()
        group, cursor, source, replayed = _position(spec, task, root, policy, arm)
    prepared = time.perf_counter()
    rows = _collect(spec, task, group, cursor, policy)
    places, episodes = locate(rows, cursor, task.iteration, task.policy_version, cut=spec.carry == "cut")
    check(rows, places, spec.policy.observation, group, spec.env.id, task.group * spec.envs_per_group)
    stepped = time.perf_counter()

    table = writer.transitions_table(spec, task, rows, places)
    reports = [writer.put(output, layout.TRANSITIONS, task, encode(table, spec.compression), rows.num_rows)]
    if len(episodes.env):
        seeds = None
        if isinstance(group, SyncGroup):
            pairs = zip(episodes.env.tolist(), episodes.ordinal.tolist(), strict=True)
            seeds = np.array([group.episode_seed(env, ordinal) for env, ordinal in pairs], np.int64)
        ended = writer.episodes_table(spec, task, episodes, seeds)
        reports.append(writer.put(output, layout.EPISODES, task, encode(ended, spec.compression), len(ended)))
    cursor.carried = group.carry(with_state=spec.carry == "snapshot")
    reports.append(writer.put(output, layout.CURSORS, task, cursor.encode(), spec.envs_per_group))
    _keep(spec, task, group, reports[-1])
    over = episodes.terminated | episodes.truncated
    planned = spec.envs_per_group * spec.steps_per_env
    written = time.perf_counter()
    return GroupReport(
        group=task.group,
        policy_version=task.policy_version,
        files=tuple(reports),
        rows_planned=planned,
        rows_written=rows.num_rows,
        rows_reset=planned - rows.num_rows,
        episode_returns=tuple(episodes.episode_return[over].tolist()),
        episode_lengths=tuple(episodes.length[over].tolist()),
        attempt=attempt,
        source=source,
        replayed_steps=replayed,
        ended_at=time.time(),
        oldest_needed=_oldest_needed(spec, task, cursor),
        times_s={"prepare": prepared - began, "step": stepped - prepared, "write": written - stepped,
                 "total": written - began},
    )  # fmt: skip


def _oldest_needed(spec: RolloutSpec, task: GroupTask, cursor: Cursor) -> int:
    """The first iteration whose rows the next task may have to replay."""
    unfinished = cursor.first_iteration[cursor.t > 0] if spec.carry == "replay" else cursor.first_iteration[:0]
    return int(unfinished.min()) if len(unfinished) else task.iteration + 1


def _keep(spec: RolloutSpec, task: GroupTask, group: Group, cursor: FileReport) -> None:
    for _, old in _groups.put((cursor.sha256, group), spec.run_id, task.group):
        old.close()


def _position(
    spec: RolloutSpec, task: GroupTask, root: files.Root, policy: ActingPolicy, arm: Rearm
) -> tuple[Group, Cursor, str, int]:
    """The group where the cursor says it stands: live, restored, replayed or begun; and how it got there."""
    live = _groups.take(spec.run_id, task.group)
    if task.cursor_sha256 == "":
        group = _make(spec, task)
        group.start(task.iteration)
        return group, _fresh(spec, task, group, policy), "start", 0
    name = layout.part(layout.CURSORS, task.group)
    content = root.read(f"{layout.committed(layout.CURSORS, task.iteration - 1)}/{name}")
    if sha256(content) != task.cursor_sha256:
        raise RunError(
            where=f"cursor of group {task.group} after iteration {task.iteration - 1} in {root.name}",
            got=f"sha256 {sha256(content)[:12]}", wanted=f"{task.cursor_sha256[:12]}, as committed",
            todo="the file was changed after its commit; restore it from a copy",
        )  # fmt: skip
    cursor = Cursor.decode(content)
    if live is not None and live[0] == task.cursor_sha256:
        group, source = live[1], "live"
    else:
        group, source = _make(spec, task), spec.carry
    if spec.carry == "cut":
        group.episode = cursor.carried.episode
        group.start(task.iteration)
        fresh = _fresh(spec, task, group, policy)
        return group, fresh, "cut", 0
    replayed = 0
    if source == "snapshot":
        _resume(group, cursor, spec)
    elif source == "replay":
        assert isinstance(group, SyncGroup)
        replayed = replay(group, spec, task, cursor, root, arm)
    return group, cursor, source, replayed


def _name(spec: RolloutSpec, task: GroupTask) -> str:
    return f"environment {spec.env.id}, group {task.group}, iteration {task.iteration}"


def _resume(group: Group, cursor: Cursor, spec: RolloutSpec) -> None:
    try:
        group.resume(cursor.carried)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise RunError(
            where=f"snapshot of environment {spec.env.id}", got=f"{type(error).__name__}: {error}",
            wanted="a state that fits a fresh environment", todo="begin a run with [env] carry = 'replay' or 'cut'",
        ) from error  # fmt: skip


def _make(spec: RolloutSpec, task: GroupTask) -> Group:
    group = make_group(spec.env, native=spec.native, seed=spec.seed, stream=seeding.ENVIRONMENT,
                       first_env=task.group * spec.envs_per_group, num_envs=spec.envs_per_group)  # fmt: skip
    if (group.observation_space, group.action_space) != (spec.policy.observation, spec.policy.action):
        raise RunError(
            where=f"environment {spec.env.id} on an executor",
            got=f"spaces {group.observation_space.to_json()} and {group.action_space.to_json()}",
            wanted="those that the driver saw", todo="install the same packages on the driver and on the executors",
        )  # fmt: skip
    return group


def _fresh(spec: RolloutSpec, task: GroupTask, group: Group, policy: ActingPolicy) -> Cursor:
    num_envs = spec.envs_per_group
    return Cursor(
        carried=group.carry(with_state=False),
        t=np.zeros(num_envs, np.int32),
        episode_return=np.zeros(num_envs, np.float64),
        first_iteration=np.full(num_envs, task.iteration, np.int32),
        policy_version_min=np.full(num_envs, task.policy_version, np.int64),
        state=policy.initial_state(num_envs),
    )


def _collect(spec: RolloutSpec, task: GroupTask, group: Group, cursor: Cursor, policy: ActingPolicy) -> Rows:
    """The hot loop: one policy call and one environment call per vector step."""
    rng = seeding.generator(spec.seed, seeding.ACTION, task.iteration, task.group)
    initial = policy.initial_state(spec.envs_per_group)
    state = cursor.state
    recorder = Recorder(group, spec.policy.observation, spec.policy.action, spec.steps_per_env,
                        0 if initial is None else initial.shape[1])  # fmt: skip
    with deadline(spec.deadline_s, _name(spec, task)) as arm:
        for s in range(spec.steps_per_env):
            arm()
            reset = group.pending
            recorder.before(s, group.observation, state)
            act = policy.act(group.observation, state, rng)
            step = group.step(act.action)
            recorder.after(s, act, step)
            if initial is not None:
                assert act.state is not None
                state = act.state
                fresh = step.terminated | step.truncated | reset
                state[fresh] = initial[fresh]
    cursor.state = state
    return recorder.rows(group)
