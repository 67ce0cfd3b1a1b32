"""The acting side: one batched forward pass a step, in numpy for an MLP (importing torch costs a worker seconds)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from spark_rl.policies.features import Features, Normalizer, Observation
from spark_rl.policies.sampling import Sampler, sampler
from spark_rl.policies.spec import PolicySpec
from spark_rl.policies.weights import decode


@dataclass(slots=True)
class Act:
    """What a policy did in N environments."""

    action: np.ndarray  # as the environment gets it: [N] or [N, *shape], of the action leaf's dtype
    log_prob: np.ndarray  # float32 [N], natural log; of `raw_action` where there is one
    raw_action: np.ndarray | None = None  # the sample before clipping, float32; box actions only
    state: np.ndarray | None = None  # recurrent state [N, S]; None for a policy without memory


class ActingPolicy(Protocol):
    """A policy with its weights. Arrays of an Act are the caller's to keep."""

    def initial_state(self, num_envs: int) -> np.ndarray | None:
        """The recurrent state at an episode's start; None for a policy without memory."""

    def act(self, observation: Observation, state: np.ndarray | None, rng: np.random.Generator) -> Act:
        """Samples an action for each of N environments; every draw comes from `rng`."""

    def act_greedy(self, observation: Observation, state: np.ndarray | None) -> Act:
        """The mode for each of N environments, and its log-probability."""


def load_acting(spec: PolicySpec, weights: bytes) -> ActingPolicy:
    """The policy that `weights` (safetensors, see `weights.encode`) hold; torch is imported for a CNN only."""
    tensors = decode(weights)
    if spec.network == "nature_cnn":
        from spark_rl.policies.acting_torch import CNNActing

        return CNNActing(spec, tensors)
    return MLPActing(spec, tensors)


class MLPActing:
    """Features -> hidden layers -> head, float32 throughout; scratch buffers are kept per batch size.

    Only the actor's half of the weights is used.
    """

    def __init__(self, spec: PolicySpec, tensors: dict[str, np.ndarray]) -> None:
        self._features = Features(spec.observation, images=False)
        self._normalizer = load_normalizer(spec, tensors)
        # [in, out] views for row-major batches; BLAS takes the transposition as a flag.
        self._layers = [(tensors[f"actor.{i}.weight"].T, tensors[f"actor.{i}.bias"]) for i in range(len(spec.hidden))]
        self._tanh = spec.activation == "tanh"
        self._head_weight = tensors["actor.head.weight"]
        self._head_bias = tensors["actor.head.bias"][:, None]
        self._sampler: Sampler = sampler(spec.action.only, tensors.get("log_std"))
        self._scratch: dict[int, list[np.ndarray]] = {}

    def initial_state(self, num_envs: int) -> None:
        """No memory, no state."""

    def act(self, observation: Observation, state: np.ndarray | None, rng: np.random.Generator) -> Act:
        """See ActingPolicy."""
        action, raw_action, log_prob = self._sampler.sample(self.params(observation), rng)
        return Act(action, log_prob, raw_action)

    def act_greedy(self, observation: Observation, state: np.ndarray | None) -> Act:
        """See ActingPolicy."""
        action, raw_action, log_prob = self._sampler.mode(self.params(observation))
        return Act(action, log_prob, raw_action)

    def params(self, observation: Observation) -> np.ndarray:
        """Distribution parameters, float32 [P, N] (component-major, see `sampling`)."""
        x = self._features.encode(observation)
        if self._normalizer is not None:
            x = self._normalizer(x)
        for (weight, bias), buffer in zip(self._layers, self._buffers(len(x)), strict=True):
            np.matmul(x, weight, out=buffer)
            np.add(buffer, bias, out=buffer)
            if self._tanh:
                np.tanh(buffer, out=buffer)
            else:
                np.maximum(buffer, 0.0, out=buffer)
            x = buffer
        params: np.ndarray = np.matmul(self._head_weight, x.T)
        params += self._head_bias
        return params

    def _buffers(self, num_envs: int) -> list[np.ndarray]:
        buffers = self._scratch.get(num_envs)
        if buffers is None:
            buffers = [np.empty((num_envs, weight.shape[1]), np.float32) for weight, _ in self._layers]
            self._scratch = {num_envs: buffers}  # the last size only: evaluation shrinks its batch env by env
        return buffers


def load_normalizer(spec: PolicySpec, tensors: dict[str, np.ndarray]) -> Normalizer | None:
    """The observation normaliser that travels with the weights; None where the spec has none."""
    if not spec.normalize_observation:
        return None
    return Normalizer(tensors["normalizer.mean"], tensors["normalizer.var"])
