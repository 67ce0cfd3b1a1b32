"""Targets and losses of action values against loops, their slopes against autograd, and planted bugs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from spark_rl.losses.q_learning import (
    cross_entropy,
    cross_entropy_slope,
    huber_loss,
    huber_slope,
    of_action,
    project,
    quantile_huber,
    quantile_huber_slope,
    td_target,
)

N, A, K = 40, 3, 7


def case(seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows that end, rows that are truncated and rows in between; errors on both sides of the Huber threshold."""
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random(N) < 0.3, rng.random(N) < 0.3
    assert (terminated & ~truncated).any() and (truncated & ~terminated).any() and (~terminated & ~truncated).any()
    made = {
        "reward": 2.0 * rng.standard_normal(N),
        "bootstrap": np.where(terminated, 0.0, 0.9 ** rng.integers(1, 4, N)),
        "value": 2.0 * rng.standard_normal(N),
        "next_value": rng.standard_normal(N),
        "weight": rng.random(N) + 0.1,
        "logits": rng.standard_normal((N, K)),
        "target": 2.0 * rng.standard_normal((N, 5)),
        "terminated": terminated,
    }
    made["next_prob"] = rng.dirichlet(np.ones(K), N)
    return {name: torch.from_numpy(np.asarray(values)) for name, values in made.items()}


def slow_project(reward: float, bootstrap: float, next_prob: list[float], support: list[float]) -> list[float]:
    """Mass by mass, distance by distance."""
    result = [0.0] * len(support)
    for prob, atom in zip(next_prob, support, strict=True):
        moved = min(max(reward + bootstrap * atom, support[0]), support[-1])
        for k, place in enumerate(support):
            gap = support[1] - support[0]
            result[k] += prob * max(0.0, 1.0 - abs(moved - place) / gap)
    return result


def slow_quantile(quantile: list[float], target: list[float]) -> float:
    total = 0.0
    for k, estimate in enumerate(quantile):
        tau = (k + 0.5) / len(quantile)
        for sample in target:
            error = sample - estimate
            huber = 0.5 * error * error if abs(error) <= 1.0 else abs(error) - 0.5
            total += (1.0 - tau if error < 0.0 else tau) * huber / len(target)
    return total


def test_targets_stop_at_ends_and_go_on_after_time_limits() -> None:
    c = case()
    got = td_target(c["reward"], c["bootstrap"], c["next_value"])
    for i in range(N):
        want = float(c["reward"][i]) + (0.0 if c["terminated"][i] else float(c["bootstrap"][i] * c["next_value"][i]))
        assert got[i] == pytest.approx(want)


def test_values_of_actions_are_picked_row_by_row() -> None:
    values = torch.arange(N * A * 2.0).view(N, A, 2)
    action = torch.from_numpy(np.random.default_rng(0).integers(0, A, N))
    assert_allclose(of_action(values, action), [values[i, action[i]].tolist() for i in range(N)])


def test_huber_equals_the_loop() -> None:
    c = case()
    total = 0.0
    for v, t, w in zip(c["value"].tolist(), c["next_value"].tolist(), c["weight"].tolist(), strict=True):
        total += w * (0.5 * (v - t) ** 2 if abs(v - t) <= 1.0 else abs(v - t) - 0.5) / N
    assert huber_loss(c["value"], c["next_value"], c["weight"]).item() == pytest.approx(total)
    with pytest.raises(ValueError, match="weight"):
        huber_loss(c["value"], c["next_value"], torch.ones(N, 1))


@pytest.mark.parametrize("limits", [(-3.0, 3.0), (-0.5, 0.5), (0.0, 200.0), (-1e-3, 1e-3)])
def test_the_projection_equals_the_loop(limits: tuple[float, float]) -> None:
    c = case()
    support = torch.linspace(*limits, K, dtype=torch.float64)
    got = project(c["reward"], c["bootstrap"], c["next_prob"], support)
    for i in range(N):
        want = slow_project(
            float(c["reward"][i]), float(c["bootstrap"][i]), c["next_prob"][i].tolist(), support.tolist()
        )
        assert_allclose(got[i], want, atol=1e-9)
    assert_allclose(got.sum(1), 1.0, atol=1e-12)


def test_the_projection_at_its_edges() -> None:
    support = torch.linspace(-1.0, 1.0, 5)
    certain = torch.eye(5)

    def moved(reward: float, bootstrap: float) -> list[list[float]]:
        return project(torch.full((5,), reward), torch.full((5,), bootstrap), certain, support).tolist()

    assert moved(0.0, 1.0) == certain.tolist()  # every atom lands on itself exactly, the last one too
    assert moved(5.0, 1.0) == [[0, 0, 0, 0, 1]] * 5  # above the support
    assert moved(-5.0, 1.0) == [[1, 0, 0, 0, 0]] * 5  # below
    assert moved(0.25, 0.0) == [[0, 0, 0.5, 0.5, 0]] * 5  # a real end: half-way between two atoms
    assert moved(0.5, 1.0)[3] == moved(0.5, 1.0)[4] == [0, 0, 0, 0, 1]


