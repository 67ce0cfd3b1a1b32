"""The losses against loops over rows, and every closed-form slope against autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from spark_rl.losses.policy_gradient import (
    approx_kl,
    clip_fraction,
    clipped_surrogate,
    clipped_surrogate_slope,
    normalize_advantage,
)
from spark_rl.losses.value import (
    clipped_squared_error,
    clipped_squared_error_slope,
    mean_squared_error,
    mean_squared_error_slope,
)

N = 200
CLIP = 0.2


def random_rows(count: int) -> list[torch.Tensor]:
    return list(torch.from_numpy(np.random.default_rng(0).standard_normal((count, N))).unbind(0))


def surrogate_by_row(log_ratio: torch.Tensor, advantage: torch.Tensor, clip: float) -> float:
    total = 0.0
    for x, a in zip(log_ratio.tolist(), advantage.tolist(), strict=True):
        ratio = math.exp(x)
        total += min(ratio * a, max(1 - clip, min(1 + clip, ratio)) * a)
    return -total / len(log_ratio)


def test_surrogate_equals_the_loop() -> None:
    log_ratio, advantage = random_rows(2)
    moved = (log_ratio.exp() - 1.0).abs() > CLIP
    assert (moved & (advantage > 0)).any() and (moved & (advantage < 0)).any()
    got = clipped_surrogate(log_ratio, advantage, clip=CLIP).item()
    assert got == pytest.approx(surrogate_by_row(log_ratio, advantage, CLIP), abs=1e-12)
    # Planted bugs: the ratio upside down, the loss's sign, the optimistic bound.
    assert abs(surrogate_by_row(-log_ratio, advantage, CLIP) - got) > 1e-3
    assert abs(surrogate_by_row(log_ratio, -advantage, CLIP) - got) > 1e-3
    ratio = log_ratio.exp()
    optimistic = -torch.maximum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
    assert abs(optimistic.item() - got) > 1e-3


def test_a_row_that_went_far_enough_adds_no_gradient_and_one_that_went_wrong_does() -> None:
    log_ratio = torch.tensor([0.5, 0.5, -0.5, -0.5], requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0])
    clipped_surrogate(log_ratio, advantage, clip=CLIP).backward()
    slope = log_ratio.grad
    assert slope is not None
    assert slope[0] == 0.0 and slope[3] == 0.0  # rewarded already
    assert slope[1] > 0.0 and slope[2] < 0.0  # to be taken back


def test_surrogate_slope_is_autograds() -> None:
    log_ratio, advantage = random_rows(2)
    log_ratio[:5] = 0.0  # the first minibatch starts at ratio one, where both bounds meet
    log_ratio.requires_grad_()
    clipped_surrogate(log_ratio, advantage, clip=CLIP).backward()
    assert_allclose(clipped_surrogate_slope(log_ratio.detach(), advantage, clip=CLIP), log_ratio.grad, atol=1e-14)


def test_approx_kl_is_unbiased_and_never_negative() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.2, 0.3])
    exact = (p * (p / q).log()).sum().item()
    draws = torch.from_numpy(np.random.default_rng(1).choice(3, size=200_000, p=[0.7, 0.2, 0.1]))
    got = approx_kl((q / p).log()[draws]).item()
    assert got == pytest.approx(exact, rel=0.02)
    assert abs(approx_kl((p / q).log()[draws]).item() - exact) > 0.02  # the ratio upside down
    assert approx_kl(torch.randn(1, generator=torch.Generator().manual_seed(0))).item() >= 0.0


def test_clip_fraction_counts_both_sides() -> None:
    log_ratio = torch.tensor([1.3, 1.1, 0.9, 0.7]).log()
    assert clip_fraction(log_ratio, clip=CLIP).item() == 0.5


def test_normalized_advantages_have_mean_zero_and_deviation_one_in_every_minibatch() -> None:
    advantage = torch.from_numpy(np.random.default_rng(2).standard_normal((4, 50)) * 7.0 + 3.0)
    got = normalize_advantage(advantage)
    assert_allclose(got.mean(1), 0.0, atol=1e-12)
    assert_allclose(got.std(1), 1.0, atol=1e-6)
    assert normalize_advantage(torch.tensor([5.0])).item() == 0.0
    assert torch.isfinite(normalize_advantage(torch.full((3,), 2.0))).all()


def test_value_losses_equal_the_loop() -> None:
    value, target, old = random_rows(3)
    plain = sum((v - g) ** 2 for v, g in zip(value.tolist(), target.tolist(), strict=True)) / N
    assert mean_squared_error(value, target).item() == pytest.approx(plain, abs=1e-12)
    total = 0.0
    for v, g, o in zip(value.tolist(), target.tolist(), old.tolist(), strict=True):
        held = o + max(-CLIP, min(CLIP, v - o))
        total += max((v - g) ** 2, (held - g) ** 2)
    assert clipped_squared_error(value, target, old, clip=CLIP).item() == pytest.approx(total / N, abs=1e-12)


def test_value_slopes_are_autograds_and_the_target_gets_none() -> None:
    value, target, old = (rows.float() for rows in random_rows(3))
    value[: N // 2] = (
        old[: N // 2] + 0.1 * value[: N // 2]
    )  # within the clip, where both errors differ by rounding only
    value.requires_grad_()
    target.requires_grad_()
    mean_squared_error(value, target).backward()
    assert target.grad is None
    assert_allclose(mean_squared_error_slope(value.detach(), target.detach()), value.grad, atol=1e-7)
    value.grad = None
    clipped_squared_error(value, target, old, clip=CLIP).backward()
    got = clipped_squared_error_slope(value.detach(), target.detach(), old, clip=CLIP)
    assert (got == 0.0).any() and (got != 0.0).any()
    assert_allclose(got, value.grad, atol=1e-7)


def test_values_of_another_shape_are_refused_and_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"^value is \[4, 1\]; target is \[4\]"):
        mean_squared_error(torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(ValueError, match=r"old_value \[4, 1\]"):
        clipped_squared_error(torch.zeros(4), torch.zeros(4), torch.zeros(4, 1), clip=CLIP)
