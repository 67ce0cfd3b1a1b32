"""What the tests of the data's path share: small specs, weights without torch, a driver's loop without a learner."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spark_rl.config import RunConfig
from spark_rl.data.store import RunStore
from spark_rl.envs.carry import EnvPlan, plan
from spark_rl.envs.spec import EnvSpec, WrapperSpec
from spark_rl.experience import group_tasks
from spark_rl.policies import weights as codec
from spark_rl.policies.features import Features
from spark_rl.policies.spec import PolicySpec
from spark_rl.rollout import run
from spark_rl.rollout.spec import RolloutSpec
from spark_rl.schema import layout
from spark_rl.schema.reports import GroupReport


def env_spec(env_id: str, *wrappers: tuple[str, dict[str, Any]], **options: Any) -> EnvSpec:
    """An EnvSpec; keyword arguments other than its fields go to the environment."""
    own = {name: options.pop(name) for name in ("vectorization", "max_episode_steps") if name in options}
    wrapped = tuple(WrapperSpec(entry_point=entry, kwargs=json.dumps(kwargs)) for entry, kwargs in wrappers)
    return EnvSpec(id=env_id, kwargs=json.dumps(options), wrappers=wrapped, **own)


def rollout_spec(uri: Path | str, env: EnvSpec | EnvPlan, **options: Any) -> RolloutSpec:
    """A small run of 2 groups of 3 environments, 8 steps each, unless `options` say otherwise."""
    found = env if isinstance(env, EnvPlan) else plan(env, carry=options.pop("carry", "auto"))
    policy = PolicySpec(observation=found.observation, action=found.action, hidden=(8,))
    sizes = {"num_groups": 2, "envs_per_group": 3, "steps_per_env": 8, "deadline_s": 60.0, "seed": 5}
    return RolloutSpec(run_id=str(uri), run_uri=str(uri), env=found.spec, native=found.native, policy=policy,
                       carry=found.carry, **(sizes | options))  # fmt: skip


def weights_for(policy: PolicySpec, version: int = 0) -> bytes:
    """Random weights of an MLP's actor or of a policy with a memory, another set for every version."""
    rng = np.random.default_rng(version)
    leaf = policy.action.only
    outputs = leaf.size if leaf.kind == "box" else sum(leaf.n)
    sizes = [Features(policy.visible, images=False).size, *policy.hidden]
    tower = "trunk" if policy.recurrent else "actor"
    layers = [(f"{tower}.{i}", *pair) for i, pair in enumerate(pairwise(sizes))]
    tensors = {}
    if policy.recurrent:
        units, gates = policy.recurrent_size, {"lstm": 4, "gru": 3}[policy.recurrent]
        for name, shape in (("weight_ih", (sizes[-1],)), ("weight_hh", (units,)), ("bias_ih", ()), ("bias_hh", ())):
            tensors[f"core.{name}"] = rng.normal(0, 0.5, (gates * units, *shape)).astype(np.float32)
        sizes.append(units)
    for name, size_in, size_out in [*layers, ("actor.head", sizes[-1], outputs)]:
        tensors[f"{name}.weight"] = rng.normal(0, 1 / math.sqrt(size_in), (size_out, size_in)).astype(np.float32)
        tensors[f"{name}.bias"] = np.zeros(size_out, np.float32)
    if leaf.kind == "box":
        tensors["log_std"] = np.zeros(outputs, np.float32)
    return codec.encode(tensors)


def collect(
    spec: RolloutSpec, iterations: int, *, before: Callable[[int], None] = lambda iteration: None, first: int = 0
) -> list[list[GroupReport]]:
    """Collect and commit iterations as the driver does; `before` each of them, something may happen."""
    store = RunStore(spec.run_uri)
    history = []
    for k in range(first, first + iterations):
        before(k)
        content = weights_for(spec.policy, k)
        tasks = group_tasks(store, k, k, list(range(spec.num_groups)))
        reports = [run.run_group(spec, task, content) for task in tasks]
        steps = store.commit(k - 1).env_steps if k else 0
        store.publish(k, reports, num_groups=spec.num_groups, weights_sha256=codec.sha256(content), env_steps=steps,
                      wall_s=0.0)  # fmt: skip
        history.append(reports)
    return history


def hashes(uri: Path | str, *tables: str) -> dict[str, str]:
    """Path inside the run -> sha256, for every file of the tables."""
    files = [
        path for table in tables or layout.TABLES for path in sorted(Path(uri, table).rglob("*")) if path.is_file()
    ]
    return {str(path.relative_to(uri)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(uri: Path | str, table: str = layout.TRANSITIONS) -> pa.Table:
    """All rows of a table, by iteration, group, and stored order, as any Parquet reader gives them."""
    paths = sorted(Path(uri, table).rglob("*.parquet"), key=lambda p: (int(p.parent.name.partition("=")[2]), p.name))
    return pa.concat_tables([pq.ParquetFile(path).read() for path in paths])


def episodes_of(rows: pa.Table) -> dict[int, list[dict[str, Any]]]:
    """Episode id -> its rows in the order of t."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["episode_id"], []).append(row)
    return {key: sorted(episode, key=lambda row: row["t"]) for key, episode in found.items()}


def check_successors(rows: pa.Table) -> int:
    """Whoever follows a row is the next row of its environment, or its final observation; the number of the latter.

    AssertionError where an end carries no final observation, where t has a hole, or where a new episode begins without
    an end. Knows nothing of how rows are made: it reads what is stored, row by row.
    """
    finals = 0
    last: dict[int, dict[str, Any]] = {}
    for row in rows.to_pylist():
        before = last.get(row["env_index"])
        over = before is None or before["terminated"] or before["truncated"]
        if over:
            assert row["t"] == 0, f"an episode begins with step {row['t']}"
        else:
            assert before is not None
            assert (row["episode_id"], row["t"]) == (before["episode_id"], before["t"] + 1), "a step is missing"
            if before["final_observation"] is not None:
                assert before["final_observation"] == row["observation"], "the successor is not what came next"
        if row["terminated"] or row["truncated"]:
            assert row["final_observation"] is not None, "an end without a final observation"
        finals += row["final_observation"] is not None
        last[row["env_index"]] = row
    return finals


def config(env: dict[str, Any] | None = None, **sections: dict[str, Any]) -> RunConfig:
    """A run of 3 iterations of 2 groups of 4 environments with 16 steps, in well under a second."""
    tables: dict[str, dict[str, Any]] = {
        "run": {"env_steps": 3 * 2 * 4 * 16, "seed": 7},
        "env": env or {"id": "CartPole-v1"},
        "rollout": {"num_groups": 2, "envs_per_group": 4, "steps_per_env": 16},
        "policy": {"hidden": [8]},
        "algorithm": {"num_epochs": 2, "minibatch_size": 32},
        "evaluation": {"episodes": 4},
    }
    for name, values in sections.items():
        tables[name] = tables.get(name, {}) | values
    return RunConfig.from_dict(tables)
