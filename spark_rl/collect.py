"""Experience without learning: datasets from a random, a scripted or a trained policy, as large as the budget."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from spark_rl import builder
from spark_rl.config import RunConfig, difference
from spark_rl.data.store import RunStore
from spark_rl.envs.carry import EnvPlan
from spark_rl.errors import UserError
from spark_rl.experience import Experience, Progress, Silent, make_collector
from spark_rl.policies import weights as codec
from spark_rl.policies.fixed import load_function
from spark_rl.policies.spec import PolicySpec


@dataclass(frozen=True, slots=True)
class Behavior:
    """The policy that collects: what it is, its weights, and the version number that its rows carry."""

    spec: PolicySpec
    weights: bytes
    policy_version: int
    description: dict[str, Any]  # for run.json: what to name to get the same behaviour again


def behavior(policy: str, env: EnvPlan, policy_version: int | None = None) -> Behavior:
    """The policy that a command names: "random", "module:function", or the directory of a trained run.

    Raises UserError where there is no such script, run or version, or where the run's spaces are others.
    """
    nothing = codec.encode({})
    plain = PolicySpec(observation=env.observation, action=env.action, kind="uniform")
    if policy == "random":
        return Behavior(plain, nothing, 0, {"policy": policy})
    module, colon, _ = policy.rpartition(":")
    if colon and "/" not in module:
        load_function(policy)
        return Behavior(replace(plain, kind="scripted", entry_point=policy), nothing, 0, {"policy": policy})
    store = RunStore(policy)
    stored = store.describe()
    config = RunConfig.from_dict(stored["config"], store.name)
    trained = builder.policy_spec(config, builder.stored_plan(config, stored))
    if (trained.observation, trained.action) != (env.observation, env.action):
        raise UserError("--policy", f"{policy}, a policy for {config.env.id}", "a policy with this config's spaces",
                        "collect with the environment that it was trained in")  # fmt: skip
    version = store.policy_versions()[-1] if policy_version is None else policy_version
    names = {"policy": store.name, "policy_version": version}
    return Behavior(trained, store.read_weights(version), version, names)


def collect(
    config: RunConfig,
    run_uri: str,
    *,
    policy: str = "random",
    policy_version: int | None = None,
    spark: Any = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Collect `run.env_steps` transitions into the run directory `run_uri`; a summary.

    [policy], [algorithm] and [learner] of the config are not used. With `resume`, go on after the last committed
    iteration. Raises UserError and RunError as `train.train` does.
    """
    watcher = progress or Silent()
    store = RunStore(run_uri)
    if resume:
        stored = store.describe()
        differing = difference(stored["config"], config)
        if differing or stored.get("behavior") is None:
            raise UserError(f"--resume of {store.name}", ", ".join(differing) or "a training run",
                            "the collection that was begun there", "undo the difference, or begin another")  # fmt: skip
        env = builder.stored_plan(config, stored)
    else:
        env = builder.env_plan(config)
    acting = behavior(policy, env, policy_version)
    if resume and stored["behavior"] != acting.description:
        raise UserError(f"--resume of {store.name}", str(acting.description), str(stored["behavior"]), "use that")
    if not resume:
        stored = builder.description(config, env) | {"behavior": acting.description}
        store.create(stored)
        store.write_weights(acting.policy_version, acting.weights)
    store.sweep()
    spec = builder.rollout_spec(config, env, acting.spec, run_id=stored["run_id"], run_uri=store.uri)
    collector = make_collector(spark)
    try:
        return _collect(config, store, Experience(store, spec, collector), acting, watcher)
    finally:
        collector.close()


def _collect(
    config: RunConfig, store: RunStore, experience: Experience, acting: Behavior, progress: Progress
) -> dict[str, Any]:
    began = time.perf_counter()
    done = store.iterations()
    first = done[-1] + 1 if done else 0
    store.keep_metrics(first)
    env_steps = store.commit(done[-1]).env_steps if done else 0
    progress.start(store.name, config.num_iterations, first)
    for k in range(first, config.num_iterations):
        collected = experience.collect(k, acting.policy_version)
        commit, row = experience.commit(collected, env_steps=env_steps)
        env_steps = commit.env_steps
        elapsed = row["time/rollout_s"] + row["time/commit_s"]
        row |= {"iteration": k, "env_steps": env_steps, "policy_version": acting.policy_version,
                "time/iteration_s": elapsed, "throughput/env_steps_per_s": commit.rows_written / elapsed}  # fmt: skip
        store.append_metrics([row])
        progress.iteration(k, row)
    wall_s = time.perf_counter() - began
    return {
        "run": store.name,
        **acting.description,
        "iterations": config.num_iterations,
        "env_steps": env_steps,
        "wall_s": round(wall_s, 3),
    }
