"""Acting by a CNN's action values. This module imports torch, which an MLP rollout never pays for."""

from __future__ import annotations

import numpy as np
import torch

from spark_rl.policies.acting_q import QActing, Tensors
from spark_rl.policies.features import Observation
from spark_rl.policies.q_networks import QNetwork
from spark_rl.policies.spec import PolicySpec


class QCNNActing(QActing):
    """The torch network forward; noise of noisy layers is drawn once a step, for all environments of the group."""

    def __init__(self, spec: PolicySpec, tensors: Tensors) -> None:
        super().__init__(spec, tensors)
        # One task owns one core; torch defaults to every core it sees, so 8 tasks on 8 cores would run 64 threads.
        torch.set_num_threads(1)
        self._network = QNetwork(spec, self._head, seed=0, device=torch.device("cpu"))
        self._network.load_weights(tensors)
        self._quiet = torch.zeros(self._network.noise_size)

    def scores(self, observation: Observation, noise: np.random.Generator | None) -> np.ndarray:
        """See QActing."""
        size = self._network.noise_size
        drawn = None if noise is None else torch.from_numpy(noise.standard_normal(size, dtype=np.float32))
        self._network.perturb(self._quiet if drawn is None else drawn)
        # Arrow's zero-copy arrays are read-only, which torch has no notion of: those are copied.
        images = [torch.from_numpy(np.require(i, requirements=("C", "W"))) for i in self._features.images(observation)]
        scores: np.ndarray = self._network(torch.from_numpy(self.encode(observation)), images).numpy()
        return scores
