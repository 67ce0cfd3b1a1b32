"""How the parts of a run are made from its config. What they do with each other is in `train`."""

from __future__ import annotations

import json
import platform
import time
import uuid
from importlib import metadata
from typing import TYPE_CHECKING, Any

from spark_rl import registry
from spark_rl.config import RunConfig
from spark_rl.envs.carry import EnvPlan, plan
from spark_rl.envs.spec import EnvSpec, WrapperSpec
from spark_rl.policies.spec import PolicySpec
from spark_rl.rollout.spec import RolloutSpec
from spark_rl.schema.spaces import SpaceSpec
from spark_rl.schema.tables import SCHEMA_VERSION
from spark_rl.version import __version__

if TYPE_CHECKING:
    from spark_rl.learner_base import BaseLearner

ACTION_MASK = "action_mask"  # gymnasium's name, in info and as a key of an observation
_PACKAGES = ("numpy", "pyarrow", "gymnasium", "torch", "pyspark", "ale-py", "box2d", "mujoco")


def env_spec(config: RunConfig) -> EnvSpec:
    """[env] as data that crosses the wire."""
    wrappers = tuple(
        WrapperSpec(entry_point=w.entry_point, kwargs=json.dumps(w.kwargs, sort_keys=True)) for w in config.env.wrappers
    )
    if config.policy.action_mask == "info":
        wrappers = (*wrappers, WrapperSpec(entry_point="spark_rl.envs.wrappers:MaskObservation"))
    return EnvSpec(
        id=config.env.id,
        kwargs=json.dumps(config.env.kwargs, sort_keys=True),
        wrappers=wrappers,
        vectorization=config.env.vectorization,
        max_episode_steps=config.env.max_episode_steps or 0,
    )


def env_plan(config: RunConfig) -> EnvPlan:
    """Look at the environment: its spaces, and how it can be carried across iterations. Raises UserError."""
    return plan(env_spec(config), carry=config.env.carry)


def stored_plan(config: RunConfig, description: dict[str, Any]) -> EnvPlan:
    """The plan that a run was begun with, from its run.json; it holds for all of the run."""
    stored = description["env_plan"]
    return EnvPlan(
        spec=env_spec(config),
        native=stored["native"],
        carry=stored["carry"],
        reason=stored["reason"],
        observation=SpaceSpec.from_json(json.dumps(stored["observation_space"])),
        action=SpaceSpec.from_json(json.dumps(stored["action_space"])),
    )


def policy_spec(config: RunConfig, env: EnvPlan) -> PolicySpec:
    """[policy] over the environment's spaces; "auto" takes the CNN where there is a picture to look at."""
    network = config.policy.network
    if network == "auto":
        network = "nature_cnn" if any(leaf.is_image for leaf in env.observation.leaves) else "mlp"
    return PolicySpec(
        observation=env.observation,
        action=env.action,
        kind=getattr(config.algorithm, "policy_kind", "actor_critic"),
        network=network,
        hidden=config.policy.hidden,
        activation=config.policy.activation,
        normalize_observation=config.policy.normalize_observation,
        log_std_init=config.policy.log_std_init,
        recurrent=config.policy.recurrent,
        recurrent_size=config.policy.recurrent_size,
        action_mask=_action_mask(config, env),
    )


def _action_mask(config: RunConfig, env: EnvPlan) -> str:
    """The observation's leaf that masks actions; "" where there is none."""
    wanted = config.policy.action_mask
    if wanted == "auto":
        learns = getattr(config.algorithm, "policy_kind", "actor_critic") == "actor_critic"
        return ACTION_MASK if learns and ACTION_MASK in [leaf.name for leaf in env.observation.leaves] else ""
    return {"off": "", "info": ACTION_MASK}.get(wanted, wanted)


def rollout_spec(config: RunConfig, env: EnvPlan, policy: PolicySpec, *, run_id: str, run_uri: str) -> RolloutSpec:
    """What every task of the run gets."""
    return RolloutSpec(
        run_id=run_id,
        run_uri=run_uri,
        seed=config.run.seed,
        env=env.spec,
        native=env.native,
        carry=env.carry,
        policy=policy,
        num_groups=config.rollout.num_groups,
        envs_per_group=config.rollout.envs_per_group,
        steps_per_env=config.rollout.steps_per_env,
        deadline_s=config.rollout.deadline_s,
        compression=config.store.compression,
    )


def learner(config: RunConfig, policy: PolicySpec) -> BaseLearner:
    """The algorithm on its device."""
    if not getattr(config.algorithm, "needs_torch", True):
        from spark_rl.learner_base import BaseLearner

        return BaseLearner(registry.load(config.algorithm_name)(config.algorithm, policy, seed=config.run.seed))
    from spark_rl.learner import Learner  # deferred: collecting needs no torch

    return Learner(
        registry.load(config.algorithm_name),
        config.algorithm,
        policy,
        seed=config.run.seed,
        num_envs=config.num_envs,
        device=config.learner.device,
        num_threads=config.learner.num_threads,
        mixed_precision=config.learner.mixed_precision,
    )


def description(config: RunConfig, env: EnvPlan, made: BaseLearner | None = None) -> dict[str, Any]:
    """What run.json says: enough to know, years later, what made these rows. Credentials are left out.

    `made` is None for a run that only collects.
    """
    return {
        "run_id": uuid.uuid4().hex,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "schema_version": SCHEMA_VERSION,
        "seed": config.run.seed,
        "config": config.to_public_dict(),
        "config_sha256": config.sha256,
        "env_plan": {
            "native": env.native,
            "carry": env.carry,
            "reason": env.reason,
            "observation_space": json.loads(env.observation.to_json()),
            "action_space": json.loads(env.action.to_json()),
        },
        "learner": made.description if made else None,
        "versions": {"python": platform.python_version(), "spark_rl": __version__} | _versions(),
    }


def _versions() -> dict[str, str]:
    installed = {}
    for package in _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # optional, and its absence is what the record then says
    return installed
