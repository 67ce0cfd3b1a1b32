"""The update as a whole: against a slow one in plain autograd, to the bit against itself, and on what it must keep."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError

from spark_rl import metrics, seeding
from spark_rl.algorithms.adam import FlatAdam
from spark_rl.algorithms.normalizers import RewardScaler, RunningMoments
from spark_rl.algorithms.ppo import PPO
from spark_rl.algorithms.ppo_config import PPOConfig
from spark_rl.data.batch import Batch
from spark_rl.data.sequences import fragments
from spark_rl.policies import weights
from spark_rl.policies.load import load_acting
from spark_rl.policies.spec import PolicySpec
from spark_rl.schema.spaces import Leaf, SpaceSpec

NUM_ENVS = 4
VECTOR = SpaceSpec((Leaf("", "box", "float32", (3,), low=(-1.0,), high=(1.0,)),))
MIXED = SpaceSpec((*VECTOR.leaves, Leaf("gear", "discrete", "int64", (), n=(3,), start=(0,))), structure="dict")
IMAGE = SpaceSpec((Leaf("", "box", "uint8", (36, 36, 1), low=(0.0,), high=(255.0,)),))
DISCRETE = SpaceSpec((Leaf("", "discrete", "int64", (), n=(3,), start=(0,)),))
MULTI = SpaceSpec((Leaf("", "multi_discrete", "int64", (2,), n=(2, 3), start=(0, 0)),))
BOX = SpaceSpec((Leaf("", "box", "float32", (2,), low=(-1.0,), high=(1.0,)),))


def make_batch(spec: PolicySpec, acting_weights: dict[str, np.ndarray], *, seed: int = 0, offset: float = 2.0) -> Batch:
    """Made-up rows of ragged fragments, acted by the given weights; with both kinds of end inside them."""
    rng = np.random.default_rng(seed)
    lengths = [9, 12, 7, 12]
    env_index = np.repeat(np.arange(NUM_ENVS, dtype=np.int32), lengths)
    n = len(env_index)
    terminated = rng.random(n) < 0.15
    truncated = (rng.random(n) < 0.15) & ~terminated
    last = terminated | truncated | np.append(np.diff(env_index) > 0, True)
    assert terminated.any() and truncated.any() and (last & ~terminated & ~truncated).any()

    def observe(rows: int) -> dict[str, np.ndarray]:
        result = {}
        for leaf in spec.observation.leaves:
            shape = (rows, *leaf.shape)
            made: Any = rng.standard_normal(shape) * 3.0 + offset
            if leaf.kind == "discrete":
                made = rng.integers(0, 3, shape)
            elif leaf.dtype == "uint8":
                made = rng.integers(0, 256, shape)
            result[leaf.name] = made.astype(leaf.dtype)
        return result

    observation = observe(n)
    act = load_acting(spec, weights.encode(acting_weights)).act(observation, None, rng)
    return Batch(
        observation=observation,
        action=act.action,
        raw_action=act.raw_action,
        reward=rng.standard_normal(n) * 5.0,
        terminated=terminated,
        truncated=truncated,
        action_log_prob=act.log_prob,
        policy_version=np.zeros(n, np.int64),
        episode_id=np.zeros(n, np.int64),
        t=np.zeros(n, np.int32),
        env_index=env_index,
        last_row=np.flatnonzero(last),
        final_observation=observe(int(last.sum())),
    )


def make_ppo(action: SpaceSpec = DISCRETE, observation: SpaceSpec = VECTOR, policy: dict | None = None, **keys) -> PPO:
    spec = PolicySpec(observation=observation, action=action, **{"hidden": (8, 8), **(policy or {})})
    config = PPOConfig(**{"num_epochs": 3, "minibatch_size": 10, "learning_rate": 0.01, **keys})
    return PPO(config, spec, device="cpu", seed=7, num_envs=NUM_ENVS)


def rounds(ppo: PPO, first: int, last: int) -> list[dict[str, float]]:
    """Iterations first ... last - 1, each on rows that the current weights acted."""
    return [
        ppo.update(make_batch(ppo.policy, ppo.weights(), seed=i), iteration=i, progress=i / 10)
        for i in range(first, last)
    ]


def slow_update(ppo: PPO, batch: Batch) -> dict[str, torch.Tensor]:
    """The same update with lists, loops, autograd and torch's own modules; discrete actions, plain observations."""
    config = ppo.config
    named = {name: torch.from_numpy(w).requires_grad_() for name, w in ppo.network.weights().items()}
    observation, final = torch.from_numpy(batch.observation[""]), torch.from_numpy(batch.final_observation[""])

    def tower(name: str, x: torch.Tensor) -> torch.Tensor:
        for i in (0, 1):
            x = torch.tanh(x @ named[f"{name}.{i}.weight"].T + named[f"{name}.{i}.bias"])
        return x @ named[f"{name}.head.weight"].T + named[f"{name}.head.bias"]

    value = tower("critic", observation)[:, 0].tolist()
    final_value = dict(zip(batch.last_row.tolist(), tower("critic", final)[:, 0].tolist(), strict=True))
    n = batch.num_rows
    advantages = [0.0] * n
    for i in reversed(range(n)):
        next_value = final_value[i] if i in final_value else value[i + 1]
        bootstrap = 0.0 if batch.terminated[i] else config.discount * next_value
        delta = batch.reward[i] + bootstrap - value[i]
        tail = 0.0 if i in final_value else advantages[i + 1]
        advantages[i] = delta + config.discount * config.gae_lambda * tail
    advantage, old_value = torch.tensor(advantages), torch.tensor(value)
    target, old = advantage + old_value, torch.from_numpy(batch.action_log_prob)

    optimizer = torch.optim.Adam(named.values(), lr=config.learning_rate, eps=config.adam_eps)
    rng = seeding.generator(7, seeding.LEARNER, 0)
    for _ in range(config.num_epochs):
        parts = -(-n // config.minibatch_size)
        for pick in rng.permutation(n)[: parts * (n // parts)].reshape(parts, -1):
            peer = torch.distributions.Categorical(logits=tower("actor", observation[pick]))
            v = tower("critic", observation[pick])[:, 0]
            a = advantage[pick]
            a = (a - a.mean()) / (a.std() + 1e-8)
            ratio = (peer.log_prob(torch.from_numpy(batch.action[pick])) - old[pick]).exp()
            policy_loss = -torch.min(a * ratio, a * ratio.clamp(1 - config.clip, 1 + config.clip)).mean()
            error = (v - target[pick]) ** 2
            if config.value_clip > 0.0:
                held = old_value[pick] + (v - old_value[pick]).clamp(-config.value_clip, config.value_clip)
                error = torch.max(error, (held - target[pick]) ** 2)
            entropy = peer.entropy().mean()
            loss = policy_loss + config.value_coef * error.mean() - config.entropy_coef * entropy
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(named.values(), config.max_grad_norm)
            optimizer.step()
    return named


@pytest.mark.parametrize(
    "keys", [{}, {"entropy_coef": 0.05, "value_clip": 0.1, "max_grad_norm": 0.1}, {"gae_lambda": 0.0, "discount": 0.5}]
)
def test_update_equals_a_slow_one(keys: dict[str, float]) -> None:
    ppo = make_ppo(**keys)
    batch = make_batch(ppo.policy, ppo.weights())
    want = slow_update(ppo, batch)
    before = ppo.weights()
    ppo.update(batch, iteration=0, progress=0.0)
    for name, got in ppo.weights().items():
        assert np.abs(got - before[name]).max() > 1e-3, f"{name} did not move"
        assert_allclose(got, want[name].detach(), atol=2e-4, err_msg=name)


def test_fragments_of_one_environment_are_cut_where_a_successor_is_stored() -> None:
    """As when a batch holds several iterations: neither end is marked, yet the next row is not the successor."""
    ppo = make_ppo()
    batch = dataclasses.replace(make_batch(ppo.policy, ppo.weights()), env_index=np.zeros(40, np.int32))
    want = slow_update(ppo, batch)
    ppo.update(batch, iteration=0, progress=0.0)
    for name, got in ppo.weights().items():
        assert_allclose(got, want[name].detach(), atol=2e-4, err_msg=name)


def test_the_return_that_scales_rewards_restarts_after_either_end_and_goes_on_after_none() -> None:
    ppo = make_ppo(normalize_return=True, discount=0.9)
    running = np.zeros(NUM_ENVS)
    for i in range(2):
        batch = make_batch(ppo.policy, ppo.weights(), seed=i)
        ppo.update(batch, iteration=i, progress=0.0)
        ends = batch.terminated | batch.truncated
        for env, reward, end in zip(batch.env_index, batch.reward, ends, strict=True):
            running[env] = 0.0 if end else 0.9 * running[env] + reward
    assert (running != 0.0).any()
    assert_allclose(ppo.state_dict()["return.running"], running, atol=1e-12)


@pytest.mark.parametrize(
    "bug", ["done for terminated", "truncation ends", "off by one", "log-probability of another row"]
)
def test_the_slow_update_catches_planted_bugs(bug: str) -> None:
    ppo = make_ppo()
    batch = make_batch(ppo.policy, ppo.weights())
    want = slow_update(ppo, batch)
    ends = batch.terminated | batch.truncated
    wrong = {
        "done for terminated": {"terminated": ends, "truncated": np.zeros_like(ends)},
        "truncation ends": {"terminated": batch.truncated, "truncated": batch.terminated},
        "off by one": {"final_observation": {"": np.roll(batch.final_observation[""], 1, axis=0)}},
        "log-probability of another row": {"action_log_prob": np.roll(batch.action_log_prob, 1)},
    }[bug]
    ppo.update(dataclasses.replace(batch, **wrong), iteration=0, progress=0.0)
    assert max(np.abs(got - want[name].detach().numpy()).max() for name, got in ppo.weights().items()) > 2e-3


CASES: list[dict[str, Any]] = [
    {},
    {"action": MULTI, "observation": MIXED, "policy": {"normalize_observation": True}, "normalize_return": True},
    {"action": BOX, "policy": {"normalize_observation": True}, "entropy_coef": 0.01, "normalize_return": True},
    {"action": BOX, "observation": IMAGE, "policy": {"network": "nature_cnn"}, "learning_rate_schedule": "linear"},
]


@pytest.mark.parametrize("case", CASES)
def test_the_same_seed_twice_gives_the_same_bits(case: dict[str, Any]) -> None:
    first, second = make_ppo(**case), make_ppo(**case)
    facts = rounds(first, 0, 3)
    assert rounds(second, 0, 3) == facts
    assert weights.encode(first.state_dict()) == weights.encode(second.state_dict())
    for name, value in facts[-1].items():
        assert np.isfinite(value), name
    metrics.check(facts[-1])


def test_mixed_precision_changes_the_update_a_little_and_keeps_float32_weights() -> None:
    case = CASES[3]
    exact = make_ppo(**case)
    mixed = PPO(exact.config, exact.policy, device="cpu", seed=7, num_envs=NUM_ENVS, mixed_precision=True)
    before = exact.network.flat.clone()
    batch = make_batch(exact.policy, exact.weights())
    for ppo in (exact, mixed):
        facts = ppo.update(batch, iteration=0, progress=0.0)
        assert all(np.isfinite(value) for value in facts.values())
    assert mixed.network.flat.dtype == torch.float32
    moved = [ppo.network.flat - before for ppo in (exact, mixed)]
    assert not torch.equal(*moved)
    assert torch.cosine_similarity(*moved, dim=0) > 0.8


@pytest.mark.parametrize("case", CASES)
def test_a_restored_state_goes_on_as_if_nothing_had_happened(case: dict[str, Any]) -> None:
    undisturbed, killed, restored = make_ppo(**case), make_ppo(**case), make_ppo(**case)
    rounds(undisturbed, 0, 4)
    rounds(killed, 0, 2)
    restored.load_state_dict(weights.decode(weights.encode(killed.state_dict())))
    rounds(killed, 2, 3)  # what the source does afterwards must not reach the copy
    rounds(restored, 2, 4)
    assert weights.encode(restored.state_dict()) == weights.encode(undisturbed.state_dict())


def test_a_state_without_the_optimizer_would_not_do() -> None:
    undisturbed, restored = make_ppo(), make_ppo()
    rounds(undisturbed, 0, 2)
    state = undisturbed.state_dict()
    state["optimizer.num_steps"] = np.asarray(0, np.int64)
    restored.load_state_dict(state)
    rounds(undisturbed, 2, 3)
    rounds(restored, 2, 3)
    assert weights.encode(restored.state_dict()) != weights.encode(undisturbed.state_dict())


def test_version_v_is_trained_with_the_normaliser_it_acted_with() -> None:
    """Right after acting the ratios are 1, so one epoch of one minibatch sees no KL; with older rows it does."""
    keys = {"num_epochs": 1, "minibatch_size": 1000, "action": BOX, "policy": {"normalize_observation": True}}
    ppo = make_ppo(**keys)
    for i in range(3):
        acted = ppo.weights()
        facts = ppo.update(make_batch(ppo.policy, acted, seed=i), iteration=i, progress=0.0)
        assert facts["learner/approx_kl"] < 1e-8
    stale = make_batch(ppo.policy, acted, seed=9)
    assert ppo.update(stale, iteration=3, progress=0.0)["learner/approx_kl"] > 1e-4


def test_indicators_are_not_normalised_and_boxes_are() -> None:
    ppo = make_ppo(observation=MIXED, policy={"normalize_observation": True})
    rounds(ppo, 0, 2)
    travelling = ppo.weights()
    assert_array_equal(travelling["normalizer.mean"][3:], 0.0)
    assert_array_equal(travelling["normalizer.var"][3:], 1.0)
    seen = np.concatenate([make_batch(ppo.policy, travelling, seed=i).observation[""] for i in range(2)])
    assert_allclose(travelling["normalizer.mean"][:3], seen.mean(0, dtype=np.float64), atol=1e-9)
    assert_allclose(travelling["normalizer.var"][:3], seen.var(0, dtype=np.float64), rtol=1e-9)
    assert travelling["normalizer.count"] == 80
    assert "normalizer.mean" not in make_ppo().weights()


def test_schedules_end_at_zero_and_constants_do_not_move() -> None:
    ppo = make_ppo(learning_rate_schedule="linear", clip_schedule="linear")
    facts = ppo.update(make_batch(ppo.policy, ppo.weights()), iteration=0, progress=0.75)
    assert facts["learner/learning_rate"] == pytest.approx(0.0025)
    assert facts["learner/clip"] == pytest.approx(0.05)
    facts = make_ppo().update(make_batch(ppo.policy, ppo.weights()), iteration=0, progress=0.75)
    assert facts["learner/learning_rate"] == 0.01


def test_the_kl_limit_stops_epochs_early() -> None:
    free, held = make_ppo(num_epochs=8, learning_rate=0.1), make_ppo(num_epochs=8, learning_rate=0.1, target_kl=1e-3)
    facts = [ppo.update(make_batch(ppo.policy, ppo.weights()), iteration=0, progress=0.0) for ppo in (free, held)]
    assert facts[0]["learner/epochs"] == 8 and facts[0]["learner/gradient_steps"] == 32
    assert facts[1]["learner/epochs"] < 8
    assert facts[1]["learner/gradient_steps"] == 4 * facts[1]["learner/epochs"]


def test_every_row_is_used_once_an_epoch_in_equal_minibatches() -> None:
    ppo = make_ppo(minibatch_size=7)
    batch = make_batch(ppo.policy, ppo.weights())
    rows, _ = ppo._rows(batch, batch.observation[""])
    parts = list(rows.shuffled(np.random.default_rng(0), 7, normalize=False).parts())
    assert [len(part.log_prob) for part in parts] == [6] * 6  # 40 rows, at most 7 each: 6 of 6, 4 rows left out
    used = np.concatenate([part.features.numpy() for part in parts])
    assert len(np.unique(used, axis=0)) == 36
    where = {row.tobytes(): i for i, row in enumerate(batch.observation[""])}
    order = [where[row.tobytes()] for row in used]
    assert_array_equal(np.concatenate([part.log_prob.numpy() for part in parts]), batch.action_log_prob[order])


def test_adam_is_torchs() -> None:
    rng = torch.Generator().manual_seed(0)
    mine = torch.randn(50, generator=rng)
    theirs = mine.clone().requires_grad_()
    adam, peer = FlatAdam(mine, eps=1e-5), torch.optim.Adam([theirs], lr=0.1, eps=1e-5)
    for step in range(20):
        gradient = torch.randn(50, generator=rng)
        peer.param_groups[0]["lr"] = 0.1 / (step + 1)
        theirs.grad = gradient.clone()
        peer.step()
        adam.step(gradient, learning_rate=0.1 / (step + 1))
        assert_allclose(mine, theirs.detach(), atol=1e-6)


def test_merged_moments_are_those_of_all_rows() -> None:
    rows = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32) + 1e4  # a mean that eats digits
    moments = RunningMoments(3)
    for part in np.split(rows, [1, 10, 10, 60]):
        moments.merge(part)
    assert moments.count == 100
    assert_allclose(moments.mean, rows.mean(0, dtype=np.float64), rtol=1e-12)
    assert_allclose(moments.var, rows.var(0, dtype=np.float64), rtol=1e-9)


def test_the_reward_scaler_equals_a_loop_over_two_iterations() -> None:
    scaler, running, returns = RewardScaler(3, discount=0.9), [0.0] * 3, []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        env_index = np.repeat([2, 0, 1], [4, 6, 3])
        reward, ended = rng.standard_normal(13), rng.random(13) < 0.2
        assert ended.any()
        scaler.update(reward, ended, fragments(env_index))
        for env, r, end in zip(env_index, reward, ended, strict=True):
            running[env] = 0.9 * running[env] + r
            returns.append(running[env])
            running[env] = 0.0 if end else running[env]
    assert_allclose(scaler.running, running, atol=1e-12)
    assert_allclose(scaler.moments.var, np.var(returns), rtol=1e-12)
    assert_allclose(scaler.scale(np.asarray([1.0, -1e9])), [1.0 / np.sqrt(np.var(returns) + 1e-8), -10.0])


@pytest.mark.parametrize(
    "keys", [{"clipp": 0.1}, {"clip": 0.0}, {"discount": 1.5}, {"num_epochs": 0}, {"minibatch_size": 2.5}]
)
def test_a_config_refuses_what_it_does_not_know(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PPOConfig(**keys)
