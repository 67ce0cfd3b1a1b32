"""Losses of state-value functions. N rows; values and targets share one (possibly scaled) reward unit."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_squared_error(value: Tensor, target: Tensor) -> Tensor:
    """Mean of (value - target)^2: [N], [N] -> []; the gradient reaches `value` only.

    Raises ValueError when the shapes differ, because [N, 1] against [N] would broadcast to N^2 errors.
    """
    if value.shape != target.shape:
        raise ValueError(f"value is {list(value.shape)}; target is {list(target.shape)} and both must agree")
    return (value - target.detach()).square().mean()


def clipped_squared_error(value: Tensor, target: Tensor, old_value: Tensor, *, clip: float) -> Tensor:
    """Squared error that forgets progress beyond `clip` from the value before the update: 3 x [N] -> [].

    The worse of the error of `value` and of `value` held within `clip` (reward units) of `old_value`.
    Source: the original PPO code, openai/baselines ppo2; Engstrom et al. 2020, arXiv:2005.12729, section 3.
    """
    if value.shape != target.shape or old_value.shape != target.shape:
        raise ValueError(
            f"value is {list(value.shape)}, old_value {list(old_value.shape)}; target is {list(target.shape)} "
            "and all must agree"
        )
    held = old_value + (value - old_value).clamp(-clip, clip)
    goal = target.detach()
    return torch.maximum((value - goal).square(), (held - goal).square()).mean()


def mean_squared_error_slope(value: Tensor, target: Tensor) -> Tensor:
    """Derivative of `mean_squared_error` with respect to each value: [N], [N] -> [N]."""
    return (value - target).mul_(2.0 / len(value))


def clipped_squared_error_slope(value: Tensor, target: Tensor, old_value: Tensor, *, clip: float) -> Tensor:
    """Derivative of `clipped_squared_error` with respect to each value: 3 x [N] -> [N]."""
    error = value - target
    moved = value - old_value
    held = old_value + moved.clamp(-clip, clip) - target
    # Beyond the clip, and only there, the held error may be the worse one, and then the value moves nothing. Within,
    # both errors are the same but for rounding, which must not decide.
    counts = (moved.abs() <= clip) | (error.square() >= held.square())
    return torch.where(counts, error, 0.0).mul_(2.0 / len(value))
