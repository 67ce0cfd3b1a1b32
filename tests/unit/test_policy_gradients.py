"""A2C, REINFORCE and IMPALA: one step on all rows, against the same step with lists, loops and autograd."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from spark_rl.algorithms.a2c import A2C
from spark_rl.algorithms.impala import IMPALA
from spark_rl.algorithms.policy_gradient import PolicyGradient
from spark_rl.algorithms.reinforce import Reinforce
from spark_rl.algorithms.rmsprop import FlatRMSprop
from spark_rl.data.batch import Batch
from spark_rl.losses.policy_gradient import policy_gradient, policy_gradient_slope
from spark_rl.policies import weights
from spark_rl.policies.load import load_acting
from spark_rl.policies.spec import PolicySpec
from spark_rl.schema.spaces import Leaf, SpaceSpec

VECTOR = SpaceSpec((Leaf("", "box", "float32", (3,), low=(-1.0,), high=(1.0,)),))
DISCRETE = SpaceSpec((Leaf("", "discrete", "int64", (), n=(3,), start=(0,)),))
SPEC = PolicySpec(observation=VECTOR, action=DISCRETE, hidden=(6,))
LENGTHS = [9, 12, 7]
DISCOUNT = 0.9
EPS = 1e-2


def make(kind: type[PolicyGradient], **keys: Any) -> Any:
    # Adam's first step is the gradient's sign but for an epsilon, and the sign of a tiny gradient is rounding.
    own = {"adam_eps": EPS} if kind is Reinforce else {"rmsprop_eps": EPS**2}
    config = kind.Config(**{"discount": DISCOUNT, "learning_rate": 0.01, "entropy_coef": 0.02, **own, **keys})
    return kind(config, SPEC, device="cpu", seed=1, num_envs=len(LENGTHS))


def make_batch(acting: dict[str, np.ndarray], seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    n, env_index = sum(LENGTHS), np.repeat(np.arange(3, dtype=np.int32), LENGTHS)
    terminated = rng.random(n) < 0.15
    truncated = (rng.random(n) < 0.15) & ~terminated
    edge = np.append(np.diff(env_index) > 0, True)
    last = terminated | truncated | edge
    assert terminated.any() and truncated.any() and (edge & ~terminated & ~truncated).any()
    observation = {"": rng.standard_normal((n, 3)).astype(np.float32)}
    act = load_acting(SPEC, weights.encode(acting)).act(observation, None, rng)
    return Batch(
        observation=observation, action=act.action, raw_action=None, reward=rng.standard_normal(n) * 2,
        terminated=terminated, truncated=truncated, action_log_prob=act.log_prob, policy_version=np.zeros(n, np.int64),
        episode_id=np.zeros(n, np.int64), t=np.zeros(n, np.int32), env_index=env_index,
        last_row=np.flatnonzero(last), final_observation={"": rng.standard_normal((last.sum(), 3)).astype(np.float32)},
    )  # fmt: skip


class Slow:
    """Values, log-probabilities and one step, row by row."""

    def __init__(self, learner: Any, batch: Batch) -> None:
        self.batch, self.config = batch, learner.config
        self.named = {name: torch.from_numpy(w).requires_grad_() for name, w in learner.weights().items()}
        self.observation = torch.from_numpy(batch.observation[""])
        self.value = self.tower("critic", self.observation)[:, 0]
        final = self.tower("critic", torch.from_numpy(batch.final_observation[""]))[:, 0].tolist()
        self.final = dict(zip(batch.last_row.tolist(), final, strict=True))
        self.peer = torch.distributions.Categorical(logits=self.tower("actor", self.observation))
        self.log_prob = self.peer.log_prob(torch.from_numpy(batch.action))

    def tower(self, name: str, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(x @ self.named[f"{name}.0.weight"].T + self.named[f"{name}.0.bias"])
        return x @ self.named[f"{name}.head.weight"].T + self.named[f"{name}.head.bias"]

    def n_step(self, i: int) -> float:
        """Rewards to the end of the episode or of the fragment, then the value of the successor."""
        total, scale = 0.0, 1.0
        while True:
            total += scale * self.batch.reward[i]
            scale *= DISCOUNT
            if self.batch.terminated[i]:
                return total
            if i in self.final:
                return total + scale * self.final[i]
            i += 1

    def monte_carlo(self, i: int) -> float | None:
        """Rewards to the end of the episode; None where the fragment does not see it."""
        total, scale = 0.0, 1.0
        while True:
            total += scale * self.batch.reward[i]
            scale *= DISCOUNT
            if self.batch.terminated[i] or self.batch.truncated[i]:
                return total
            if i in self.final:
                return None
            i += 1

    def traced(self, i: int) -> tuple[float, float]:
        """V-trace's target and advantage, by the recursion of remark 1."""
        ratio = float((self.log_prob[i].detach() - self.batch.action_log_prob[i]).exp())
        value = self.value[i].item()
        clipped = min(1.0, ratio)
        if i in self.final:
            after = 0.0 if self.batch.terminated[i] else DISCOUNT * self.final[i]
            advantage = clipped * (self.batch.reward[i] + after - value)
            return value + advantage, advantage
        target, following = self.traced(i + 1)[0], self.value[i + 1].item()
        delta = clipped * (self.batch.reward[i] + DISCOUNT * following - value)
        advantage = clipped * (self.batch.reward[i] + DISCOUNT * target - value)
        return value + delta + DISCOUNT * clipped * (target - following), advantage

    def step(self, advantage: list[float], target: list[float] | None, optimizer: str) -> dict[str, np.ndarray]:
        loss = -(self.log_prob * torch.tensor(advantage)).mean()
        loss = loss - self.config.entropy_coef * self.peer.entropy().mean()
        if target is not None:
            loss = loss + self.config.value_coef * (self.value - torch.tensor(target)).square().mean()
        loss.backward()
        gradient = {name: w.grad if w.grad is not None else torch.zeros_like(w) for name, w in self.named.items()}
        norm = torch.sqrt(sum(g.square().sum() for g in gradient.values()))
        scale = min(1.0, self.config.max_grad_norm / float(norm))
        result = {}
        for name, w in self.named.items():
            g = gradient[name] * scale
            # From nothing, both optimizers' first steps are closed forms.
            move = g / (g.abs() + EPS) if optimizer == "adam" else g / torch.sqrt(0.01 * g.square() + EPS**2)
            result[name] = (w - self.config.learning_rate * move).detach().numpy()
        return result


