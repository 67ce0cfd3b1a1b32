"""Choices that are not allowed: never drawn, never counted, recorded, and masked the same way by the learner."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import collect, config, env_spec, hashes, read, rollout_spec, weights_for
from numpy.testing import assert_allclose, assert_array_equal

from spark_rl import builder, seeding
from spark_rl.algorithms.ppo import PPO
from spark_rl.algorithms.ppo_config import PPOConfig
from spark_rl.data.batch import Batch
from spark_rl.envs.make import make_single
from spark_rl.envs.wrappers import MaskObservation
from spark_rl.errors import RunError, UserError
from spark_rl.policies import weights
from spark_rl.policies.distributions import family, masked
from spark_rl.policies.load import load_acting
from spark_rl.policies.sampling import MASKED, sampler
from spark_rl.policies.spec import PolicySpec
from spark_rl.rollout import run
from spark_rl.schema.spaces import Leaf, SpaceSpec

DISCRETE = SpaceSpec((Leaf("", "discrete", "int64", (), n=(5,), start=(2,)),))
MULTI = SpaceSpec((Leaf("", "multi_discrete", "int64", (2,), n=(2, 3), start=(0, 1)),))
VECTOR = Leaf("seen", "box", "float32", (3,), low=(-1.0,), high=(1.0,))
MASK = Leaf("action_mask", "multi_binary", "int8", (5,))
IMAGE = Leaf("seen", "box", "uint8", (36, 36, 1), low=(0.0,), high=(255.0,))
TAXI = env_spec("Taxi-v4", ("spark_rl.envs.wrappers:MaskObservation", {}), max_episode_steps=15)


def observing(*leaves: Leaf) -> SpaceSpec:
    return SpaceSpec(leaves, "dict")


def some_masks(action: SpaceSpec, n: int, rng: np.random.Generator) -> np.ndarray:
    """int8 [n, 5], at least one choice allowed in each component."""
    mask = rng.random((n, 5)) < 0.5
    first = 0
    for size in action.only.n:
        mask[np.arange(n), first + rng.integers(0, size, n)] = True
        first += size
    assert not mask.all(axis=1).any() or not mask.all()
    return mask.astype(np.int8)


def allowed_log_prob(action: SpaceSpec, logits: torch.Tensor, mask: torch.Tensor, chosen: np.ndarray) -> torch.Tensor:
    """By torch, with probabilities that are exactly zero."""
    total, first = torch.zeros(len(logits)), 0
    chosen = chosen.reshape(len(chosen), -1) - np.asarray(action.only.start)
    for d, n in enumerate(action.only.n):
        part = logits[:, first : first + n].masked_fill(mask[:, first : first + n] == 0, -torch.inf)
        total = total + part.log_softmax(1)[range(len(part)), chosen[:, d]]
        first += n
    return total


@pytest.mark.parametrize("action", [DISCRETE, MULTI])
def test_a_masked_choice_is_never_drawn_and_the_log_probability_is_that_among_the_allowed(action: SpaceSpec) -> None:
    rng = np.random.default_rng(0)
    spec = PolicySpec(observation=observing(VECTOR, MASK), action=action, hidden=(8,), action_mask="action_mask")
    policy = load_acting(spec, weights_for(spec))
    plain = PolicySpec(observation=SpaceSpec((VECTOR,), "dict"), action=action, hidden=(8,))
    unmasked = load_acting(plain, weights_for(plain))
    n = 4000
    observation = {"seen": np.tile(rng.standard_normal(3).astype(np.float32), (n, 1)),
                   "action_mask": np.tile(some_masks(action, 1, rng), (n, 1))}  # fmt: skip
    mask = torch.from_numpy(observation["action_mask"])
    logits = torch.from_numpy(unmasked.params(observation).T.copy())  # type: ignore[attr-defined]
    for act in (policy.act(observation, None, rng), policy.act_greedy(observation, None)):
        want = allowed_log_prob(action, logits, mask, act.action)
        assert torch.isfinite(want).all()
        assert_allclose(act.log_prob, want, atol=1e-5)
    drawn = policy.act(observation, None, rng)
    for chosen in np.unique(drawn.action, axis=0):
        share = (drawn.action.reshape(n, -1) == chosen.reshape(-1)).all(axis=1).mean()
        want = allowed_log_prob(action, logits[:1], mask[:1], chosen[None]).exp().item()
        assert abs(share - want) < 5 * np.sqrt(want * (1 - want) / n) + 1e-9
    best = policy.act_greedy(observation, None)
    assert (best.log_prob >= drawn.log_prob - 1e-6).all()


@pytest.mark.parametrize("only", range(5))
def test_the_one_choice_that_is_allowed_is_certain(only: int) -> None:
    params = np.full((5, 100_000), MASKED, np.float32)
    params[only] = -7.0
    action, _, log_prob = sampler(DISCRETE.only).sample(params, np.random.default_rng(only))
    assert (action == only + 2).all()
    assert (log_prob == 0.0).all()


def test_where_nothing_is_allowed_nothing_breaks() -> None:
    params = np.full((5, 10), MASKED, np.float32)
    with np.errstate(all="raise"):
        _, _, log_prob = sampler(DISCRETE.only).sample(params, np.random.default_rng(0))
    assert_allclose(log_prob, np.log(0.2), rtol=1e-6)


@pytest.mark.parametrize("action", [DISCRETE, MULTI])
def test_masked_slopes_and_entropy_are_autograds_with_zero_probabilities(action: SpaceSpec) -> None:
    rng = np.random.default_rng(1)
    logits = torch.randn(40, 5, dtype=torch.float64).requires_grad_()
    mask = torch.from_numpy(some_masks(action, 40, rng))
    found = family(action.only)
    chosen, _, _ = sampler(action.only).sample(
        np.where(mask.T == 0, MASKED, logits.detach().numpy().T).astype(np.float32), rng
    )
    slope = torch.randn(40, dtype=torch.float64)
    entropies, first = [], 0
    for n in action.only.n:
        part = logits[:, first : first + n].masked_fill(mask[:, first : first + n] == 0, -torch.inf)
        entropies.append(torch.distributions.Categorical(logits=part, validate_args=False).entropy())
        first += n
    entropy = torch.stack(entropies).sum(0)
    loss = (slope * allowed_log_prob(action, logits, mask, chosen)).sum() + 0.3 * entropy.sum()
    loss.backward()
    distribution = found(masked(logits.detach(), mask != 0), None)
    got, _ = distribution.slopes(torch.from_numpy(found.target(chosen, None)), slope, 0.3)
    assert_allclose(distribution.entropy(), entropy.detach(), atol=1e-9)
    assert_allclose(got, logits.grad, atol=1e-9)
    assert (got[mask == 0] == 0.0).all()


def make_batch(spec: PolicySpec, acting: dict[str, np.ndarray], *, allow_all: bool = False) -> Batch:
    rng = np.random.default_rng(0)
    n = 24
    policy = load_acting(spec, weights.encode(acting))
    leaf = spec.visible.leaves[0]

    def observe(rows: int) -> dict[str, np.ndarray]:
        seen = rng.integers(0, 256, (rows, *leaf.shape)) if leaf.is_image else rng.standard_normal((rows, *leaf.shape))
        mask = np.ones((rows, 5), np.int8) if allow_all else some_masks(DISCRETE, rows, rng)
        return {"seen": seen.astype(leaf.dtype), "action_mask": mask}

    observation, final = observe(n), observe(2)
    act = policy.act(observation, policy.initial_state(n), rng)
    reward, env_index = rng.standard_normal(n), np.repeat(np.arange(2, dtype=np.int32), 12)
    return Batch(
        observation=observation, action=act.action, raw_action=None, reward=reward, terminated=np.zeros(n, bool),
        truncated=np.zeros(n, bool), action_log_prob=act.log_prob, policy_version=np.zeros(n, np.int64),
        episode_id=np.zeros(n, np.int64), t=np.zeros(n, np.int32), env_index=env_index,
        last_row=np.array([11, 23]), final_observation=final, state=policy.initial_state(n),
    )  # fmt: skip


def make_ppo(seen: Leaf = VECTOR, mask: str = "action_mask", **choices: Any) -> PPO:
    leaves = (seen, MASK) if mask else (seen,)
    spec = PolicySpec(observation=observing(*leaves), action=DISCRETE, hidden=(8,), action_mask=mask, **choices)
    keys = PPOConfig(num_epochs=2, minibatch_size=12, learning_rate=0.01, entropy_coef=0.05)
    return PPO(keys, spec, device="cpu", seed=3, num_envs=2)


def slow_update(ppo: PPO, batch: Batch) -> dict[str, np.ndarray]:
    """One MLP layer, autograd, and probabilities that are exactly zero where the mask says so."""
    named = {name: torch.from_numpy(w).requires_grad_() for name, w in ppo.network.weights().items()}

    def tower(name: str, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(x @ named[f"{name}.0.weight"].T + named[f"{name}.0.bias"])
        return hidden @ named[f"{name}.head.weight"].T + named[f"{name}.head.bias"]

    observation, final = (torch.from_numpy(o["seen"]) for o in (batch.observation, batch.final_observation))
    mask = torch.from_numpy(batch.observation["action_mask"])
    with torch.no_grad():
        value, last = tower("critic", observation)[:, 0].double(), tower("critic", final)[:, 0].double()
    advantages, n = [0.0] * 24, 24
    for i in reversed(range(n)):
        following = last[i // 12] if i in (11, 23) else value[i + 1]
        tail = 0.0 if i in (11, 23) else advantages[i + 1]
        advantages[i] = float(batch.reward[i] + 0.99 * following - value[i]) + 0.99 * 0.95 * tail
    advantage = torch.tensor(advantages).float()
    target = advantage + value.float()
    optimizer = torch.optim.Adam(named.values(), lr=0.01, eps=1e-5)
    rng = seeding.generator(3, seeding.LEARNER, 0)
    for _ in range(2):
        for pick in rng.permutation(n).reshape(2, 12):
            logits = tower("actor", observation[pick])
            part = logits.masked_fill(mask[pick] == 0, -torch.inf)
            peer = torch.distributions.Categorical(logits=part, validate_args=False)
            ratio = (peer.log_prob(torch.from_numpy(batch.action[pick] - 2)) - torch.from_numpy(
                batch.action_log_prob[pick])).exp()  # fmt: skip
            a = advantage[pick]
            a = (a - a.mean()) / (a.std() + 1e-8)
            loss = -torch.min(a * ratio, a * ratio.clamp(0.8, 1.2)).mean() - 0.05 * peer.entropy().mean()
            loss = loss + 0.5 * (tower("critic", observation[pick])[:, 0] - target[pick]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(named.values(), 0.5)
            optimizer.step()
    return {name: w.detach().numpy() for name, w in named.items()}


def test_a_masked_update_equals_a_slow_one_and_another_mask_does_not() -> None:
    ppo = make_ppo()
    batch = make_batch(ppo.policy, ppo.weights())
    want = slow_update(ppo, batch)
    other = make_ppo()
    ppo.update(batch, iteration=0, progress=0.0)
    for name, got in ppo.weights().items():
        assert_allclose(got, want[name], atol=2e-4, err_msg=name)
    wrong = {**batch.observation, "action_mask": np.ones((24, 5), np.int8)}
    other.update(dataclasses.replace(batch, observation=wrong), iteration=0, progress=0.0)
    assert max(np.abs(got - want[name]).max() for name, got in other.weights().items()) > 2e-3


@pytest.mark.parametrize(
    ("seen", "choices"), [(VECTOR, {}), (VECTOR, {"recurrent": "lstm"}), (IMAGE, {"network": "nature_cnn"})]
)
def test_a_mask_that_allows_everything_changes_no_bit(seen: Leaf, choices: dict[str, Any]) -> None:
    with_mask, without = make_ppo(seen, **choices), make_ppo(seen, "", **choices)
    batch = make_batch(with_mask.policy, with_mask.weights(), allow_all=True)
    with_mask.update(batch, iteration=0, progress=0.0)
    without.update(batch, iteration=0, progress=0.0)
    assert weights.encode(with_mask.weights()) == weights.encode(without.weights())
    partly = make_ppo(seen, **choices)
    facts = partly.update(make_batch(partly.policy, partly.weights()), iteration=0, progress=0.0)
    assert all(np.isfinite(value) for value in facts.values())


class Masked(gymnasium.Env[Any, Any]):
    """Says in its info what was asked for."""

    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any], mask: Any) -> None:
        self.observation_space, self.action_space, self.mask = observation, action, mask

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {"action_mask": self.mask}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {"action_mask": self.mask}


def test_the_mask_becomes_a_part_of_any_observation() -> None:
    mask = (np.array([1, 0], np.int8), np.array([0, 1, 1], np.int8))
    inner = spaces.Dict({"a": spaces.Discrete(3)})
    env = MaskObservation(Masked(inner, spaces.MultiDiscrete([2, 3]), mask))
    for observation in (env.reset()[0], env.step([0, 0])[0]):
        assert env.observation_space.contains(observation)
        assert_array_equal(observation["action_mask"], [1, 0, 0, 1, 1])
    taxi, plain = make_single(TAXI), gymnasium.make("Taxi-v4")
    seen, (state, info) = taxi.reset(seed=3)[0], plain.reset(seed=3)
    for action in (0, 1, 2, 3):
        assert (seen["observation"], seen["action_mask"].tolist()) == (state, info["action_mask"].tolist())
        seen, (state, _, _, _, info) = taxi.step(action)[0], plain.step(action)


def test_masks_that_are_not_there_are_told() -> None:
    with pytest.raises(UserError, match="Discrete or MultiDiscrete actions"):
        MaskObservation(gymnasium.make("Pendulum-v1"))
    with pytest.raises(RunError, match=r"the info of reset: got 0 numbers under 'action_mask'"):
        MaskObservation(gymnasium.make("CartPole-v1")).reset()
    env = MaskObservation(Masked(spaces.Discrete(2), spaces.Discrete(3), np.ones(2)))
    with pytest.raises(RunError, match=r"got 2 numbers under 'action_mask'; wanted one for each of 3 choices"):
        env.reset()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"action_mask": "mask"}, "no such leaf"),
        ({"action_mask": "seen"}, "3 numbers for 5 discrete choices"),
        ({"action_mask": "action_mask", "kind": "uniform"}, "of kind 'uniform'"),
    ],
)
def test_a_leaf_that_is_no_mask_is_a_user_error(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PolicySpec(observation=observing(VECTOR, MASK), action=DISCRETE, **choices)


@pytest.mark.parametrize(("wanted", "leaf"), [("auto", ""), ("off", ""), ("info", "action_mask")])
def test_the_config_says_where_masks_come_from(wanted: str, leaf: str) -> None:
    made = config({"id": "Taxi-v4"}, policy={"action_mask": wanted})
    assert builder.policy_spec(made, builder.env_plan(made)).action_mask == leaf


def test_auto_finds_the_key_of_a_dict_observation() -> None:
    made = config(
        {"id": "Taxi-v4", "wrappers": [{"entry_point": "spark_rl.envs.wrappers:MaskObservation"}]},
        policy={"hidden": [4]},
    )
    spec = builder.policy_spec(made, builder.env_plan(made))
    assert spec.action_mask == "action_mask"
    assert [leaf.name for leaf in spec.visible.leaves] == ["observation"]


def test_what_was_allowed_is_recorded_and_the_stored_log_probability_is_the_masked_one(tmp_path: Path) -> None:
    files = {}
    for carry in ("snapshot", "replay"):
        spec = rollout_spec(tmp_path / carry, TAXI, carry=carry)
        spec = dataclasses.replace(spec, policy=dataclasses.replace(spec.policy, action_mask="action_mask"))
        collect(spec, 3, before=lambda k: run.forget())
        files[carry] = hashes(tmp_path / carry, "transitions")
    assert files["snapshot"] == files["replay"]
    table = gymnasium.make("Taxi-v4").unwrapped
    # The same network without the mask: its weights see the other leaf only.
    plain = dataclasses.replace(spec.policy, action_mask="", observation=spec.policy.visible)
    rows = read(tmp_path / "replay").to_pylist()
    for row in rows:
        state = row["observation"]["observation"]
        assert row["action_mask"] == [bool(x) for x in table.action_mask(state)]  # type: ignore[attr-defined]
        assert row["action_mask"][row["action"]]
        policy = load_acting(plain, weights_for(plain, row["policy_version"]))
        logits = torch.from_numpy(policy.params({"observation": np.array([state])}).T.copy())  # type: ignore
        allowed = torch.tensor([row["action_mask"]])
        want = logits.masked_fill(~allowed, -torch.inf).log_softmax(1)[0, row["action"]]
        assert row["action_log_prob"] == pytest.approx(want.item(), abs=1e-5)
    assert not all(all(row["action_mask"]) for row in rows)
    assert {row["t"] for row in rows} > {0}


def test_runs_without_masks_have_no_such_column(tmp_path: Path) -> None:
    spec = rollout_spec(tmp_path, env_spec("Taxi-v4"))
    collect(spec, 1)
    assert "action_mask" not in read(tmp_path).column_names
