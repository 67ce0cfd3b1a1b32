"""Datasets without a learner: any behaviour, the same tables, resumable to the bit."""

import math
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
from helpers import hashes

from spark_rl.collect import collect
from spark_rl.config import load_config
from spark_rl.data.store import RunStore
from spark_rl.errors import UserError
from spark_rl.rollout import run
from spark_rl.train import train

PRESET = Path(__file__).parents[2] / "conf" / "ppo_cartpole.toml"
SMALL = ["rollout.envs_per_group=4", "rollout.steps_per_env=16", "evaluation.episodes=2"]


def config(*overrides: str, iterations: int = 3):
    return load_config(PRESET, [*SMALL, f"run.env_steps={iterations * 128}", *overrides])


def towards_the_fall(observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Push the cart to the side the pole leans to."""
    return (observation[:, 2] + observation[:, 3] > 0).astype(np.int64)


def a_coin_with_odds(observation: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    action = (rng.random(len(observation)) < 0.25).astype(np.int64)
    return action, np.log(np.where(action == 1, 0.25, 0.75))


def too_few_actions(observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.zeros(1, np.int64)


def rows(uri: Path):
    return ds.dataset(uri / "transitions", partitioning="hive").to_table()


def test_a_random_policy_tells_its_probability(tmp_path: Path) -> None:
    collect(config(), str(tmp_path / "run"))
    table = rows(tmp_path / "run")
    assert np.allclose(table["action_log_prob"].to_numpy(), math.log(0.5))
    assert 0.4 < table["action"].to_numpy().mean() < 0.6


def test_random_box_actions_are_uniform_within_their_bounds(tmp_path: Path) -> None:
    collect(config("env.id=Pendulum-v1"), str(tmp_path / "run"))
    table = rows(tmp_path / "run")
    action = table["action"].combine_chunks().flatten().to_numpy()
    assert np.allclose(table["action_log_prob"].to_numpy(), -math.log(4.0))  # torque within [-2, 2]
    assert action.min() < -1.5 and action.max() > 1.5 and abs(action.mean()) < 0.3


def test_a_script_decides_every_action(tmp_path: Path) -> None:
    collect(config(), str(tmp_path / "run"), policy=f"{__name__}:towards_the_fall")
    table = rows(tmp_path / "run")
    observation = table["observation"].combine_chunks().flatten().to_numpy().reshape(-1, 4)
    assert np.array_equal(table["action"].to_numpy(), towards_the_fall(observation, np.random.default_rng()))
    assert table["action_log_prob"].null_count == table.num_rows  # it does not say, so nobody guesses


def test_a_script_may_tell_its_probabilities(tmp_path: Path) -> None:
    collect(config(), str(tmp_path / "run"), policy=f"{__name__}:a_coin_with_odds")
    table = rows(tmp_path / "run")
    odds = np.where(table["action"].to_numpy() == 1, 0.25, 0.75)
    assert np.allclose(np.exp(table["action_log_prob"].to_numpy()), odds)


def test_a_trained_policy_collects_under_its_version(tmp_path: Path) -> None:
    train(config(iterations=2), str(tmp_path / "trained"))
    summary = collect(config(), str(tmp_path / "run"), policy=str(tmp_path / "trained"), policy_version=1)
    assert summary["policy_version"] == 1
    assert set(rows(tmp_path / "run")["policy_version"].to_pylist()) == {1}
    assert RunStore(str(tmp_path / "run")).read_weights(1) == RunStore(str(tmp_path / "trained")).read_weights(1)


def test_an_interrupted_collection_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    collect(config(), str(whole))
    publish = RunStore.publish

    def fail_at_the_second(self: RunStore, iteration: int, *rest: object, **named: object):
        if iteration == 1:
            raise OSError("the disk is gone")
        return publish(self, iteration, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "publish", fail_at_the_second)
        with pytest.raises(OSError, match="disk is gone"):
            collect(config(), str(broken))
    run.forget()
    collect(config(), str(broken), resume=True)
    assert hashes(broken) == hashes(whole)


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        (f"{__name__}:nobody", "nobody"),
        ("no.such.module:function", "No module named 'no'"),
        ("/no/such/run", "no run.json"),
    ],
)
def test_a_behaviour_that_is_not_there_is_refused(tmp_path: Path, policy: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        collect(config(), str(tmp_path / "run"), policy=policy)
    assert not (tmp_path / "run").exists()


def test_a_script_that_returns_something_else_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"too_few_actions: got actions \(1,\)"):
        collect(config(), str(tmp_path / "run"), policy=f"{__name__}:too_few_actions")


def test_a_policy_of_another_environment_is_refused(tmp_path: Path) -> None:
    train(config(iterations=1), str(tmp_path / "trained"))
    with pytest.raises(UserError, match="a policy for CartPole-v1"):
        collect(config("env.id=Acrobot-v1"), str(tmp_path / "run"), policy=str(tmp_path / "trained"))


def test_a_collection_is_resumed_with_its_own_policy_only(tmp_path: Path) -> None:
    collect(config(), str(tmp_path / "run"))
    with pytest.raises(UserError, match="use that"):
        collect(config(), str(tmp_path / "run"), policy=f"{__name__}:towards_the_fall", resume=True)
