"""SAC, TD3 and DDPG: acting against torch.distributions, updates against slow ones, and what a resumed run needs."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from test_replay import World, to_batch
from torch import distributions as reference

from spark_rl import checkpoint, metrics, seeding
from spark_rl.algorithms.sac import SAC, SACConfig
from spark_rl.algorithms.td3 import DDPG, TD3, DDPGConfig, TD3Config
from spark_rl.config import RunConfig
from spark_rl.data.batch import Batch
from spark_rl.errors import UserError
from spark_rl.losses.actor_critic import critics_loss, critics_slope
from spark_rl.policies import weights
from spark_rl.policies.load import load_acting
from spark_rl.policies.spec import PolicySpec
from spark_rl.policies.squashed import LOG_STD_RANGE, ContinuousActing
from spark_rl.policies.towers import Towers, squash
from spark_rl.rollout import run as rollout
from spark_rl.schema.spaces import Leaf, SpaceSpec
from spark_rl.train import train

VECTOR = SpaceSpec((Leaf("", "box", "float32", (1,), low=(-1.0,), high=(1.0,)),))
BOX = SpaceSpec((Leaf("", "box", "float32", (2, 1), low=(-3.0, 1.0), high=(1.0, 2.0)),))
LOW, HIGH = np.asarray([-3.0, 1.0]), np.asarray([1.0, 2.0])
N = 500
KINDS = {"sac": (SAC, SACConfig), "td3": (TD3, TD3Config), "ddpg": (DDPG, DDPGConfig)}


def vector(batch: Batch) -> Batch:
    """The world's numbers as small reals, its actions as points of the box."""
    part = np.stack([np.sin(batch.action + batch.t), np.cos(3 * batch.action + batch.t)], 1)
    action = ((LOW + HIGH) / 2 + (HIGH - LOW) / 2 * part).astype(np.float32)[:, :, None]
    return dataclasses.replace(
        batch,
        observation={"": np.sin(batch.observation["place"])},
        final_observation={"": np.sin(batch.final_observation["place"])},
        action=action,
        raw_action=action,
    )


def make(name: str, policy: dict[str, Any] | None = None, **keys: Any):
    learner, config = KINDS[name]
    small = {"batch_size": 8, "replay_capacity": 40, "replay_ratio": 0.5, "learning_starts": 10, "learning_rate": 0.01,
             "target_share": 0.1, "discount": 0.9}  # fmt: skip
    chosen = {"hidden": (8, 8), "activation": "relu", **(policy or {})}
    spec = PolicySpec(observation=VECTOR, action=BOX, kind=config.policy_kind, **chosen)
    return learner(config(**{**small, **keys}), spec, device="cpu", seed=7, num_envs=3)


def acting_of(learner: Any, **extra: Any) -> tuple[ContinuousActing, dict[str, np.ndarray]]:
    """The acting side of a learner whose actor has been shaken, and its weights."""
    rng = torch.Generator().manual_seed(1)
    learner.actor.flat.detach().add_(torch.randn(learner.actor.flat.shape, generator=rng), alpha=0.3)
    tensors = learner.weights() | {"explore.uniform": np.zeros(()), **extra}
    return load_acting(learner.policy, weights.encode(tensors)), tensors


def test_the_stored_density_is_that_of_the_squashed_action() -> None:
    acting, _ = acting_of(make("sac"))
    seen = {"": np.random.default_rng(0).standard_normal((N, 1)).astype(np.float32)}
    act = acting.act(seen, None, np.random.default_rng(1))
    mean, log_std = torch.from_numpy(acting.outputs(seen)).double().chunk(2, 1)
    base = reference.Normal(mean, log_std.clamp(*LOG_STD_RANGE).exp())
    centre, scale = torch.from_numpy((LOW + HIGH) / 2), torch.from_numpy((HIGH - LOW) / 2)
    maps = [reference.TanhTransform(cache_size=1), reference.AffineTransform(centre, scale)]
    peer = reference.Independent(reference.TransformedDistribution(base, maps), 1)
    action = torch.from_numpy(act.action.reshape(N, 2)).double()
    inner = (np.abs((act.action.reshape(N, 2) - centre.numpy()) / scale.numpy()) < 0.99).all(1)
    assert inner.sum() > N / 3  # further out float32 actions no longer say where they came from
    assert_allclose(act.log_prob[inner], peer.log_prob(action)[inner], atol=2e-3)
    assert_array_equal(act.raw_action, act.action)
    assert act.action.shape == (N, 2, 1) and act.action.dtype == np.float32
    greedy = acting.act_greedy(seen, None).action.reshape(N, 2)
    assert_allclose(greedy, centre + scale * mean.tanh(), atol=1e-5)


