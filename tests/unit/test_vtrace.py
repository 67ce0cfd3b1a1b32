"""V-trace against the sum of the paper's equation 1, written as slowly and plainly as possible."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from spark_rl.losses.returns import discounted_returns, gae, vtrace

T, B = 9, 5
NAMES = ("reward", "value", "next_value", "terminated", "truncated", "log_ratio")


def random_case(seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    reward, value, next_value, log_ratio = rng.standard_normal((4, T, B))
    terminated = rng.random((T, B)) < 0.15
    truncated = (rng.random((T, B)) < 0.15) & ~terminated
    ends = terminated | truncated
    next_value[:-1] = np.where(ends[:-1], next_value[:-1], value[1:])
    assert terminated[:-1].any() and truncated[:-1].any() and (log_ratio > 0).any() and (log_ratio < 0).any()
    arrays = (reward, value, next_value, terminated, truncated, 0.7 * log_ratio)
    return {name: torch.from_numpy(array) for name, array in zip(NAMES, arrays, strict=True)}


def slow(case: dict[str, torch.Tensor], *, discount: float, lam: float, rho_clip: float, c_clip: float):
    """v_s = V(x_s) + sum over t of discount^(t-s) c_s ... c_(t-1) delta_t; the advantage uses the next row's v."""
    reward, value, next_value, terminated, truncated, log_ratio = (case[name].numpy() for name in NAMES)
    target, advantage = np.zeros((T, B)), np.zeros((T, B))
    for b in range(B):
        for s in reversed(range(T)):
            total, weight = 0.0, 1.0
            for t in range(s, T):
                bootstrap = 0.0 if terminated[t, b] else discount * next_value[t, b]
                delta = min(rho_clip, np.exp(log_ratio[t, b])) * (reward[t, b] + bootstrap - value[t, b])
                total += discount ** (t - s) * weight * delta
                weight *= lam * min(c_clip, np.exp(log_ratio[t, b]))
                if terminated[t, b] or truncated[t, b]:
                    break
            target[s, b] = value[s, b] + total
            if terminated[s, b]:
                following = 0.0
            elif truncated[s, b] or s == T - 1:
                following = next_value[s, b]
            else:
                following = target[s + 1, b]
            weight = min(rho_clip, np.exp(log_ratio[s, b]))
            advantage[s, b] = weight * (reward[s, b] + discount * following - value[s, b])
    return target, advantage


@pytest.mark.parametrize(
    "keys",
    [
        {"lam": 1.0, "rho_clip": 1.0, "c_clip": 1.0},
        {"lam": 0.9, "rho_clip": 1.3, "c_clip": 0.8},
        {"lam": 0.0, "rho_clip": 10.0, "c_clip": 10.0},
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_vtrace_equals_the_papers_sum(keys: dict[str, float], seed: int) -> None:
    case = random_case(seed)
    got = vtrace(*case.values(), discount=0.9, **keys)
    for ours, theirs in zip(got, slow(case, discount=0.9, **keys), strict=True):
        assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("clip", [1.0, 2.5])
def test_on_policy_its_targets_are_n_step_returns(clip: float) -> None:
    case = random_case() | {"log_ratio": torch.zeros(T, B, dtype=torch.float64)}
    reward, value, next_value, terminated, truncated, _ = case.values()
    target, advantage = vtrace(*case.values(), discount=0.9, rho_clip=clip, c_clip=clip)
    returns = discounted_returns(reward, next_value, terminated, truncated, discount=0.9)
    assert_allclose(target, returns, atol=1e-12)
    assert_allclose(advantage, returns - value, atol=1e-12)
    lower, _ = vtrace(*case.values(), discount=0.9, lam=0.6)
    assert_allclose(lower - value, gae(reward, value, next_value, terminated, truncated, discount=0.9, lam=0.6))


def test_a_policy_that_would_never_act_so_learns_nothing() -> None:
    case = random_case() | {"log_ratio": torch.full((T, B), -200.0, dtype=torch.float64)}
    target, advantage = vtrace(*case.values(), discount=0.9)
    assert_allclose(target, case["value"], atol=1e-12)
    assert_allclose(advantage, 0.0, atol=1e-12)


@pytest.mark.parametrize(
    "bug", ["done for terminated", "no cut", "next row's value", "ratio upside down", "clips exchanged", "no ratio"]
)
def test_the_oracle_catches_planted_bugs(bug: str) -> None:
    case = random_case()
    keys = {"discount": 0.9, "lam": 1.0, "rho_clip": 1.4, "c_clip": 0.7}
    right = slow(case, **keys)
    ends = case["terminated"] | case["truncated"]
    wrong = dict(case)
    if bug == "done for terminated":
        wrong["terminated"] = ends
    elif bug == "no cut":
        wrong["truncated"] = torch.zeros_like(ends)
    elif bug == "next row's value":
        wrong["next_value"] = torch.cat([case["value"][1:], case["next_value"][-1:]])
    elif bug == "ratio upside down":
        wrong["log_ratio"] = -case["log_ratio"]
    elif bug == "clips exchanged":
        keys["rho_clip"], keys["c_clip"] = keys["c_clip"], keys["rho_clip"]
    else:
        wrong["log_ratio"] = torch.zeros_like(case["log_ratio"])
    for ours, theirs in zip(vtrace(*wrong.values(), **keys), right, strict=True):
        assert np.abs(ours.numpy() - theirs).max() > 1e-3


def test_no_gradient_and_the_dtype_of_the_rewards() -> None:
    case = {name: tensor if tensor.dtype == torch.bool else tensor.float() for name, tensor in random_case().items()}
    case["value"].requires_grad_()
    for result in vtrace(*case.values(), discount=0.9):
        assert result.dtype == torch.float32 and not result.requires_grad


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_tensor_of_another_shape_is_named(name: str) -> None:
    case = random_case()
    case[name] = case[name][:, :1]
    with pytest.raises(ValueError, match=rf"^{name} is \[9, 1\]; reward is \[9, 5\]"):
        vtrace(*case.values(), discount=0.9)
