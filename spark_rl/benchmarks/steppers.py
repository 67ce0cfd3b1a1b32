"""The floors of the rollout: the same environments and the same policy in a plain loop, nothing stored. N environments.

`plain` is what a competent user writes: gymnasium's vector API and a few lines of numpy (of torch, for a CNN), to which
nothing of ours but the environments' construction and the weights belongs. `engine` puts our acting policy into the
same loop, and so tells what of a difference is the policy's and what the recording's, writing's and Spark's.

Only transitions are counted: in gymnasium's NEXT_STEP mode the step after an episode's end only resets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from spark_rl.benchmarks.crew import Stepper
from spark_rl.envs.make import autoreset_mode, make_native, make_single
from spark_rl.errors import UserError
from spark_rl.policies.load import load_acting
from spark_rl.policies.weights import decode
from spark_rl.rollout.spec import RolloutSpec

Actor = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def plain(spec: RolloutSpec, weights: bytes, seed: int) -> Stepper:
    """The loop with a policy written plainly."""
    write = _torch_cnn if spec.policy.network == "nature_cnn" else _numpy_mlp
    return _stepper(spec, write(spec, decode(weights)), seed)


def engine(spec: RolloutSpec, weights: bytes, seed: int) -> Stepper:
    """The loop with the acting policy that the tasks use."""
    policy = load_acting(spec.policy, weights)

    def act(observation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        chosen = policy.act({"": observation}, None, rng)
        return chosen.action, chosen.log_prob

    return _stepper(spec, act, seed)


def vector_env(spec: RolloutSpec) -> VectorEnv[Any, Any, Any]:
    """Native where the rollout's is, else gymnasium's own SyncVectorEnv over the same single environments."""
    if spec.native:
        return make_native(spec.env, spec.envs_per_group)
    return SyncVectorEnv([partial(make_single, spec.env)] * spec.envs_per_group)


def _stepper(spec: RolloutSpec, act: Actor, seed: int) -> Stepper:
    structure = spec.policy.observation.structure
    if structure != "leaf":
        raise UserError("benchmark --env", f"{spec.env.id}, whose observation is a {structure}",
                        "an environment with a single array", "choose another: the plain floor knows none")  # fmt: skip
    envs = vector_env(spec)
    resets_take_a_step = autoreset_mode(envs) is AutoresetMode.NEXT_STEP
    rng = np.random.default_rng(seed)
    observation, _ = envs.reset(seed=seed)
    over = np.zeros(spec.envs_per_group, bool)

    def run(steps: int) -> int:
        nonlocal observation, over
        transitions = 0
        for _ in range(steps):
            action, _ = act(observation, rng)
            transitions += len(over) - (int(np.count_nonzero(over)) if resets_take_a_step else 0)
            observation, _, terminated, truncated, _ = envs.step(action)
            over = terminated | truncated
        return transitions

    return run


def _numpy_mlp(spec: RolloutSpec, tensors: dict[str, np.ndarray]) -> Actor:
    """tanh layers, a linear head, a sample and its log-probability."""
    depth = len(spec.policy.hidden)
    layers = [(tensors[f"actor.{i}.weight"].T.copy(), tensors[f"actor.{i}.bias"]) for i in range(depth)]
    head, head_bias = tensors["actor.head.weight"].T.copy(), tensors["actor.head.bias"]
    sample = _sampler(spec, tensors)
    pixels = spec.policy.observation.only.dtype == "uint8"

    def act(observation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = observation.reshape(len(observation), -1).astype(np.float32, copy=False)
        if pixels:
            x = x / np.float32(255.0)
        for weight, bias in layers:
            x = np.tanh(x @ weight + bias)
        return sample(x @ head + head_bias, rng)

    return act


def _torch_cnn(spec: RolloutSpec, tensors: dict[str, np.ndarray]) -> Actor:
    """The Nature CNN as one torch.nn.Sequential on one thread (Mnih et al. 2015)."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    layers: list[nn.Module] = []
    named: list[tuple[str, nn.Module]] = []
    channels = spec.policy.observation.only.shape[0]
    for i, (units, side, stride) in enumerate(((32, 8, 4), (64, 4, 2), (64, 3, 1))):
        named.append((f"encoder.0.{i}", nn.Conv2d(channels, units, side, stride)))
        layers += [named[-1][1], nn.ReLU()]
        channels = units
    layers.append(nn.Flatten())
    activation = nn.Tanh if spec.policy.activation == "tanh" else nn.ReLU
    names = [f"trunk.{i}" for i in range(len(spec.policy.hidden))]
    for name in [*names, "actor.head"]:
        units, size = tensors[f"{name}.weight"].shape
        named.append((name, nn.Linear(size, units)))
        layers += [named[-1][1], *([activation()] if name in names else [])]
    for name, layer in named:
        layer.load_state_dict({key: torch.from_numpy(tensors[f"{name}.{key}"]) for key in ("weight", "bias")})
    network = nn.Sequential(*layers)
    sample = _sampler(spec, tensors)

    def act(observation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            params = network(torch.from_numpy(observation).float() / 255.0)
        return sample(params.numpy(), rng)

    return act


def _sampler(
    spec: RolloutSpec, tensors: dict[str, np.ndarray]
) -> Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    """[N, P] -> action and log-probability [N]."""
    leaf = spec.policy.action.only

    def categorical(logits: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        probability = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        # The last column is left out: rounding may leave the sum a little below the draw.
        action = (probability.cumsum(axis=1)[:, :-1] < rng.random((len(logits), 1))).sum(axis=1)
        return action + leaf.start[0], np.log(probability[np.arange(len(logits)), action])

    def gaussian(mean: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        log_std = tensors["log_std"]
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        raw = mean + noise * np.exp(log_std)
        log_prob = (-0.5 * noise**2 - log_std - 0.5 * np.log(2.0 * np.pi)).sum(axis=1)
        bounds = (np.resize(np.asarray(bound, np.float32), leaf.size) for bound in (leaf.low, leaf.high))
        return np.clip(raw, *bounds).reshape(len(raw), *leaf.shape), log_prob

    if leaf.kind == "discrete":
        return categorical
    if leaf.kind == "box":
        return gaussian
    raise UserError("benchmark --env", f"{spec.env.id} with {leaf.kind} actions", "discrete or box actions",
                    "choose another: the plain floor knows no other")  # fmt: skip