def compare(learner: Any, want: dict[str, np.ndarray]) -> None:
    for name, got in learner.weights().items():
        assert_allclose(got, want[name], atol=1e-4, err_msg=name)


def distance(learner: Any, want: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(got - want[name]).max()) for name, got in learner.weights().items())


def slow_a2c(learner: Any, batch: Batch) -> dict[str, np.ndarray]:
    slow = Slow(learner, batch)
    returns = [slow.n_step(i) for i in range(batch.num_rows)]
    return slow.step([r - v for r, v in zip(returns, slow.value.tolist(), strict=True)], returns, "rmsprop")


def slow_impala(learner: Any, batch: Batch) -> dict[str, np.ndarray]:
    slow = Slow(learner, batch)
    pairs = [slow.traced(i) for i in range(batch.num_rows)]
    return slow.step([advantage for _, advantage in pairs], [target for target, _ in pairs], "rmsprop")


def slow_reinforce(learner: Any, batch: Batch) -> dict[str, np.ndarray]:
    slow = Slow(learner, batch)
    if learner.config.baseline:
        returns = [slow.n_step(i) for i in range(batch.num_rows)]
        advantage = np.array(returns) - np.array(slow.value.tolist())
        if learner.config.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-8)
        return slow.step(advantage.tolist(), returns, "adam")
    found = [slow.monte_carlo(i) for i in range(batch.num_rows)]
    known = np.array([r for r in found if r is not None])
    assert 0 < len(known) < batch.num_rows
    mean, std = (known.mean(), known.std(ddof=1) + 1e-8) if learner.config.normalize_advantage else (0.0, 1.0)
    return slow.step([0.0 if r is None else (r - mean) / std for r in found], None, "adam")


