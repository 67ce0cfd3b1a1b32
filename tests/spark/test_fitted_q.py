"""Fitted Q iteration in SQL: value iteration on what a collected table says, checked row by row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
import pytest

from spark_rl.collect import collect
from spark_rl.config import RunConfig
from spark_rl.data.reader import read_iteration
from spark_rl.data.store import RunStore
from spark_rl.envs.carry import plan
from spark_rl.envs.spaces import observation_spec
from spark_rl.envs.spec import EnvSpec
from spark_rl.errors import UserError
from spark_rl.evaluation.exact_run import evaluate_exactly
from spark_rl.offline import offline
from spark_rl.policies import weights as codec
from spark_rl.policies.states import StateIndex
from spark_rl.sql.fitted_q import state_sql
from spark_rl.train import train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def config(env_id: str, **algorithm: object) -> RunConfig:
    return RunConfig.from_dict({
        "run": {"env_steps": 2 * 2 * 8 * 100}, "env": {"id": env_id, "max_episode_steps": 100, "carry": "replay"},
        "rollout": {"num_groups": 2, "envs_per_group": 8, "steps_per_env": 100},
        "algorithm": {"name": "fitted_q"} | algorithm,
    })  # fmt: skip


def test_sweeps_are_those_of_value_iteration_on_the_rows(spark: SparkSession, tmp_path: Path) -> None:
    made = config("FrozenLake-v1", discount=0.5, max_sweeps=4)
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    collect(made, data)
    summary = offline(made, data, run, spark=spark)
    q = codec.decode(RunStore(run).read_weights(summary["policy_version"]))["q"]

    found, store = plan(EnvSpec(id="FrozenLake-v1", max_episode_steps=100), carry="auto"), RunStore(data)
    rows = []  # (state, action, reward, terminated, successor), row by row
    for k in store.iterations():
        batch = read_iteration(store.root, store.commit(k), found.observation, found.action)
        final = dict(zip(batch.last_row.tolist(), batch.final_observation[""].tolist(), strict=True))
        for i in range(batch.num_rows):
            after = final[i] if i in final else int(batch.observation[""][i + 1])
            rows.append(
                (int(batch.observation[""][i]), int(batch.action[i]), batch.reward[i], batch.terminated[i], after)
            )
    assert summary["rows"] == len(rows) == 3200
    wanted = {(s, a): 0.0 for s, a, *_ in rows}
    for _ in range(4):
        best: dict[int, float] = {}
        for (s, _), value in wanted.items():
            best[s] = max(best.get(s, -np.inf), value)
        targets: dict[tuple[int, int], list[float]] = {}
        for s, a, reward, terminated, after in rows:
            targets.setdefault((s, a), []).append(reward + (0.0 if terminated else 0.5 * best.get(after, 0.0)))
        wanted = {pair: float(np.mean(values)) for pair, values in targets.items()}
    assert (
        not summary["converged"]
        and summary["pairs"] == len(wanted)
        and max(wanted.values()) > 0.1
        and summary["sweeps"] == 4
    )
    for pair, value in wanted.items():
        assert q[pair] == pytest.approx(value, abs=1e-12)
    assert np.isneginf(q).sum() == q.size - len(wanted)  # what was never tried is never chosen
    assert evaluate_exactly(run)["policy_version"] == summary["sweeps"]


def test_sweeps_end_when_nothing_changes_any_more(spark: SparkSession, tmp_path: Path) -> None:
    made = config("FrozenLake-v1", discount=0.0)
    collect(made, str(tmp_path / "data"))
    summary = offline(made, str(tmp_path / "data"), str(tmp_path / "run"), spark=spark)
    assert (summary["sweeps"], summary["change_max"], summary["converged"]) == (2, 0.0, True)


def test_a_nested_state_has_the_same_number_in_sql(spark: SparkSession) -> None:
    space = gym.spaces.Dict(a=gym.spaces.Discrete(3, start=-1), b=gym.spaces.MultiDiscrete([2, 4]),
                            c=gym.spaces.MultiBinary(2))  # fmt: skip
    spec = observation_spec(space, "test")
    states = StateIndex(spec)
    seen = states.observation(np.arange(states.size))
    rows = [({"a": int(a), "b": b.tolist(), "c": c.tolist()},)
            for a, b, c in zip(seen["a"], seen["b"], seen["c"], strict=True)]  # fmt: skip
    frame = spark.createDataFrame(rows, "o STRUCT<a: BIGINT, b: ARRAY<BIGINT>, c: ARRAY<TINYINT>>")
    found = [row[0] for row in frame.selectExpr(state_sql(spec, "o")).collect()]
    assert found == list(range(states.size))


def test_what_cannot_be_learned_offline_is_told(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use `spark-rl train`"):
        offline(config("FrozenLake-v1", name="q_learning"), str(tmp_path), str(tmp_path / "run"), spark=spark)
    with pytest.raises(UserError, match="use `spark-rl offline CONFIG --data URI`"):
        train(config("FrozenLake-v1"), str(tmp_path / "run"))
    with pytest.raises(UserError, match="no run.json"):
        offline(config("FrozenLake-v1"), str(tmp_path / "nothing"), str(tmp_path / "run"), spark=spark)
