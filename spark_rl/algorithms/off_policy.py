"""What algorithms that learn from a window of iterations share: the rows, how often to learn from them, and inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spark_rl.algorithms.normalizers import RunningMoments
from spark_rl.data.batch import Batch
from spark_rl.data.replay import Replay
from spark_rl.policies.features import Features, Normalizer
from spark_rl.policies.spec import PolicySpec

GATHER_BYTES = 8 << 20  # of observations gathered at once; about a core's share of cache


class Window:
    """The replay window, the count of env and gradient steps, and the statistics of the observations.

    `replay_ratio` gradient steps are due for every env step after the first `learning_starts`; what a ratio leaves
    over is carried to the next iteration, so that the run's total is right whatever an iteration's size.
    """

    def __init__(
        self,
        policy: PolicySpec,
        *,
        capacity: int,
        prioritized: bool,
        replay_ratio: float,
        learning_starts: int,
        device: torch.device,
    ) -> None:
        self._normalize = policy.normalize_observation
        self._ratio, self._starts, self._device = replay_ratio, learning_starts, device
        self.replay = Replay(policy.observation, policy.action, capacity=capacity, prioritized=prioritized)
        self.features = Features(policy.observation, images=policy.network == "nature_cnn")
        self._moments = RunningMoments(self.features.size)
        self.env_steps = 0  # rows taken in since the start of the run
        self.gradient_steps = 0  # made since the start of the run

    @property
    def iterations(self) -> list[int]:
        """The window's iterations, or those that are to be recalled."""
        return self.replay.to_recall or self.replay.iterations

    def append(self, batch: Batch, iteration: int) -> int:
        """Takes in an iteration's rows; the gradient steps that are now due."""
        self.replay.append(batch, iteration)
        self.env_steps += batch.num_rows
        due = math.floor(self._ratio * max(0, self.env_steps - self._starts)) - self.gradient_steps
        self.gradient_steps += due
        return due

    def finish(self, batch: Batch) -> None:
        """After learning: the next version's normaliser knows these rows. Stored rows are normalised when drawn."""
        if self._normalize:
            self._moments.merge(self.features.encode(batch.observation))

    def recall(self, batch: Batch, iteration: int) -> None:
        """See Replay."""
        self.replay.recall(batch, iteration)

    def statistics(self) -> dict[str, np.ndarray]:
        """`normalizer.*`, as it travels with the weights; empty where observations are taken as they are."""
        if not self._normalize:
            return {}
        statistics = self._moments.state()
        indicators = ~self.features.normalized
        statistics["mean"][indicators], statistics["var"][indicators] = 0.0, 1.0
        return {f"normalizer.{name}": array for name, array in statistics.items()}

    def inputs(self, observation: dict[str, np.ndarray]) -> tuple[Tensor, list[Tensor]]:
        """What a network takes, on the device: features [B, F] and images [B, *shape]."""
        features = self.features.encode(observation)
        if self._normalize:
            statistics = self.statistics()
            features = Normalizer(statistics["normalizer.mean"], statistics["normalizer.var"])(features)
        return self.tensor(features), [self.tensor(image) for image in self.features.images(observation)]

    def tensor(self, array: np.ndarray) -> Tensor:
        """The array on the device; the copy to a GPU does not wait."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else tensor

    def state(self) -> dict[str, Any]:
        """Everything but the rows."""
        counts = {"env_steps": self.env_steps, "gradient_steps": self.gradient_steps}
        return counts | self.replay.state() | {f"moments.{k}": v for k, v in self._moments.state().items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`; the iterations of the window must then be recalled."""
        self.env_steps, self.gradient_steps = int(state["env_steps"]), int(state["gradient_steps"])
        self._moments.load({name: state[f"moments.{name}"] for name in self._moments.state()})
        self.replay.load(state)


def rows_at_once(policy: PolicySpec, batch_size: int) -> int:
    """How many minibatches to gather at a time: many small ones, or one of pictures."""
    row = sum(leaf.size * np.dtype(leaf.dtype).itemsize for leaf in policy.observation.leaves)
    return max(1, GATHER_BYTES // (2 * row * batch_size))
