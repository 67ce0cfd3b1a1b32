"""Gradient steps per second through all epochs of an update, over the same update as a single file writes it.

Ours is `Learner.update` on a batch in memory: encoding, values of every row before the update, advantages in float64,
epochs of minibatches, metrics. The floor (see `torch_ppo`) is eager torch with autograd and torch.optim.Adam on tensors
that lie on the device already, with the same network, rows, minibatches, epochs and thread count; it is even spared
the values, which such a file computes while acting, and every metric. Data are random: no update here depends on them.

`--network nature_cnn` is the Atari preset's update (8 environments x 128 steps, 4 epochs of 256). Where our learner
would use bfloat16 by itself, it is measured both with and without, against the same float32 floor.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from spark_rl.benchmarks.benchmark import Benchmark, Place
from spark_rl.benchmarks.comparison import Comparison, in_turns
from spark_rl.data.batch import Batch
from spark_rl.policies.spec import PolicySpec
from spark_rl.schema.spaces import Leaf, SpaceSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Zeros stand for the network's preset, see `_SIZES`."""

    network: str = "mlp"
    device: str = "auto"
    threads: int = 1  # torch's, for both
    envs: int = 0
    steps: int = 0  # env steps
    epochs: int = 0
    minibatch_size: int = 0  # rows
    rounds: int = 15


# network -> envs, steps, epochs, minibatch, hidden, activation, observation, actions
_SIZES = {
    # CartPole's spaces and the shape of conf/ppo_cartpole.toml's update
    "mlp": (32, 128, 10, 256, (64, 64), "tanh", ("float32", (4,)), 2),
    # conf/ppo_pong.toml
    "nature_cnn": (8, 128, 4, 256, (512,), "relu", ("uint8", (4, 84, 84)), 6),
}


def run(settings: Settings, place: Place) -> Iterator[Comparison]:  # noqa: ARG001 (it needs no place)
    """One result for each precision."""
    import torch

    from spark_rl.algorithms.ppo import PPO
    from spark_rl.benchmarks import torch_ppo
    from spark_rl.learner import Learner, resolve_device, resolve_precision

    envs, steps, epochs, minibatch, hidden, activation, (dtype, shape), actions = _SIZES[settings.network]
    envs, steps, epochs = settings.envs or envs, settings.steps or steps, settings.epochs or epochs
    minibatch = settings.minibatch_size or minibatch
    policy = PolicySpec(
        observation=SpaceSpec(leaves=(Leaf(name="", kind="box", dtype=dtype, shape=shape, low=(0.0,), high=(255.0,)),),
                              structure="leaf"),
        action=SpaceSpec(leaves=(Leaf(name="", kind="discrete", dtype="int64", shape=(), n=(actions,), start=(0,)),),
                         structure="leaf"),
        network=settings.network, hidden=hidden, activation=activation,
    )  # fmt: skip
    config = PPO.Config.model_validate({"num_epochs": epochs, "minibatch_size": minibatch})
    device = resolve_device(settings.device)
    batch = _random_batch(policy, envs, steps)
    rows = envs * steps
    precisions = ["off", *(["auto"] if resolve_precision("auto", device, policy) else [])]
    for precision in precisions:
        learner = Learner(PPO, config, policy, seed=0, num_envs=envs, device=settings.device,
                          num_threads=settings.threads, mixed_precision=precision)  # fmt: skip
        torch.manual_seed(0)
        mlp = settings.network == "mlp"
        agent = torch_ppo.MLPAgent(shape[0], actions, hidden) if mlp else torch_ppo.CNNAgent(actions, hidden)
        agent = agent.to(device)
        optimizer = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, eps=config.adam_eps)
        stored = _storage(batch, envs, steps, device)

        def ours(learner: Any = learner) -> float:
            began = time.perf_counter()
            facts = learner.update(batch, iteration=0, progress=0.0)
            return float(facts["learner/gradient_steps"]) / (time.perf_counter() - began)

        def bare(agent: Any = agent, optimizer: Any = optimizer, stored: Any = stored) -> float:
            began = time.perf_counter()
            return torch_ppo.update(agent, optimizer, stored, config) / (time.perf_counter() - began)

        in_turns(2, ours, bare)
        mine, floor = in_turns(settings.rounds, ours, bare)
        rate = minibatch * float(np.median(mine))
        yield Comparison(
            name="update" if precision == "off" else "update/mixed_precision", unit="gradient steps/s", better="higher",
            ours=mine, floor=floor,
            settings={"network": settings.network, "hidden": list(hidden), "device": learner.description["device"],
                      "mixed_precision": learner.description["mixed_precision"], "num_threads": settings.threads,
                      "rows": rows, "num_epochs": epochs, "minibatch_size": minibatch},
            detail={"samples_per_s": rate, "floor_samples_per_s": minibatch * float(np.median(floor))},
        )  # fmt: skip


def _random_batch(policy: PolicySpec, envs: int, steps: int) -> Batch:
    """Rows as a rollout would leave them: some episodes end, every fragment's last row has its successor."""
    rng = np.random.default_rng(0)
    leaf, actions = policy.observation.only, policy.action.only.n[0]
    rows = envs * steps

    def observations(num: int) -> dict[str, np.ndarray]:
        if leaf.dtype == "uint8":
            return {"": rng.integers(0, 256, (num, *leaf.shape), np.uint8)}
        return {"": rng.standard_normal((num, *leaf.shape), np.float32)}

    terminated = rng.random(rows) < 0.02
    last_row = np.flatnonzero(terminated | (np.arange(rows) % steps == steps - 1))
    return Batch(
        observation=observations(rows),
        action=rng.integers(0, actions, rows),
        raw_action=None,
        reward=rng.standard_normal(rows),
        terminated=terminated,
        truncated=np.zeros(rows, bool),
        action_log_prob=np.full(rows, -np.log(actions), np.float32),
        policy_version=np.zeros(rows, np.int64),
        episode_id=np.zeros(rows, np.int64),
        t=np.zeros(rows, np.int32),
        env_index=np.repeat(np.arange(envs, dtype=np.int32), steps),
        last_row=last_row,
        final_observation=observations(len(last_row)),
    )


def _storage(batch: Batch, envs: int, steps: int, device: Any) -> Any:
    """The same rows, time-major on the device, with values from nowhere."""
    import torch

    from spark_rl.benchmarks.torch_ppo import Storage

    def grid(rows: np.ndarray) -> Any:
        """[N, ...] -> [T, B, ...], float32 unless it is an action."""
        tensor = torch.from_numpy(rows.reshape(envs, steps, *rows.shape[1:])).transpose(0, 1).contiguous()
        return tensor.to(device, torch.int64 if rows.dtype == np.int64 else torch.float32)

    value = np.random.default_rng(1).standard_normal(envs * steps)
    return Storage(grid(batch.observation[""]), grid(batch.action), grid(batch.action_log_prob), grid(batch.reward),
                   grid(batch.terminated), grid(value), torch.zeros(envs, device=device))  # fmt: skip


BENCHMARK = Benchmark(
    settings=Settings(), quick=Settings(envs=4, steps=16, epochs=2, minibatch_size=16, rounds=2), needs_spark=False,
    run=run,
)  # fmt: skip
