"""The acting side: one batched forward pass a step, in numpy for an MLP (importing torch costs a worker seconds)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from spark_rl.policies.features import Features, Normalizer, Observation
from spark_rl.policies.sampling import MASKED, Sampler, action_mask, sampler
from spark_rl.policies.spec import PolicySpec


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


def in_group(policy: ActingPolicy, group: int, num_groups: int) -> ActingPolicy:
    """The policy as one group acts with it: a policy that has a method `in_group` explores otherwise in each."""
    bind = getattr(policy, "in_group", None)
    found: ActingPolicy = policy if bind is None else bind(group, num_groups)
    return found


class FeedForward:
    """An ActingPolicy without memory; a subclass gives the distribution's parameters."""

    def __init__(self, spec: PolicySpec, tensors: dict[str, np.ndarray]) -> None:
        self._features = Features(spec.visible, images=spec.network == "nature_cnn")
        self._mask = spec.action_mask
        self._normalizer: Normalizer | None = None
        if spec.normalize_observation:
            self._normalizer = Normalizer(tensors["normalizer.mean"], tensors["normalizer.var"])
        self._sampler: Sampler = sampler(spec.action.only, tensors.get("log_std"))

    def params(self, observation: Observation) -> np.ndarray:
        """Distribution parameters, float32 [P, N] (component-major, see `sampling`), no action masked."""
        raise NotImplementedError

    def allowed(self, params: np.ndarray, observation: Observation) -> np.ndarray:
        """Parameters [P, N] under which a masked choice has probability 0; changed in place."""
        if self._mask:
            params[action_mask(observation[self._mask]).T == 0] = MASKED
        return params

    def encode(self, observation: Observation) -> np.ndarray:
        """Flat features as the network sees them, float32 [N, F]."""
        features = self._features.encode(observation)
        return features if self._normalizer is None else self._normalizer(features)

    def initial_state(self, num_envs: int) -> None:
        """No memory, no state."""

    def act(self, observation: Observation, state: np.ndarray | None, rng: np.random.Generator) -> Act:
        """See ActingPolicy."""
        action, raw_action, log_prob = self._sampler.sample(self.allowed(self.params(observation), observation), rng)
        return Act(action, log_prob, raw_action)

    def act_greedy(self, observation: Observation, state: np.ndarray | None) -> Act:
        """See ActingPolicy."""
        action, raw_action, log_prob = self._sampler.mode(self.allowed(self.params(observation), observation))
        return Act(action, log_prob, raw_action)


class MLPActing(FeedForward):
    """Features -> hidden layers -> head, float32 throughout; scratch buffers are kept for the last batch size.

    Only the actor's half of the weights is used.
    """

    def __init__(self, spec: PolicySpec, tensors: dict[str, np.ndarray]) -> None:
        super().__init__(spec, tensors)
        # [in, out] copies: a transposed view costs BLAS a third more where a picture's pixels come in.
        self._layers = [
            (np.ascontiguousarray(tensors[f"actor.{i}.weight"].T), tensors[f"actor.{i}.bias"])
            for i in range(len(spec.hidden))
        ]
        self._tanh = spec.activation == "tanh"
        self._head_weight = tensors["actor.head.weight"]
        self._head_bias = tensors["actor.head.bias"][:, None]
        self._scratch: list[np.ndarray] = []

    def params(self, observation: Observation) -> np.ndarray:
        """See FeedForward."""
        x = self.encode(observation)
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
        if not self._scratch or len(self._scratch[0]) != num_envs:
            self._scratch = [np.empty((num_envs, weight.shape[1]), np.float32) for weight, _ in self._layers]
        return self._scratch