def test_the_projection_keeps_the_mean_while_nothing_is_cut_off() -> None:
    c = case()
    support = torch.linspace(-30.0, 30.0, K, dtype=torch.float64)
    want = c["reward"] + c["bootstrap"] * (c["next_prob"] @ support) * 0.5
    assert_allclose(project(c["reward"], 0.5 * c["bootstrap"], c["next_prob"], support) @ support, want, atol=1e-9)


@pytest.mark.parametrize("bug", ["lost at integers", "no clamp", "shares exchanged"])
def test_the_loop_catches_the_classic_projection_bugs(bug: str) -> None:
    c = case()
    support = torch.linspace(-3.0, 3.0, K, dtype=torch.float64)
    reward = torch.where(c["terminated"], torch.round(c["reward"]), c["reward"])  # some land on atoms exactly
    right = project(reward, c["bootstrap"], c["next_prob"], support)
    position = (reward[:, None] + c["bootstrap"][:, None] * support).clamp(-3.0, 3.0) + 3.0
    low, high = position.floor().long(), position.ceil().long()
    up, down = (position - low) * c["next_prob"], (high - position) * c["next_prob"]
    if bug == "shares exchanged":
        up, down = down, up
    wrong = torch.zeros_like(right)
    if bug == "no clamp":
        high = (low + 1) % K
    wrong.scatter_add_(1, low, down).scatter_add_(1, high, up)
    want = [
        slow_project(float(r), float(b), p.tolist(), support.tolist())
        for r, b, p in zip(reward, c["bootstrap"], c["next_prob"], strict=True)
    ]
    assert_allclose(right, want, atol=1e-9)
    assert np.abs(wrong.numpy() - want).max() > 0.01


def test_cross_entropy_equals_the_loop() -> None:
    c = case()
    loss, row = cross_entropy(c["logits"], c["next_prob"], c["weight"])
    for i in range(N):
        total = sum(math.exp(x) for x in c["logits"][i].tolist())
        log_prob = [x - math.log(total) for x in c["logits"][i].tolist()]
        want = -sum(p * q for p, q in zip(c["next_prob"][i].tolist(), log_prob, strict=True))
        assert row[i].item() == pytest.approx(want)
    assert loss.item() == pytest.approx(float((c["weight"] * row).sum()) / N)


def test_quantile_regression_equals_the_loop() -> None:
    c = case()
    loss, row = quantile_huber(c["logits"], c["target"], c["weight"])
    want = [slow_quantile(q, t) for q, t in zip(c["logits"].tolist(), c["target"].tolist(), strict=True)]
    assert_allclose(row, want, rtol=1e-9)
    assert loss.item() == pytest.approx(float(np.mean(c["weight"].numpy() * want)))
    swapped = [slow_quantile(q[::-1], t) for q, t in zip(c["logits"].tolist(), c["target"].tolist(), strict=True)]
    assert np.abs(np.asarray(swapped) - want).max() > 0.1, "the order of the quantiles must matter"


def test_quantile_regression_finds_the_quantiles() -> None:
    samples = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 4001)) * 50.0)
    estimate = torch.zeros(1, 4, dtype=torch.float64)
    for _ in range(4000):
        estimate -= 2.0 * quantile_huber_slope(estimate, samples, torch.ones(1, dtype=torch.float64))
    want = np.quantile(samples.numpy(), [0.125, 0.375, 0.625, 0.875])
    assert_allclose(estimate[0], want, atol=1.5)  # a threshold of 1 against a deviation of 50


@pytest.mark.parametrize("name", ["huber", "cross entropy", "quantile"])
def test_slopes_equal_autograd(name: str) -> None:
    c = case()
    x = (c["value"] if name == "huber" else c["logits"]).clone().requires_grad_()
    if name == "huber":
        loss, slope = huber_loss(x, c["next_value"], c["weight"]), huber_slope(c["value"], c["next_value"], c["weight"])
    elif name == "cross entropy":
        loss = cross_entropy(x, c["next_prob"], c["weight"])[0]
        slope = cross_entropy_slope(c["logits"], c["next_prob"], c["weight"])
    else:
        loss = quantile_huber(x, c["target"], c["weight"])[0]
        slope = quantile_huber_slope(c["logits"], c["target"], c["weight"])
    (want,) = torch.autograd.grad(loss, x)
    assert want.abs().max() > 1e-3
    assert_allclose(slope, want, atol=1e-12)
