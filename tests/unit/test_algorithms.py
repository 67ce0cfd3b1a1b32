"""What every algorithm of the registry keeps, whoever wrote it: a new line there is tested here without another word.

Each is trained for a few iterations in this process, on the first of three small environments that it accepts, with its
own defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spark_rl import builder, metrics, registry
from spark_rl.algorithms.actor_critic import ActorCritic
from spark_rl.config import RunConfig
from spark_rl.data.store import RunStore
from spark_rl.errors import UserError
from spark_rl.experience import Silent
from spark_rl.policies import weights
from spark_rl.policies.load import load_acting
from spark_rl.train import train

NUM_ITERATIONS = 4
ENVIRONMENTS: tuple[dict[str, Any], ...] = (
    {"id": "CartPole-v1"},
    {"id": "Pendulum-v1", "max_episode_steps": 20},
    {"id": "CliffWalking-v1", "max_episode_steps": 20},
)
PLAIN: dict[str, Any] = {}
VARIANTS: dict[str, dict[str, Any]] = {
    "with an LSTM": {"policy": {"recurrent": "lstm", "recurrent_size": 8}},
    "with a GRU, one version behind": {
        "policy": {"recurrent": "gru", "recurrent_size": 8}, "rollout": {"pipelined": True}
    },
    "with masks": {"env": {"id": "Taxi-v4", "carry": "replay"}, "policy": {"action_mask": "info"}},
}  # fmt: skip


def make_config(name: str, env: dict[str, Any], variant: Mapping[str, Any], seed: int = 3) -> RunConfig:
    tables: dict[str, Any] = {
        "run": {"env_steps": NUM_ITERATIONS * 2 * 3 * 16, "seed": seed},
        "env": env,
        "rollout": {"num_groups": 2, "envs_per_group": 3, "steps_per_env": 16},
        "policy": {"hidden": [8]},
        "algorithm": {"name": name},
        "evaluation": {"episodes": 2},
    }
    for section, values in variant.items():
        tables[section] = values if section == "env" else tables[section] | values
    return RunConfig.from_dict(tables)


@cache
def environment_of(name: str) -> dict[str, Any]:
    """The first environment whose spaces the algorithm can learn in."""
    refused = []
    for env in ENVIRONMENTS:
        try:
            config = make_config(name, env, PLAIN)
            builder.learner(config, builder.policy_spec(config, builder.env_plan(config)))
        except UserError as error:
            refused.append(str(error))
            continue
        return env
    if all(message.startswith("algorithm.name") for message in refused):  # not this environment, but any
        pytest.skip(refused[0])
    raise AssertionError(f"{name} accepts none of the environments here: {refused}")


CASES = [(name, "plain") for name in sorted(registry.ALGORITHMS)]
ACTOR_CRITICS = [name for name in sorted(registry.ALGORITHMS) if issubclass(registry.load(name), ActorCritic)]
CASES += [(name, variant) for name in ACTOR_CRITICS for variant in VARIANTS]


def config_of(case: tuple[str, str], seed: int = 3) -> RunConfig:
    name, variant = case
    return make_config(name, environment_of(name), VARIANTS.get(variant, PLAIN), seed)


class Killed(Exception):
    """The process died."""


class KilledAfter(Silent):
    def __init__(self, iteration: int) -> None:
        self._last = iteration

    def iteration(self, iteration: int, metrics: Mapping[str, float]) -> None:
        if iteration == self._last:
            raise Killed


def digests(run: Path) -> list[str]:
    """Of the weights of every version."""
    store = RunStore(str(run))
    return [weights.sha256(store.read_weights(version)) for version in store.policy_versions()]


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_the_same_seed_gives_the_same_bits_killed_or_not(case: tuple[str, str], tmp_path: Path) -> None:
    config = config_of(case)
    train(config, str(tmp_path / "one"))
    train(config, str(tmp_path / "two"))
    want = digests(tmp_path / "one")
    assert len(want) == NUM_ITERATIONS + 1
    assert digests(tmp_path / "two") == want
    assert want[0] != want[-1], "nothing was learned"
    train(config_of(case, seed=4), str(tmp_path / "other seed"))
    assert digests(tmp_path / "other seed")[-1] != want[-1]
    for last in (0, NUM_ITERATIONS - 2):
        place = tmp_path / f"killed after {last}"
        with pytest.raises(Killed):
            train(config, str(place), progress=KilledAfter(last))
        train(config, str(place), resume=True)
        assert digests(place) == want


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_metrics_have_names_and_weights_act(case: tuple[str, str], tmp_path: Path) -> None:
    config = config_of(case)
    train(config, str(tmp_path))
    store = RunStore(str(tmp_path))
    rows = store.read_metrics()
    assert len(rows) == NUM_ITERATIONS
    for row in rows:
        metrics.check(row)
        assert all(math.isfinite(value) for value in row.values())
        assert any(name.startswith("learner/") for name in row), "an update has to say something"
    spec = builder.policy_spec(config, builder.env_plan(config))
    policy = load_acting(spec, store.read_weights(NUM_ITERATIONS))
    observation = {leaf.name: np.zeros((5, *leaf.shape), leaf.dtype) for leaf in spec.observation.leaves}
    state = policy.initial_state(5)
    assert (state is not None) == bool(spec.recurrent)
    leaf = spec.action.only
    for act in (policy.act(observation, state, np.random.default_rng(0)), policy.act_greedy(observation, state)):
        assert act.action.shape == (5, *leaf.shape)
        assert act.log_prob.shape == (5,)
        if leaf.kind == "discrete":
            assert ((act.action >= leaf.start[0]) & (act.action < leaf.start[0] + leaf.n[0])).all()
        else:
            assert np.isfinite(act.action).all()
