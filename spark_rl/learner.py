"""The learner's machine: device, threads, precision and determinism; and a state that fits safetensors and JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from spark_rl.data.batch import Batch
from spark_rl.errors import RunError, UserError
from spark_rl.policies import weights
from spark_rl.policies.spec import PolicySpec

PRECISIONS = ("auto", "off", "bfloat16")


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


class Learner:
    """An algorithm on a device.

    `device` is "auto" (CUDA where there is one), "cpu", "cuda", "cuda:N" or "mps"; `num_threads` are torch's on the
    CPU; `mixed_precision` is "auto" (bfloat16 on CUDA devices that have it, for the CNN), "off"
    or "bfloat16". What was chosen is in `description`, because results are equal to the bit only for equal choices.
    Raises UserError for a device or precision that this machine does not have.
    """

    def __init__(
        self,
        algorithm: type[Any],
        config: Any,
        policy: PolicySpec,
        *,
        seed: int,
        num_envs: int,
        device: str = "auto",
        num_threads: int = 1,
        mixed_precision: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        torch.set_num_threads(num_threads)
        deterministic(self.device)
        self.mixed_precision = resolve_precision(mixed_precision, self.device, policy)
        self.algorithm: Algorithm = algorithm(
            config,
            policy,
            device=self.device,
            seed=seed,
            num_envs=num_envs,
            mixed_precision=self.mixed_precision,
        )

    @property
    def description(self) -> dict[str, str | int]:
        """What equal bits depend on, for run.json."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {
            "device": name,
            "num_threads": torch.get_num_threads(),
            "mixed_precision": "bfloat16" if self.mixed_precision else "off",
            "torch": torch.__version__,
        }

    def update(self, batch: Batch, *, iteration: int, progress: float) -> dict[str, float]:
        """See Algorithm; RunError when the update gave a number that is not finite (the weights are then useless)."""
        metrics = self.algorithm.update(batch, iteration=iteration, progress=progress)
        for name, value in metrics.items():
            if not math.isfinite(value):
                versions = f"{batch.policy_version.min()} to {batch.policy_version.max()}"
                raise RunError(
                    f"update of iteration {iteration} ({batch.num_rows:,} rows of policy versions {versions})",
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


def resolve_device(name: str) -> torch.device:
    """The torch device of a config's name."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError("learner.device", repr(name), "'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'", "choose one of these")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            "learner.device",
            repr(name),
            f"one of the {torch.cuda.device_count()} CUDA devices that torch sees",
            "use device = 'auto'",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("learner.device", "'mps'", "a Mac whose GPU torch sees", "use device = 'auto'")
    return device


def resolve_precision(name: str, device: torch.device, policy: PolicySpec) -> bool:
    """Whether forward passes run under bfloat16 autocast. An MLP is bound by dispatch, so auto leaves it alone."""
    if name not in PRECISIONS:
        raise UserError("learner.mixed_precision", repr(name), f"one of {', '.join(PRECISIONS)}", "choose one of these")
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if name == "bfloat16" and not able:
        raise UserError("learner.mixed_precision", repr(name), "a CUDA device with bfloat16", "use 'auto' or 'off'")
    return name != "off" and able and policy.network != "mlp"


def deterministic(device: torch.device) -> None:
    """Equal inputs give equal bits: no kernel that races on sums, and no choice of kernel by a stopwatch."""
    if device.type == "cuda":
        # cuBLAS gives equal bits only with a fixed workspace, and reads this when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)


def pack_state(state: Mapping[str, Any]) -> tuple[bytes, str]:
    """Splits a state into safetensors bytes (arrays and tensors) and JSON (the rest). No pickle, so loading is safe."""
    arrays: dict[str, np.ndarray] = {}
    scalars: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            arrays[name] = value.detach().cpu().numpy()
        elif isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            scalars[name] = value
    return weights.encode(arrays), json.dumps(scalars, sort_keys=True)


def unpack_state(tensors: bytes, scalars: str) -> dict[str, Any]:
    """Inverse of `pack_state`; every array comes back as numpy's."""
    return {**weights.decode(tensors), **json.loads(scalars)}
