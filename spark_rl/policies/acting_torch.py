"""The acting side of the CNN. This module imports torch, which an MLP rollout never pays for."""

from __future__ import annotations

import numpy as np
import torch

from spark_rl.policies.acting import Act, load_normalizer
from spark_rl.policies.features import Observation
from spark_rl.policies.networks import build, features_of
from spark_rl.policies.sampling import sampler
from spark_rl.policies.spec import PolicySpec


class CNNActing:
    """See acting.ActingPolicy; sampling is numpy's, from the generator given, as for the MLP."""

    def __init__(self, spec: PolicySpec, tensors: dict[str, np.ndarray]) -> None:
        # One task owns one core; torch defaults to every core it sees, so 8 tasks on 8 cores would run 64 threads.
        torch.set_num_threads(1)
        self._features = features_of(spec)
        self._normalizer = load_normalizer(spec, tensors)
        self._network = build(spec, seed=0, device=torch.device("cpu"))
        self._network.load_weights(tensors)
        self._sampler = sampler(spec.action.only, tensors.get("log_std"))

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
        """Distribution parameters, float32 [P, N]."""
        features = self._features.encode(observation)
        if self._normalizer is not None:
            features = self._normalizer(features)
        images = [torch.from_numpy(np.ascontiguousarray(image)) for image in self._features.images(observation)]
        with torch.inference_mode():
            output = self._network(torch.from_numpy(features), images)
        return np.ascontiguousarray(output.params.numpy().T)
