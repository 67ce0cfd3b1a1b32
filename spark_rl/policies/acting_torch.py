"""The acting side of the CNN. This module imports torch, which an MLP rollout never pays for."""

from __future__ import annotations

import numpy as np
import torch

from spark_rl.policies.acting import FeedForward
from spark_rl.policies.build import build
from spark_rl.policies.features import Observation
from spark_rl.policies.spec import PolicySpec


class CNNActing(FeedForward):
    """The torch network forward; sampling is numpy's, from the generator given, as for the MLP."""

    def __init__(self, spec: PolicySpec, tensors: dict[str, np.ndarray]) -> None:
        super().__init__(spec, tensors)
        # One task owns one core; torch defaults to every core it sees, so 8 tasks on 8 cores would run 64 threads.
        torch.set_num_threads(1)
        self._network = build(spec, seed=0, device=torch.device("cpu"))
        self._network.load_weights(tensors)

    def params(self, observation: Observation) -> np.ndarray:
        """See FeedForward."""
        # Arrow's zero-copy arrays are read-only, which torch has no notion of: those are copied.
        images = [torch.from_numpy(np.require(i, requirements=("C", "W"))) for i in self._features.images(observation)]
        output = self._network(torch.from_numpy(self.encode(observation)), images)
        return np.ascontiguousarray(output.params.numpy().T)
