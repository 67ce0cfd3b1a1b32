"""The DQN update against a slow one in plain autograd, for every choice of the family; and runs that are resumed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pydantic import ValidationError
from test_q_learning import slow_project
from test_replay import World, to_batch

from spark_rl import checkpoint, metrics, seeding
from spark_rl.algorithms.dqn import DQN
from spark_rl.algorithms.dqn_config import DQNConfig
from spark_rl.audit import audit
from spark_rl.config import RunConfig
from spark_rl.data import compact
from spark_rl.data.batch import Batch
from spark_rl.data.store import RunStore
from spark_rl.errors import RunError
from spark_rl.policies import weights
from spark_rl.policies.spec import PolicySpec
from spark_rl.rollout import run as rollout
from spark_rl.schema.spaces import Leaf, SpaceSpec
from spark_rl.train import train

VECTOR = SpaceSpec((Leaf("", "box", "float32", (1,), low=(-1.0,), high=(1.0,)),))
IMAGE = SpaceSpec((Leaf("", "box", "uint8", (36, 36, 1), low=(0.0,), high=(255.0,)),))
DISCRETE = SpaceSpec((Leaf("", "discrete", "int64", (), n=(3,), start=(0,)),))
FAMILY: dict[str, dict[str, Any]] = {
    "dqn": {},
    "double": {"double": True},
    "dueling": {"dueling": True},
    "n-step": {"n_steps": 3},
    "prioritized": {"prioritized": True},
    "categorical": {"distribution": "categorical", "num_atoms": 7, "value_min": -4.0, "value_max": 4.0},
    "quantile": {"distribution": "quantile", "num_atoms": 5},
    "noisy": {"noisy": True, "epsilon": 0.0, "epsilon_end": 0.0},
}
FAMILY["rainbow"] = {key: value for name in FAMILY if name != "quantile" for key, value in FAMILY[name].items()}


def vector(batch: Batch) -> Batch:
    """The world's numbers as small reals."""
    return dataclasses.replace(
        batch,
        observation={"": np.sin(batch.observation["place"])},
        final_observation={"": np.sin(batch.final_observation["place"])},
    )