def test_the_density_integrates_to_one() -> None:
    """Over the box, by the midpoint rule: a forgotten scale or slope of tanh would show."""
    outputs = torch.tensor([[0.3, -0.5]], dtype=torch.float64).expand(20_001, 2)
    unit = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[1:-1, None]
    noise = (unit.atanh() - 0.3) / math.exp(-0.5)
    action, log_prob = squash(outputs[1:-1], noise, LOG_STD_RANGE)
    assert_allclose(action, unit, atol=1e-12)
    assert float(log_prob.exp().sum() * (2 / 20_000)) == pytest.approx(1.0, abs=1e-3)


def test_squash_is_finite_and_exact_far_out() -> None:
    action, log_prob = squash(torch.tensor([[30.0, 0.0], [-30.0, 0.0]]), torch.zeros(2, 1), LOG_STD_RANGE)
    want = -0.5 * math.log(2 * math.pi) - 2.0 * (math.log(2.0) - 30.0)
    assert_allclose(log_prob, [want, want], rtol=1e-6)
    assert_array_equal(action, [[1.0], [-1.0]])


def test_deterministic_actions_get_noise_and_a_clip() -> None:
    acting, _ = acting_of(make("td3", exploration_noise=0.5))
    seen = {"": np.random.default_rng(0).standard_normal((N, 1)).astype(np.float32)}
    act = acting.act(seen, None, np.random.default_rng(1))
    greedy = acting.act_greedy(seen, None)
    centre, scale = (LOW + HIGH) / 2, (HIGH - LOW) / 2
    assert_allclose(greedy.action.reshape(N, 2), centre + scale * np.tanh(acting.outputs(seen)), atol=1e-5)
    peer = reference.Normal(torch.from_numpy(greedy.action.reshape(N, 2)), torch.from_numpy(0.5 * scale))
    assert act.raw_action is not None
    raw = act.raw_action.reshape(N, 2)
    assert_allclose(act.log_prob, peer.log_prob(torch.from_numpy(raw)).sum(1), atol=1e-3)
    assert_allclose(act.action.reshape(N, 2), np.clip(raw, LOW, HIGH), atol=1e-6)
    assert (raw < LOW).any() and (raw > HIGH).any()


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_warm_up_is_uniform_and_ends_with_learning(name: str) -> None:
    learner, world = make(name), World()
    assert learner.weights()["explore.uniform"] == 1.0
    acting = load_acting(learner.policy, weights.encode(learner.weights()))
    act = acting.act({"": np.zeros((4000, 1), np.float32)}, None, np.random.default_rng(0))
    assert_allclose(act.log_prob, -math.log(4.0))
    action = act.action.reshape(-1, 2)
    assert (action >= LOW).all() and (action <= HIGH).all()
    assert_allclose(np.quantile(action, [0.25, 0.75], axis=0), [LOW + (HIGH - LOW) * q for q in (0.25, 0.75)], atol=0.1)
    learner.update(vector(world.iteration()), iteration=0, progress=0.0)
    assert learner.weights()["explore.uniform"] == 0.0


def test_boxes_without_bounds_and_pictures_are_refused() -> None:
    endless = SpaceSpec((Leaf("", "box", "float32", (1,), low=(-math.inf,), high=(math.inf,)),))
    for action in (endless, SpaceSpec((Leaf("", "discrete", "int64", (), n=(3,), start=(0,)),))):
        spec = PolicySpec(observation=VECTOR, action=action, kind="squashed")
        with pytest.raises(UserError, match="wanted a Box with finite bounds"):
            SAC(SACConfig(), spec, device="cpu", seed=0, num_envs=1)


def test_towers_equal_plain_layers_and_twins_do_not_mix() -> None:
    towers = Towers(("a", "b"), (3, 5, 4, 1), tanh=False, head_gain=1.0, seed=0, device=torch.device("cpu"))
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    w = {name: torch.from_numpy(array).requires_grad_() for name, array in towers.weights().items()}

    def plain(name: str) -> torch.Tensor:
        y = x
        for i in ("0", "1"):
            y = (y @ w[f"{name}.{i}.weight"].T + w[f"{name}.{i}.bias"]).relu()
        return y @ w[f"{name}.head.weight"].T + w[f"{name}.head.bias"]

    got, want = towers(x, learn=True), torch.stack([plain("a"), plain("b")])
    assert_allclose(got.detach(), want.detach(), atol=1e-6)
    target = torch.randn(7, generator=torch.Generator().manual_seed(1))
    loss = critics_loss(want.squeeze(2), target)
    said = got.detach().squeeze(2)
    assert critics_loss(said, target).item() == pytest.approx(
        sum(float(((said[e, i] - target[i]) ** 2) / 7) for e in range(2) for i in range(7))
    )
    gradient = towers.views(towers.gradient(got, critics_slope(said, target).unsqueeze(2)))
    for name, slope in zip(w, torch.autograd.grad(loss, list(w.values())), strict=True):
        assert_allclose(gradient[name], slope, atol=1e-6, err_msg=name)


