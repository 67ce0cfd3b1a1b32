"""Presets against score thresholds: greedy mean of 100 episodes, within the preset's budget, for every seed.

Rollouts run in this process (the rows are the same as on Spark, which other tests show), so that the scores do not pay
for a JVM.
"""

from pathlib import Path

import pytest

from spark_rl.config import load_config
from spark_rl.train import train

CONF = Path(__file__).parents[2] / "conf"

pytestmark = pytest.mark.learning


@pytest.mark.parametrize(
    ("preset", "threshold", "budget", "seeds"),
    [
        ("ppo_cartpole", 475.0, 100_000, 5),
        ("ppo_acrobot", -90.0, 500_000, 3),
        ("ppo_pendulum", -250.0, 200_000, 3),
        ("ppo_lunarlander", 200.0, 1_000_000, 3),
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


def test_pong_improves_through_the_cnn(tmp_path: Path) -> None:
    """A CPU does not play Pong well in an hour; the value of what was seen must at least be learned.

    Full score is a matter of 10 million frames on a GPU. Here: the critic explains more of the returns at the end than
    at the beginning, and the policy has moved from uniform without collapsing.
    """
    config = load_config(CONF / "ppo_pong.toml", ["run.env_steps=40960"])
    from spark_rl.data.store import RunStore

    train(config, str(tmp_path / "run"))
    rows = RunStore(str(tmp_path / "run")).read_metrics()
    explained = [row["learner/explained_variance"] for row in rows]
    assert sum(explained[-5:]) / 5 > sum(explained[:5]) / 5 + 0.2, explained
    assert 0.2 < rows[-1]["learner/entropy"] < 1.79
