"""The learner's machine, for algorithms of torch: device, threads, precision and determinism."""

from __future__ import annotations

import os
from typing import Any

import torch

from spark_rl.errors import UserError
from spark_rl.learner_base import BaseLearner
from spark_rl.policies.spec import PolicySpec

PRECISIONS = ("auto", "off", "bfloat16")


class Learner(BaseLearner):
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
        super().__init__(
            algorithm(
                config,
                policy,
                device=self.device,
                seed=seed,
                num_envs=num_envs,
                mixed_precision=self.mixed_precision,
            )
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
