"""Tabular presets reach their scores, exactly evaluated; and exploration decides where dithering fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from spark_rl.config import RunConfig, load_config
from spark_rl.evaluation.exact_run import evaluate_exactly
from spark_rl.train import train

CONF = Path(__file__).parents[2] / "conf"
FROZEN_LAKE = "q_learning_frozenlake"
# What exact evaluation must give at least; what the optimum is stands in the presets.
CASES = [
    (FROZEN_LAKE, (), 0.73),
    (FROZEN_LAKE, ("algorithm.name=double_q_learning",), 0.73),
    # It values the policy that explores, whose greedy part is another one: 0.7298 within 100 steps.
    (FROZEN_LAKE, ("algorithm.name=expected_sarsa",), 0.72),
    ("q_learning_frozenlake8x8", (), 0.84),
    ("q_learning_cliffwalking", (), -13.0),
    ("q_learning_taxi", (), 7.5),
]


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("preset", "overrides", "wanted"), CASES)
def test_a_preset_reaches_its_score(tmp_path: Path, preset: str, overrides: tuple, wanted: float, seed: int) -> None:
    config = load_config(CONF / f"{preset}.toml", [f"run.seed={seed}", *overrides])
    train(config, str(tmp_path / "run"))
    assert evaluate_exactly(str(tmp_path / "run"))["value"] >= wanted


def test_cliff_walking_is_solved_exactly(tmp_path: Path) -> None:
    """The quick one of the above, and that the command's figures are its optimum."""
    train(load_config(CONF / "q_learning_cliffwalking.toml", ["run.env_steps=8000"]), str(tmp_path / "run"))
    found = evaluate_exactly(str(tmp_path / "run"))
    assert found["value"] == found["best_value"] == -13.0
    assert found["horizon_env_steps"] == 200
    assert evaluate_exactly(str(tmp_path / "run"), policy_version=0)["value"] < -100.0


def solved_after(run: Path, size: int, num_episodes: int, **algorithm: object) -> int | None:
    """Episodes until fewer than 0.8 of all so far were bad, bsuite's rule; None if that never happened."""
    config = RunConfig.from_dict({
        "run": {"env_steps": num_episodes * size},
        "env": {"id": "spark_rl.envs.gridworlds:DeepSea", "kwargs": {"size": size}},
        "rollout": {"num_groups": 1, "envs_per_group": 8, "steps_per_env": size},
        "algorithm": {"name": "q_learning", "discount": 1.0, "step_size": 1.0} | algorithm,
        "evaluation": {"episodes": 1},
    })  # fmt: skip
    train(config, str(run))
    files = [run / f"episodes/iteration={k}/part-00000.parquet" for k in range(config.num_iterations)]
    returns = np.concatenate([pq.read_table(file)["episode_return"].to_numpy() for file in files])
    assert len(returns) == num_episodes
    share = np.cumsum(returns < 0.5) / np.arange(1, num_episodes + 1)
    solved = np.flatnonzero(share < 0.8)
    return int(solved[0]) + 1 if len(solved) else None


DEEP = {"exploration": "greedy", "initial_value": 1.0, "count_bonus": 0.002, "replay_ratio": 100.0}
DITHERING = {"epsilon": 1.0, "epsilon_end": 0.1, "replay_ratio": 20.0}


def test_a_count_bonus_finds_the_treasure_of_a_deep_sea_of_ten(tmp_path: Path) -> None:
    solved = solved_after(tmp_path / "run", 10, 320, **DEEP)
    assert solved is not None and solved < 320


@pytest.mark.learning
def test_exploration_matters_in_a_deep_sea_of_twenty(tmp_path: Path) -> None:
    solved = solved_after(tmp_path / "deep", 20, 1600, **DEEP)
    assert solved is not None and solved < 1600
    assert solved_after(tmp_path / "dithering", 20, 2000, **DITHERING) is None
