"""What learns, as the main job sees it: an algorithm, checked numbers, and a state that fits safetensors and JSON.

Names no torch: an algorithm in numpy, such as a table, needs none, and a driver without it can run that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from spark_rl.data.batch import Batch
from spark_rl.errors import RunError
from spark_rl.policies import weights


class Algorithm(Protocol):
    """What learns: an object that turns batches into weights. Its `Config` is the section [algorithm].

    One that learns from older iterations too has a property `window`, the iterations that its next update may use, and
    `recall(batch, iteration=)`: after `load_state_dict` it is given every iteration of its window again, in order. So
    the rows are stored once, in the dataset, and not in checkpoints.
    """

    def update(self, batch: Batch, *, iteration: int, progress: float) -> dict[str, float]:
        """Learns from one iteration's rows; returns metrics named in `metrics.NAMES`."""

    def weights(self) -> dict[str, np.ndarray]:
        """What the acting side loads."""

    def state_dict(self) -> dict[str, Any]:
        """Everything the next update depends on: arrays, and scalars that JSON knows."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""


class BaseLearner:
    """An algorithm of numpy alone; `learner.Learner` puts one of torch on its device."""

    device: Any = "cpu"  # a torch.device where the algorithm is of torch

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm

    @property
    def description(self) -> dict[str, str | int]:
        """What equal bits depend on, for run.json."""
        return {"device": "cpu", "numpy": np.__version__}

    def update(self, batch: Batch, *, iteration: int, progress: float) -> dict[str, float]:
        """See Algorithm; RunError when the update gave a number that is not finite (the weights are then useless)."""
        metrics = self.algorithm.update(batch, iteration=iteration, progress=progress)
        for name, value in metrics.items():
            if not math.isfinite(value):
                rows = f"{batch.num_rows:,} rows"
                if isinstance(batch, Batch):  # executors may have made counts of it
                    rows += f" of policy versions {batch.policy_version.min()} to {batch.policy_version.max()}"
                raise RunError(
                    f"update of iteration {iteration} ({rows})",
                    f"{name} = {value}; rewards within [{batch.reward.min():g}, {batch.reward.max():g}]",
                    "finite losses and gradients",
                    "lower algorithm.learning_rate or normalise observations and returns; "
                    "the last committed iteration is intact",
                )
        return metrics

    def weights(self) -> dict[str, np.ndarray]:
        """See Algorithm."""
        return self.algorithm.weights()

    def save(self) -> tuple[bytes, str]:
        """The algorithm's state as a safetensors file and a JSON text."""
        return pack_state(self.algorithm.state_dict())

    def load(self, tensors: bytes, scalars: str, read: Callable[[int], Batch]) -> None:
        """Inverse of `save`; `read` gives a committed iteration's rows, for an algorithm that needs older ones."""
        self.algorithm.load_state_dict(unpack_state(tensors, scalars))
        for iteration in self.window:
            self.algorithm.recall(read(iteration), iteration=iteration)  # type: ignore[attr-defined]

    @property
    def window(self) -> list[int]:
        """Committed iterations that the next update may use, ascending; they must stay in the dataset."""
        return list(getattr(self.algorithm, "window", []))


def pack_state(state: Mapping[str, Any]) -> tuple[bytes, str]:
    """Splits a state into safetensors bytes (arrays and tensors) and JSON (the rest). No pickle, so loading is safe."""
    arrays: dict[str, np.ndarray] = {}
    scalars: dict[str, Any] = {}
    for name, value in state.items():
        if hasattr(value, "detach"):  # a tensor, known without importing torch
            arrays[name] = value.detach().cpu().numpy()
        elif isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            scalars[name] = value
    return weights.encode(arrays), json.dumps(scalars, sort_keys=True)


def unpack_state(tensors: bytes, scalars: str) -> dict[str, Any]:
    """Inverse of `pack_state`; every array comes back as numpy's."""
    return {**weights.decode(tensors), **json.loads(scalars)}
