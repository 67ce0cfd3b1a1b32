"""The greedy policy of a stored run, evaluated without sampling error beside the best that is possible."""

from __future__ import annotations

from typing import Any

import numpy as np

from spark_rl import builder
from spark_rl.config import RunConfig
from spark_rl.data.store import RunStore
from spark_rl.errors import UserError
from spark_rl.evaluation import exact
from spark_rl.policies.load import load_acting
from spark_rl.policies.states import StateIndex
from spark_rl.schema import layout


def evaluate_exactly(run_uri: str, *, policy_version: int | None = None) -> dict[str, Any]:
    """Expected undiscounted return within the time limit: of a version's greedy policy (the newest if None), and of
    the best policy there is.

    Raises UserError where there is no such version, no finite model, or no time limit.
    """
    store = RunStore(run_uri)
    stored = store.describe()
    config = RunConfig.from_dict(stored["config"], f"{store.name}/{layout.RUN}")
    env = builder.stored_plan(config, stored)
    model = exact.model_of(env.spec)
    states = StateIndex(env.observation)
    if (states.size, env.action.only.kind) != (model.num_states, "discrete"):
        raise UserError(f"exact evaluation of {store.name}", f"observations of {states.size:,} states",
                        f"the {model.num_states:,} of the table", "play episodes instead")  # fmt: skip
    horizon = exact.horizon_of(model)
    version = store.policy_versions()[-1] if policy_version is None else policy_version
    policy = load_acting(builder.policy_spec(config, env), store.read_weights(version))
    observation = states.observation(np.arange(states.size))
    action = policy.act_greedy(observation, policy.initial_state(states.size)).action
    greedy = exact.deterministic(action - (env.action.only.start or (0,))[0], model.num_actions)
    return {
        "policy_version": version,
        "value": exact.policy_value(model, greedy, horizon=horizon),
        "best_value": exact.best_value(model, horizon=horizon),
        "horizon_env_steps": horizon,
    }