def image(batch: Batch) -> Batch:
    """The world's numbers as pictures."""

    def draw(observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        number = observation["place"].astype(np.int64)[:, :, None, None]
        return {"": ((number * np.arange(1, 36 * 36 + 1).reshape(36, 36, 1)) % 251).astype(np.uint8)}

    return dataclasses.replace(batch, observation=draw(batch.observation),
                               final_observation=draw(batch.final_observation))  # fmt: skip


def make_dqn(*, observation: SpaceSpec = VECTOR, policy: dict | None = None, **keys: Any) -> DQN:
    chosen = {"hidden": (8, 8), "activation": "relu", **(policy or {})}
    spec = PolicySpec(observation=observation, action=DISCRETE, kind="q", **chosen)
    small = {"batch_size": 8, "replay_capacity": 40, "replay_ratio": 0.5, "learning_starts": 10, "learning_rate": 0.01,
             "target_every": 3, "discount": 0.9}  # fmt: skip
    return DQN(DQNConfig(**{**small, **keys}), spec, device="cpu", seed=7, num_envs=3)


def live(dqn: DQN, world: World, first: int, last: int, shape=vector) -> list[dict[str, float]]:
    """Iterations first ... last - 1 of the world."""
    return [dqn.update(shape(world.iteration()), iteration=k, progress=k / 10) for k in range(first, last)]


def slow_values(named: dict[str, torch.Tensor], x: torch.Tensor, config: DQNConfig, noise: dict) -> torch.Tensor:
    """[N, A, K], layer by layer; `noise` has a weight's and a bias's noise by name."""

    def layer(name: str, y: torch.Tensor) -> torch.Tensor:
        w, b = named[f"{name}.weight"], named[f"{name}.bias"]
        if config.noisy:
            w = w + named[f"{name}.weight_noise"] * noise[f"{name}.weight"]
            b = b + named[f"{name}.bias_noise"] * noise[f"{name}.bias"]
        return y @ w.T + b

    if not config.dueling:
        x = layer("q.1", layer("q.0", x).relu()).relu()
        return layer("q.head", x).view(len(x), 3, -1)
    x = layer("q.0", x).relu()
    advantage = layer("advantage.head", layer("advantage.hidden", x).relu()).view(len(x), 3, -1)
    value = layer("value.head", layer("value.hidden", x).relu())
    return torch.stack([value + advantage[:, a] - advantage.sum(1) / 3 for a in range(3)], 1)


def slow_noise(dqn: DQN, normal: np.ndarray) -> dict[str, torch.Tensor]:
    result, first = {}, 0
    for layer in dqn.network.layers.all if dqn.config.noisy else ():
        f = torch.from_numpy(np.sign(normal) * np.sqrt(np.abs(normal)))[first : first + layer.inputs + layer.outputs]
        first += len(f)
        result[f"{layer.name}.weight"] = torch.outer(f[layer.inputs :], f[: layer.inputs])
        result[f"{layer.name}.bias"] = f[layer.inputs :]
    return result


def slow_learn(dqn: DQN, rng: np.random.Generator, num_steps: int, progress: float) -> dict[str, torch.Tensor]:
    """All gradient steps of the first update, row by row with autograd and torch's Adam. The rows are the replay's."""
    config, replay = dqn.config, dqn._window.replay
    named = {name: torch.from_numpy(array).requires_grad_() for name, array in dqn.network.weights().items()}
    target = {name: torch.from_numpy(array) for name, array in dqn.target.weights().items()}
    optimizer = torch.optim.Adam(named.values(), lr=config.learning_rate, eps=config.adam_eps)
    atoms = torch.linspace(config.value_min, config.value_max, config.num_outputs)
    normals = rng.standard_normal((num_steps, 2, dqn.network.noise_size), dtype=np.float32)
    uniform = None if config.prioritized else replay.draw(rng, num_steps * config.batch_size)
    for step in range(num_steps):
        beta = config.priority_beta + (1 - config.priority_beta) * progress
        weight = np.ones(config.batch_size)
        if config.prioritized:
            place, weight = replay.draw_prioritized(rng, config.batch_size, beta=beta)
        else:
            place = uniform[step * config.batch_size : (step + 1) * config.batch_size]
        rows = replay.sample(place, num_steps=config.n_steps, discount=config.discount)
        here, there = torch.from_numpy(rows.observation[""]), torch.from_numpy(rows.next_observation[""])
        online_noise, target_noise = (slow_noise(dqn, normal) for normal in normals[step])
        scores = slow_values(named, here, config, online_noise)
        with torch.no_grad():
            next_scores = slow_values(target, there, config, target_noise)
            chooser = slow_values(named, there, config, online_noise) if config.double else next_scores
        losses, priority = [], []
        for i in range(config.batch_size):

            def mean(x: torch.Tensor) -> float:
                return float(torch.softmax(x, 0) @ atoms if config.distribution == "categorical" else x.mean())

            best = max(range(3), key=lambda a: mean(chooser[i, a]))
            predicted, future = scores[i, int(rows.action[i])], next_scores[i, best]
            reward, bootstrap = float(rows.reward[i]), float(rows.bootstrap[i])
            if config.distribution == "categorical":
                goal = slow_project(reward, bootstrap, torch.softmax(future, 0).tolist(), atoms.tolist())
                loss = -(torch.tensor(goal) * torch.log_softmax(predicted, 0)).sum()
                priority.append(loss.item())
            elif config.distribution == "quantile":
                loss, num = torch.zeros(()), len(predicted)
                for j in range(num):
                    for sample in (reward + bootstrap * future).tolist():
                        error = sample - predicted[j]
                        huber = 0.5 * error**2 if error.abs() <= 1.0 else error.abs() - 0.5
                        loss = loss + abs((j + 0.5) / num - float(error < 0.0)) * huber / num
                priority.append(loss.item())
            else:
                error = reward + bootstrap * float(future) - predicted[0]
                loss = 0.5 * error**2 if error.abs() <= 1.0 else error.abs() - 0.5
                priority.append(abs(error.item()))
            losses.append(float(weight[i]) * loss)
        optimizer.zero_grad()
        (sum(losses) / config.batch_size).backward()
        torch.nn.utils.clip_grad_norm_(named.values(), config.max_grad_norm)
        optimizer.step()
        if config.prioritized:
            replay.set_priorities(place, (np.asarray(priority) + 1e-6) ** config.priority_exponent)
        if (step + 1) % config.target_every == 0:
            for name, tensor in target.items():
                tensor.lerp_(named[name].detach(), config.target_share)
    return named


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("more", [{}, {"max_grad_norm": 0.1, "target_every": 1, "target_share": 0.3}])
def test_update_equals_a_slow_one(name: str, more: dict[str, Any]) -> None:
    keys = {"learning_starts": 26, "n_steps": 2, **FAMILY[name], **more}
    fast, slow = make_dqn(**keys), make_dqn(**keys)
    world = World()
    for k in range(2):
        batch = vector(world.iteration())
        slow._window.append(batch, k)
        facts = fast.update(batch, iteration=k, progress=0.5 * k)
    assert facts["learner/gradient_steps"] == 5.0
    want = slow_learn(slow, seeding.generator(7, seeding.LEARNER, 1), 5, 0.5)
    before = make_dqn(**keys).weights()
    for part, got in fast.network.weights().items():
        if not part.endswith("_noise"):
            assert np.abs(got - before[part]).max() > 1e-3, f"{part} did not move"
        assert_allclose(got, want[part].detach(), atol=3e-4, err_msg=part)


BUGS = {
    "done for terminated": lambda b: {"terminated": b.terminated | b.truncated},
    "successor off by one": lambda b: {"final_observation": {"": np.roll(b.final_observation[""], 1, axis=0)}},
    "action of another row": lambda b: {"action": np.roll(b.action, 1)},
}


@pytest.mark.parametrize("bug", [*BUGS, "no double", "one step for two"])
def test_the_slow_update_catches_planted_bugs(bug: str) -> None:
    keys = {"learning_starts": 0, "n_steps": 2, "double": True, "replay_ratio": 1.0, "target_every": 4}
    wrong = {"no double": {"double": False}, "one step for two": {"n_steps": 1}}.get(bug, {})
    fast, slow, batch = make_dqn(**{**keys, **wrong}), make_dqn(**keys), vector(World().iteration())
    slow._window.append(batch, 0)
    want = slow_learn(slow, seeding.generator(7, seeding.LEARNER, 0), 18, 0.0)
    fast.update(dataclasses.replace(batch, **BUGS[bug](batch)) if bug in BUGS else batch, iteration=0, progress=0.0)
    assert max(np.abs(got - want[part].detach().numpy()).max() for part, got in fast.network.weights().items()) > 2e-3


def test_updates_keep_their_ratio_to_env_steps_whatever_an_iteration_holds() -> None:
    dqn, world = make_dqn(replay_ratio=0.3, learning_starts=20), World()
    sizes = [(5, 7, 6), (1, 1, 0), (1, 0, 0), (8, 7, 9)]
    done = [
        dqn.update(vector(world.iteration(size)), iteration=k, progress=0.0)["learner/gradient_steps"]
        for k, size in enumerate(sizes)
    ]
    assert done == [0, 0, 0, 7]  # 18, 20, 21, 45 rows: floor(0.3 * 25)


def test_epsilon_follows_the_env_steps_and_travels_with_the_weights() -> None:
    dqn, world = make_dqn(epsilon_end=0.1, epsilon_steps=36, epsilon_ladder=7.0), World()
    seen = [float(dqn.weights()["explore.epsilon"])]
    for k in range(3):
        live(dqn, world, k, k + 1)
        seen.append(float(dqn.weights()["explore.epsilon"]))
    assert_allclose(seen, [1.0, 0.55, 0.1, 0.1])
    assert dqn.weights()["explore.ladder"] == 7.0
    falling = make_dqn(epsilon_end=0.01, epsilon_steps=36, epsilon_schedule="exponential")
    live(falling, World(), 0, 1)
    assert float(falling.weights()["explore.epsilon"]) == pytest.approx(0.1)


CASES = [*FAMILY, "normalised", "picture"]


def case(name: str) -> tuple[DQN, Any]:
    if name == "normalised":
        return make_dqn(policy={"normalize_observation": True}), vector
    if name == "picture":
        cnn = {"network": "nature_cnn", "hidden": (8,)}
        return make_dqn(observation=IMAGE, policy=cnn, dueling=True, noisy=True, prioritized=True), image
    return make_dqn(**FAMILY[name]), vector


@pytest.mark.parametrize("name", CASES)
def test_a_restored_state_goes_on_as_if_nothing_had_happened(name: str) -> None:
    (undisturbed, shape), (restored, _) = case(name), case(name)
    world = World()
    live(undisturbed, world, 0, 4, shape)
    state = weights.decode(weights.encode({k: v for k, v in undisturbed.state_dict().items() if hasattr(v, "shape")}))
    scalars = {k: v for k, v in undisturbed.state_dict().items() if not hasattr(v, "shape")}
    restored.load_state_dict({**state, **json.loads(json.dumps(scalars))})
    assert restored.window == [2, 3]
    for k in restored.window:
        lived = world.lived[k]
        restored.recall(shape(to_batch(lived)), iteration=k)
    for k in range(4, 6):
        batch = shape(world.iteration())
        facts = [dqn.update(batch, iteration=k, progress=k / 10) for dqn in (undisturbed, restored)]
        assert facts[0] == facts[1]
        assert facts[0]["learner/gradient_steps"] == 9.0
        metrics.check(facts[0])
    one, other = ({**dqn.state_dict()} for dqn in (undisturbed, restored))
    for part, value in one.items():
        np.testing.assert_array_equal(value, other[part], err_msg=part)


def config(**algorithm: Any) -> RunConfig:
    """A run of 6 iterations of 2 groups of 2 environments with 16 steps; the window holds two and a half of them."""
    return RunConfig.from_dict(
        {
            "run": {"env_steps": 6 * 64, "seed": 3},
            "env": {"id": "CartPole-v1"},
            "rollout": {"num_groups": 2, "envs_per_group": 2, "steps_per_env": 16},
            "policy": {"hidden": [8]},
            "algorithm": {"name": "dqn", "learning_starts": 30, "replay_capacity": 160, "n_steps": 3, **algorithm},
            "evaluation": {"episodes": 2},
        }
    )


class Stopped(Exception):
    """The process is gone."""


@pytest.mark.parametrize("at", [0, 1, 3, 5])
@pytest.mark.parametrize("choice", ["n-step", "rainbow"])
def test_a_run_stopped_before_a_checkpoint_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str, at: int
) -> None:
    chosen = config(**FAMILY[choice])
    rollout.forget()
    want = train(chosen, str(tmp_path / "whole"))
    save = checkpoint.Checkpoint.save

    def fail(self: checkpoint.Checkpoint, root: Any) -> None:
        if self.iteration == at:
            raise Stopped
        save(self, root)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "save", fail)
        with pytest.raises(Stopped):
            train(chosen, str(tmp_path / "stopped"))
    rollout.forget()
    got = train(chosen, str(tmp_path / "stopped"), resume=True)
    assert got["weights_sha256"] == want["weights_sha256"]
    assert got["iterations"] == 6


