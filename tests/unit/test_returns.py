"""Advantages and returns against the definition, written as slowly and plainly as possible."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from spark_rl.losses.returns import discounted_returns, gae

T, B = 9, 5


def random_case(seed: int = 0) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.standard_normal((3, T, B))
    terminated = rng.random((T, B)) < 0.15
    truncated = (rng.random((T, B)) < 0.15) & ~terminated
    ends = terminated | truncated
    # Inside an episode the successor's value is the next row's.
    next_value[:-1] = np.where(ends[:-1], next_value[:-1], value[1:])
    assert terminated[:-1].any() and truncated[:-1].any(), (
        "the case must contain both kinds of end before the last step"
    )
    return [torch.from_numpy(array) for array in (reward, value, next_value, terminated, truncated)]


def double_sum(reward, value, next_value, terminated, truncated, discount, lam):
    """A_t = sum over k of (discount * lam)^k delta_{t+k}, up to and including the first end."""
    reward, value, next_value, terminated, truncated = (
        array.numpy() for array in (reward, value, next_value, terminated, truncated)
    )
    result = np.zeros((T, B))
    for b in range(B):
        for t in range(T):
            for k in range(T - t):
                s = t + k
                bootstrap = 0.0 if terminated[s, b] else discount * next_value[s, b]
                result[t, b] += (discount * lam) ** k * (reward[s, b] + bootstrap - value[s, b])
                if terminated[s, b] or truncated[s, b]:
                    break
    return result


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_gae_equals_the_double_sum(lam: float, seed: int) -> None:
    case = random_case(seed)
    assert_allclose(gae(*case, discount=0.9, lam=lam), double_sum(*case, 0.9, lam), atol=1e-12)


def test_gae_in_float32_stays_float32_and_without_gradient() -> None:
    reward, value, next_value, terminated, truncated = random_case()
    value = value.float().requires_grad_()
    result = gae(reward.float(), value, next_value.float(), terminated, truncated, discount=0.9, lam=0.95)
    assert result.dtype == torch.float32
    assert not result.requires_grad


def test_nothing_after_an_end_leaks_back() -> None:
    reward, value, next_value, terminated, truncated = random_case()
    ends = terminated | truncated
    before = gae(reward, value, next_value, terminated, truncated, discount=0.9, lam=0.95)
    for b in range(B):
        for t in np.flatnonzero(ends[:-1, b].numpy()):
            later = reward.clone()
            later[t + 1 :, b] += 100.0
            after = gae(later, value, next_value, terminated, truncated, discount=0.9, lam=0.95)
            assert torch.equal(after[: t + 1, b], before[: t + 1, b])
            assert not torch.equal(after[t + 1 :, b], before[t + 1 :, b])


@pytest.mark.parametrize(
    "bug", ["done for terminated", "no bootstrap at the fragment's end", "next row's value", "no cut"]
)
def test_the_oracle_catches_the_usual_bugs(bug: str) -> None:
    reward, value, next_value, terminated, truncated = random_case()
    wrong_next, wrong_terminated, wrong_truncated = next_value.clone(), terminated, truncated
    if bug == "done for terminated":
        wrong_terminated = terminated | truncated
    elif bug == "no bootstrap at the fragment's end":
        wrong_next[-1] = 0.0
    elif bug == "next row's value":  # off by one at an end: the value of the reset observation
        wrong_next[:-1] = value[1:]
    else:
        wrong_truncated = torch.zeros_like(truncated)
    got = gae(reward, value, wrong_next, wrong_terminated, wrong_truncated, discount=0.9, lam=0.95)
    right = double_sum(reward, value, next_value, terminated, truncated, 0.9, 0.95)
    assert np.abs(got.numpy() - right).max() > 1e-3


@pytest.mark.parametrize("name", ["value", "next_value", "terminated", "truncated"])
def test_gae_names_the_tensor_of_another_shape(name: str) -> None:
    names = ("reward", "value", "next_value", "terminated", "truncated")
    case = dict(zip(names, random_case(), strict=True))
    case[name] = case[name][:, :1]  # would broadcast without the check
    with pytest.raises(ValueError, match=rf"^{name} is \[9, 1\]; reward is \[9, 5\]"):
        gae(*case.values(), discount=0.9, lam=0.95)


def test_returns_are_gae_with_lambda_one_plus_the_value() -> None:
    case = random_case()
    reward, value, next_value, terminated, truncated = case
    got = discounted_returns(reward, next_value, terminated, truncated, discount=0.9)
    assert_allclose(got, double_sum(*case, 0.9, 1.0) + value.numpy(), atol=1e-12)
    with pytest.raises(ValueError, match="^next_value is"):
        discounted_returns(reward, next_value[:1], terminated, truncated, discount=0.9)
