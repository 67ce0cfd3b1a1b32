"""DQN's, SAC's and TD3's presets: every seed within its budget, as in test_ppo."""

from pathlib import Path

import pytest

from spark_rl.config import load_config
from spark_rl.train import train

CONF = Path(__file__).parents[2] / "conf"

pytestmark = pytest.mark.learning


@pytest.mark.parametrize(
    ("preset", "threshold", "budget", "seeds"),
    [
        ("dqn_cartpole", 475.0, 50_000, 5),
        ("sac_pendulum", -200.0, 20_000, 3),
        ("td3_pendulum", -200.0, 20_000, 3),
    ],
)
def test_a_preset_reaches_its_threshold_for_every_seed(
    tmp_path: Path, preset: str, threshold: float, budget: int, seeds: int
) -> None:
    scores = []
    for seed in range(seeds):
        config = load_config(CONF / f"{preset}.toml", [f"run.seed={seed}"])
        summary = train(config, str(tmp_path / str(seed)))
        assert summary["env_steps"] <= budget
        scores.append(round(summary["evaluation_return_mean"], 1))
    print(f"{preset}: {scores}")  # shown with -rP, for the README
    assert min(scores) >= threshold, scores
