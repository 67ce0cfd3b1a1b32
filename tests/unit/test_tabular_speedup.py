"""More groups, less error: at fixed steps per group the error against Q* falls as 1 / sqrt(groups)."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import env_spec

from spark_rl.algorithms.tabular import Tabular
from spark_rl.algorithms.tabular_config import TabularConfig
from spark_rl.envs.carry import plan
from spark_rl.evaluation import exact
from spark_rl.policies.spec import PolicySpec
from spark_rl.tabular.counted import UNKNOWN, Counted, merge

DISCOUNT, ROUNDS, STEPS = 0.8, 40, 2560  # STEPS a group and round: 40 of every pair
GROUPS = (1, 4, 16, 64)


def steps_of_a_group(model: exact.Model, rng: np.random.Generator) -> Counted:
    """STEPS transitions from pairs drawn evenly: everything is covered, so only the number of samples matters."""
    drawn = rng.multinomial(STEPS, model.probability / model.probability.sum())
    at = np.flatnonzero(drawn)
    pair = model.pair[at]
    return Counted(pair // model.num_actions, pair % model.num_actions, model.successor[at], model.terminated[at],
                   model.reward[at], np.full(len(at), UNKNOWN), np.zeros(len(at), np.int64), drawn[at])  # fmt: skip


@pytest.fixture(scope="module")
def errors() -> list[float]:
    """Root mean square error over all pairs after ROUNDS, for each of GROUPS, over 5 repetitions."""
    env = env_spec("FrozenLake-v1")
    model, found = exact.model_of(env), plan(env, carry="auto")
    optimum, _ = exact.value_iteration(model, DISCOUNT)
    spec = PolicySpec(observation=found.observation, action=found.action, kind="tabular")
    config = TabularConfig(name="q_learning", discount=DISCOUNT, step_size=0.2)
    result = []
    for groups in GROUPS:
        squares = []
        for seed in range(5):
            rng, learner = np.random.default_rng([seed, groups]), Tabular(config, spec, seed=0)
            for k in range(ROUNDS):
                learner.update(merge([steps_of_a_group(model, rng) for _ in range(groups)]), iteration=k, progress=0.0)
            squares.append(((learner.q - optimum) ** 2).mean())
        result.append(float(np.sqrt(np.mean(squares))))
    return result


def test_the_error_falls_with_the_square_root_of_the_groups(errors: list[float]) -> None:
    slope = np.polyfit(np.log(GROUPS), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4, errors
    assert errors[0] / errors[-1] == pytest.approx(8.0, rel=0.3)
