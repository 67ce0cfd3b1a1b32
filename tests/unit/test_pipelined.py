"""Collecting one iteration ahead: one version of lag, deterministic, and stopped cleanly."""

import threading
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from helpers import hashes

from spark_rl.config import load_config
from spark_rl.data.store import RunStore
from spark_rl.experience import Silent
from spark_rl.rollout import run
from spark_rl.rollout.local import LocalCollector
from spark_rl.train import Trainer, train

PRESET = Path(__file__).parents[2] / "conf" / "ppo_cartpole.toml"
SMALL = ["rollout.envs_per_group=4", "rollout.steps_per_env=16", "evaluation.episodes=2", "run.env_steps=640",
         "rollout.pipelined=true"]  # fmt: skip


def versions(uri: Path) -> dict[int, set[int]]:
    """Iteration -> the policy versions of its rows."""
    table = ds.dataset(uri / "transitions", partitioning="hive").to_table(columns=["iteration", "policy_version"])
    pairs = set(zip(table["iteration"].to_pylist(), table["policy_version"].to_pylist(), strict=True))
    return {k: {version for iteration, version in pairs if iteration == k} for k, _ in pairs}


def test_an_iteration_is_acted_by_the_version_before_the_newest(tmp_path: Path) -> None:
    train(load_config(PRESET, SMALL), str(tmp_path / "run"))
    assert versions(tmp_path / "run") == {0: {0}, 1: {0}, 2: {1}, 3: {2}, 4: {3}}
    lags = [row["rollout/staleness_max"] for row in RunStore(str(tmp_path / "run")).read_metrics()]
    assert lags == [0, 1, 1, 1, 1]


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    one = train(load_config(PRESET, SMALL), str(tmp_path / "one"))
    run.forget()
    other = train(load_config(PRESET, SMALL), str(tmp_path / "other"))
    assert one["weights_sha256"] == other["weights_sha256"]
    assert hashes(tmp_path / "one") == hashes(tmp_path / "other")


def test_collecting_goes_on_while_the_learner_learns(tmp_path: Path) -> None:
    collecting, learning = threading.Event(), threading.Event()
    overlapped = []

    class Slow(LocalCollector):
        def collect(self, spec, tasks, weights):
            if tasks[0].iteration == 2:
                collecting.set()
                overlapped.append(learning.wait(30.0))
            return super().collect(spec, tasks, weights)

    trainer = Trainer(load_config(PRESET, SMALL), str(tmp_path / "run"), Slow(), Silent())
    update = trainer.learner.update

    def learn(batch, *, iteration, progress):
        if iteration == 1:
            overlapped.append(collecting.wait(30.0))
            learning.set()
        return update(batch, iteration=iteration, progress=progress)

    trainer.learner.update = learn
    trainer.run()
    assert overlapped == [True, True]


@pytest.mark.parametrize("failing", [1, 3])
def test_a_failed_run_resumes_to_the_same_bits(tmp_path: Path, failing: int) -> None:
    whole = train(load_config(PRESET, SMALL), str(tmp_path / "whole"))
    run.forget()
    trainer = Trainer(load_config(PRESET, SMALL), str(tmp_path / "broken"), LocalCollector(), Silent())
    update = trainer.learner.update

    def learn(batch, *, iteration, progress):
        if iteration == failing:
            raise MemoryError("no room")
        return update(batch, iteration=iteration, progress=progress)

    trainer.learner.update = learn
    with pytest.raises(MemoryError):
        trainer.run()
    run.forget()
    again = train(load_config(PRESET, SMALL), str(tmp_path / "broken"), resume=True)
    assert again["weights_sha256"] == whole["weights_sha256"]
    assert hashes(tmp_path / "broken") == hashes(tmp_path / "whole")


def test_an_early_stop_leaves_no_half_collected_iteration(tmp_path: Path) -> None:
    config = load_config(PRESET, [*SMALL, "evaluation.every=2", "evaluation.stop_at_return=1.0"])
    summary = train(config, str(tmp_path / "run"))
    assert summary["iterations"] == 2
    assert sorted(versions(tmp_path / "run")) == [0, 1]
    assert not list((tmp_path / "run").glob("_staging/*"))