def slow_update(learner: Any, rng: np.random.Generator, num_steps: int) -> dict[str, torch.Tensor]:
    """The first gradient steps with named tensors, row by row where it matters, and torch's own Adam."""
    config, replay = learner.config, learner._window.replay
    soft = isinstance(learner, SAC)
    start = {**learner.actor.weights(), **learner.critics.weights()}
    named = {name: torch.from_numpy(array.copy()).requires_grad_() for name, array in start.items()}
    targets = {name: torch.from_numpy(array.copy()) for name, array in start.items()}
    critics = ["critic.0"] if isinstance(learner, DDPG) else ["critic.0", "critic.1"]
    log_alpha = torch.zeros((), requires_grad=True)
    actor_part = [w for name, w in named.items() if name.startswith("actor")]
    critic_part = [w for name, w in named.items() if name.startswith("critic")]
    adam = {
        key: torch.optim.Adam(part, lr=config.learning_rate)
        for key, part in (("actor", actor_part), ("critic", critic_part), ("alpha", [log_alpha]))
    }

    def mlp(which: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
        for i in ("0", "1"):
            x = (x @ which[f"{name}.{i}.weight"].T + which[f"{name}.{i}.bias"]).relu()
        return x @ which[f"{name}.head.weight"].T + which[f"{name}.head.bias"]

    def sample(outputs: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = outputs[:, :2], outputs[:, 2:].clamp(*LOG_STD_RANGE)
        before = mean + log_std.exp() * noise
        density = reference.Normal(mean, log_std.exp()).log_prob(before) - torch.log(1 - before.tanh() ** 2)
        return before.tanh(), density.sum(1)

    place = replay.draw(rng, num_steps * config.batch_size)
    noises = rng.standard_normal((num_steps, 2, config.batch_size, 2), dtype=np.float32)
    for step in range(num_steps):
        here = place[step * config.batch_size : (step + 1) * config.batch_size]
        rows = replay.sample(here, num_steps=config.n_steps, discount=config.discount)
        x, y = torch.from_numpy(rows.observation[""]), torch.from_numpy(rows.next_observation[""])
        unit = (rows.action.reshape(-1, 2) - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2)
        action = torch.from_numpy(unit.astype(np.float32))
        first, second = (torch.from_numpy(noise) for noise in noises[step])
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            if soft:
                future, density = sample(mlp(named, "actor", y), first)
            else:
                smooth = (first * config.target_noise).clamp(-config.target_noise_clip, config.target_noise_clip)
                future, density = (mlp(targets, "actor", y).tanh() + smooth).clamp(-1, 1), torch.zeros(len(y))
            goals = []
            for i in range(len(y)):
                pair = torch.cat([y[i], future[i]])
                lowest = min(float(mlp(targets, name, pair[None])) for name in critics)
                value = lowest - float(alpha) * float(density[i])
                goals.append(float(rows.reward[i]) + float(rows.bootstrap[i]) * value)
        goal = torch.tensor(goals)
        loss = sum(((mlp(named, name, torch.cat([x, action], 1))[:, 0] - goal) ** 2).mean() for name in critics)
        adam["critic"].zero_grad()
        loss.backward()
        adam["critic"].step()
        if soft or (step + 1) % config.actor_every == 0:
            if soft:
                chosen, log_prob = sample(mlp(named, "actor", x), second)
                values = torch.stack([mlp(named, name, torch.cat([x, chosen], 1))[:, 0] for name in critics])
                loss = (alpha * log_prob - values.min(0).values).mean()
            else:
                chosen = mlp(named, "actor", x).tanh()
                loss = -mlp(named, "critic.0", torch.cat([x, chosen], 1)).mean()
            adam["actor"].zero_grad()
            loss.backward()
            adam["actor"].step()
            if soft:
                adam["alpha"].zero_grad()
                (-(log_alpha * (log_prob.detach() - 2.0)).mean()).backward()
                adam["alpha"].step()
            with torch.no_grad():
                for name, tensor in targets.items():
                    tensor.lerp_(named[name], config.target_share)
    return {**{k: v.detach() for k, v in named.items()}, "log_alpha": log_alpha.detach()}


def updated(name: str, wrong: dict[str, Any] | None = None, **keys: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A learner after nine steps on the world's first rows (with `wrong` columns), and what the slow one has."""
    keys = {"learning_starts": 0, "n_steps": 2, **keys}
    fast, slow = make(name, **keys), make(name, **keys)
    batch = vector(World().iteration())
    slow._window.append(batch, 0)
    want = slow_update(slow, seeding.generator(7, seeding.LEARNER, 0), 9)
    changed = {column: make_wrong(batch) for column, make_wrong in (wrong or {}).items()}
    facts = fast.update(dataclasses.replace(batch, **changed), iteration=0, progress=0.0)
    assert facts["learner/gradient_steps"] == 9.0
    metrics.check(facts)
    return fast, want


def distance(learner: Any, want: dict[str, torch.Tensor]) -> float:
    got = learner.actor.weights() | learner.critics.weights()
    if isinstance(learner, SAC):
        got["log_alpha"] = learner.log_alpha.numpy()
    return max(float(np.abs(got[name] - want[name].numpy()).max()) for name in got)


@pytest.mark.parametrize("name", KINDS)
def test_update_equals_a_slow_one(name: str) -> None:
    learner, want = updated(name)
    assert distance(learner, want) < 5e-4
    before = make(name)
    assert distance(before, want) > 0.01


BUGS = {
    "done for terminated": {"terminated": lambda b: b.terminated | b.truncated},
    "successor off by one": {"final_observation": lambda b: {"": np.roll(b.final_observation[""], 1, axis=0)}},
    "action of another row": {"action": lambda b: np.roll(b.action, 1, axis=0)},
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("bug", BUGS)
def test_the_slow_update_catches_planted_bugs(name: str, bug: str) -> None:
    learner, want = updated(name, BUGS[bug])
    assert distance(learner, want) > 2e-3


def test_the_actor_of_td3_moves_at_every_second_step() -> None:
    learner, world = make("td3", learning_starts=0, replay_ratio=1.0), World()
    before = learner.actor.flat.detach().clone()
    learner.update(vector(world.iteration((1, 0, 0))), iteration=0, progress=0.0)
    assert torch.equal(learner.actor.flat, before)
    facts = learner.update(vector(world.iteration((1, 0, 0))), iteration=1, progress=0.0)
    assert not torch.equal(learner.actor.flat, before)
    assert "learner/actor_loss" in facts


@pytest.mark.parametrize("name", KINDS)
def test_a_restored_state_goes_on_as_if_nothing_had_happened(name: str) -> None:
    undisturbed, restored = (make(name, {"normalize_observation": True}) for _ in range(2))
    world = World()
    for k in range(4):
        undisturbed.update(vector(world.iteration()), iteration=k, progress=0.0)
    state = undisturbed.state_dict()
    arrays = weights.decode(weights.encode({k: v for k, v in state.items() if hasattr(v, "shape")}))
    scalars = json.loads(json.dumps({k: v for k, v in state.items() if not hasattr(v, "shape")}))
    restored.load_state_dict(arrays | scalars)
    for k in restored.window:
        restored.recall(vector(to_batch(world.lived[k])), iteration=k)
    for k in range(4, 6):
        batch = vector(world.iteration())
        assert restored.update(batch, iteration=k, progress=0.0) == undisturbed.update(batch, iteration=k, progress=0.0)
    other = restored.state_dict()
    for part, value in undisturbed.state_dict().items():
        assert_array_equal(value, other[part], err_msg=part)


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_a_run_stopped_before_a_checkpoint_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = RunConfig.from_dict(
        {
            "run": {"env_steps": 5 * 32, "seed": 3},
            "env": {"id": "Pendulum-v1"},
            "rollout": {"num_groups": 2, "envs_per_group": 1, "steps_per_env": 16},
            "policy": {"hidden": [8]},
            "algorithm": {"name": name, "learning_starts": 40, "replay_capacity": 80, "batch_size": 8, "n_steps": 3},
            "evaluation": {"episodes": 1},
        }
    )
    rollout.forget()
    want = train(config, str(tmp_path / "whole"))
    save = checkpoint.Checkpoint.save

    class Stopped(Exception):
        """The process is gone."""

    def fail(self: checkpoint.Checkpoint, root: Any) -> None:
        if self.iteration == 3:
            raise Stopped
        save(self, root)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "save", fail)
        with pytest.raises(Stopped):
            train(config, str(tmp_path / "stopped"))
    rollout.forget()
    assert train(config, str(tmp_path / "stopped"), resume=True)["weights_sha256"] == want["weights_sha256"]
