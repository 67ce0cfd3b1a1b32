"""Device, precision, non-finite updates, and a state that is safetensors and JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from spark_rl.algorithms.ppo import PPO
from spark_rl.algorithms.ppo_config import PPOConfig
from spark_rl.data.batch import Batch
from spark_rl.errors import RunError, UserError
from spark_rl.learner import Learner, resolve_device, resolve_precision
from spark_rl.learner_base import pack_state, unpack_state
from spark_rl.policies import weights
from spark_rl.policies.spec import PolicySpec
from spark_rl.schema.spaces import Leaf, SpaceSpec

POLICY = PolicySpec(
    observation=SpaceSpec((Leaf("", "box", "float32", (2,), low=(-1.0,), high=(1.0,)),)),
    action=SpaceSpec((Leaf("", "discrete", "int64", (), n=(2,), start=(0,)),)),
    hidden=(4,),
)
N = 16


def make_learner(**choices: Any) -> Learner:
    return Learner(PPO, PPOConfig(num_epochs=2, minibatch_size=8), POLICY, seed=0, num_envs=2, **choices)


def make_batch(reward: float = 1.0) -> Batch:
    rng = np.random.default_rng(0)
    observation = {"": rng.standard_normal((N, 2)).astype(np.float32)}
    for array in observation.values():
        array.flags.writeable = False  # as Arrow's zero-copy columns are
    return Batch(
        observation=observation,
        action=rng.integers(0, 2, N),
        raw_action=None,
        reward=np.full(N, reward),
        terminated=np.zeros(N, bool),
        truncated=np.zeros(N, bool),
        action_log_prob=np.full(N, np.log(0.5), np.float32),
        policy_version=np.full(N, 3),
        episode_id=np.zeros(N, np.int64),
        t=np.arange(N, dtype=np.int32),
        env_index=np.repeat(np.arange(2, dtype=np.int32), N // 2),
        last_row=np.asarray([7, 15]),
        final_observation={"": np.zeros((2, 2), np.float32)},
    )


@pytest.mark.filterwarnings("error")
def test_save_and_load_go_on_to_the_same_bits() -> None:
    undisturbed, killed, restored = (make_learner() for _ in range(3))
    for learner in (undisturbed, killed):
        learner.update(make_batch(), iteration=0, progress=0.0)
    tensors, scalars = killed.save()
    restored.load(tensors, scalars, read=lambda k: pytest.fail(f"PPO asked for iteration {k}"))
    json.loads(scalars)
    for learner in (undisturbed, restored):
        learner.update(make_batch(2.0), iteration=1, progress=0.5)
    assert undisturbed.save() == restored.save()
    assert weights.encode(undisturbed.weights()) == weights.encode(restored.weights())


def test_an_update_that_is_not_finite_stops_the_run_and_says_where() -> None:
    with pytest.raises(RunError) as caught:
        make_learner().update(make_batch(float("nan")), iteration=12, progress=0.0)
    message = str(caught.value)
    assert "update of iteration 12 (16 rows of policy versions 3 to 3)" in message
    assert "= nan" in message


def test_a_state_is_split_into_arrays_and_json_without_pickle() -> None:
    state = {"a": torch.arange(3.0), "b": np.asarray(2, np.int64), "c": 1.5, "d": [1, "x"], "e": None}
    tensors, scalars = pack_state(state)
    assert sorted(weights.decode(tensors)) == ["a", "b"]
    got = unpack_state(tensors, scalars)
    assert_array_equal(got["a"], [0.0, 1.0, 2.0])
    assert got["b"] == 2
    assert (got["c"], got["d"], got["e"]) == (1.5, [1, "x"], None)
    with pytest.raises(TypeError):
        pack_state({"f": object()})


def test_threads_and_device_are_what_was_asked_for() -> None:
    threads = torch.get_num_threads()
    try:
        learner = make_learner(device="cpu", num_threads=2)
        assert learner.description["num_threads"] == 2
        assert learner.description["device"] == "cpu"
        assert make_learner(num_threads=1).description["num_threads"] == 1
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_a_user_error(name: str) -> None:
    with pytest.raises(UserError, match=f"learner.device: got '{name}'"):
        resolve_device(name)


def test_mixed_precision_needs_cuda_and_an_mlp_does_without() -> None:
    cpu = torch.device("cpu")
    assert not resolve_precision("auto", cpu, POLICY)
    assert not resolve_precision("off", cpu, POLICY)
    with pytest.raises(UserError, match="a CUDA device with bfloat16"):
        resolve_precision("bfloat16", cpu, POLICY)
    with pytest.raises(UserError, match="learner.mixed_precision: got 'float16'"):
        resolve_precision("float16", cpu, POLICY)