def test_retention_leaves_what_a_resumed_learner_would_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One iteration is to be kept; the window of 2 and that of the checkpoint before stay all the same."""
    monkeypatch.setattr(compact, "age_s", lambda commit: 1e9)
    tables = config().to_dict()
    tables["store"]["keep_iterations"] = 1
    tables["env"] |= {"vectorization": "sync", "carry": "snapshot"}  # no iteration is needed for a replay of actions
    rollout.forget()
    train(RunConfig.from_dict(tables), str(tmp_path / "run"))
    found = RunStore(str(tmp_path / "run")).iterations()
    assert found == [3, 4, 5]
    saved = checkpoint.load(RunStore(str(tmp_path / "run")).root, 4)
    assert saved is not None and json.loads(saved.state_scalars)["window.iterations"] == [3, 4]


def test_an_audit_learns_again_from_a_checkpoint_and_its_window(tmp_path: Path) -> None:
    rollout.forget()
    train(config(**FAMILY["rainbow"]), str(tmp_path / "run"))
    assert audit(str(tmp_path / "run"), iterations=[5])["policy_versions"] == 1


def test_a_window_that_is_not_given_again_is_noticed() -> None:
    dqn, restored = make_dqn(), make_dqn()
    world = World()
    live(dqn, world, 0, 3)
    restored.load_state_dict(dqn.state_dict())
    with pytest.raises(RunError, match="iteration 1 first"):
        live(restored, world, 3, 4)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"distribution": "categorical", "value_min": 1.0, "value_max": 1.0}, "value_min < value_max"),
        ({"epsilon_schedule": "exponential", "epsilon_end": 0.0}, "epsilon_end above 0"),
        ({"batch_size": 64, "replay_capacity": 32}, "replay_capacity of at least"),
        ({"n_step": 3}, "n_step"),
    ],
)
def test_impossible_choices_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DQNConfig(**keys)