@pytest.mark.parametrize(
    ("kind", "oracle", "keys"),
    [
        (A2C, slow_a2c, {}),
        (A2C, slow_a2c, {"entropy_coef": 0.0, "value_coef": 0.2, "max_grad_norm": 0.01}),
        (Reinforce, slow_reinforce, {}),
        (Reinforce, slow_reinforce, {"normalize_advantage": False}),
        (Reinforce, slow_reinforce, {"baseline": False}),
        (Reinforce, slow_reinforce, {"baseline": False, "normalize_advantage": False}),
        (IMPALA, slow_impala, {}),
    ],
)
def test_update_equals_a_slow_one(kind: Any, oracle: Any, keys: dict[str, Any]) -> None:
    learner = make(kind, **keys)
    acting = make(kind, **keys)
    rng = np.random.default_rng(5)
    # Rows of another version, so that ratios count where they should and only there.
    acting.network.load_weights({n: w + 0.5 * rng.standard_normal(w.shape).astype(np.float32)
                                 for n, w in acting.weights().items()})  # fmt: skip
    batch = make_batch(acting.weights())
    want, before = oracle(learner, batch), learner.weights()
    learner.update(batch, iteration=0, progress=0.0)
    compare(learner, want)
    assert distance(learner, before) > 1e-3
    if not keys.get("baseline", True):
        assert_array_equal(learner.weights()["critic.0.weight"], before["critic.0.weight"])


@pytest.mark.parametrize(
    ("kind", "oracle", "keys"),
    [(A2C, slow_a2c, {}), (IMPALA, slow_impala, {}), (Reinforce, slow_reinforce, {"baseline": False})],
)
@pytest.mark.parametrize("bug", ["done for terminated", "off by one", "log-probability of another row"])
def test_the_slow_update_catches_planted_bugs(kind: Any, oracle: Any, keys: dict[str, Any], bug: str) -> None:
    learner = make(kind, **keys)
    batch = make_batch(learner.weights())
    want = oracle(learner, batch)
    ends = batch.terminated | batch.truncated
    wrong = {
        "done for terminated": {"terminated": np.zeros_like(ends), "truncated": np.zeros_like(ends)},
        "off by one": {"reward": np.roll(batch.reward, 1)},
        "log-probability of another row": {"action_log_prob": np.roll(batch.action_log_prob, 1) + 1.0},
    }[bug]
    learner.update(dataclasses.replace(batch, **wrong), iteration=0, progress=0.0)
    ignores_it = bug.startswith("log-probability") and kind is not IMPALA
    assert (distance(learner, want) < 1e-4) == ignores_it


def test_on_policy_impala_is_a2c() -> None:
    a2c, impala = make(A2C), make(IMPALA)
    batch = make_batch(a2c.weights())
    for learner in (a2c, impala):
        learner.update(batch, iteration=0, progress=0.0)
    compare(a2c, impala.weights())


def test_the_loss_has_the_slope_that_autograd_gives() -> None:
    log_prob, advantage = torch.randn(7, requires_grad=True), torch.randn(7)
    policy_gradient(log_prob, advantage).backward()
    assert_allclose(policy_gradient_slope(advantage), log_prob.grad, rtol=1e-6)


def test_rmsprop_is_the_published_recurrence_and_resumes() -> None:
    rng = np.random.default_rng(0)
    x, square = rng.standard_normal(5), np.zeros(5)
    flat = torch.from_numpy(x.copy())
    optimizer = FlatRMSprop(flat, decay=0.9, eps=1e-3)
    for i in range(6):
        gradient = rng.standard_normal(5)
        square = 0.9 * square + 0.1 * gradient**2
        x = x - 0.1 * gradient / np.sqrt(square + 1e-3)
        if i == 3:
            saved = optimizer.state()
            optimizer = FlatRMSprop(flat, decay=0.9, eps=1e-3)
            optimizer.load(saved)
        optimizer.step(torch.from_numpy(gradient), learning_rate=0.1)
        assert_allclose(flat, x, atol=1e-12)
