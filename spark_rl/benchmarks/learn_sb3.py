"""One seed of `benchmark learn`, the peer: stable-baselines3's PPO as rl-zoo tuned it. Run with a JSON trial.

Hyperparameters: rl-baselines3-zoo, hyperparams/ppo.yml, CartPole-v1.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

_BUDGET = 100_000  # env steps
_NUM_ENVS, _STEPS = 8, 32


def main(trial: dict[str, Any]) -> dict[str, float]:
    """Train until the target is reached; see `learn` for what the clocks cover."""
    began = time.perf_counter()
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    class StopAtReturn(BaseCallback):
        """Evaluates between two rollouts; what it takes is kept apart."""

        def __init__(self) -> None:
            super().__init__()
            self.evaluation_s = 0.0
            self.return_mean = float("-inf")
            self.env_steps = 0
            self._episodes = make_vec_env("CartPole-v1", n_envs=trial["episodes"])

        def evaluate(self) -> None:
            started = time.perf_counter()
            self._episodes.seed(10_000)  # the same starts each time, none of them a training environment's
            scores: Any = evaluate_policy(self.model, self._episodes, n_eval_episodes=trial["episodes"])
            self.return_mean = float(scores[0])
            self.env_steps = self.num_timesteps
            self.evaluation_s += time.perf_counter() - started

        def _on_rollout_start(self) -> None:
            if self.num_timesteps and self.num_timesteps % trial["block_steps"] < _NUM_ENVS * _STEPS:
                self.evaluate()

        def _on_step(self) -> bool:
            return self.return_mean < trial["target"]

    if trial["threads"]:
        torch.set_num_threads(trial["threads"])
    stop = StopAtReturn()
    start_s = time.perf_counter() - began
    began = time.perf_counter()
    model = PPO(
        "MlpPolicy", make_vec_env("CartPole-v1", n_envs=_NUM_ENVS, seed=trial["seed"]), seed=trial["seed"],
        n_steps=_STEPS, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20, ent_coef=0.0,
        learning_rate=linear(0.001), clip_range=linear(0.2), device="cpu",
    )  # fmt: skip
    model.learn(total_timesteps=_BUDGET, callback=stop)
    if stop.return_mean < trial["target"]:
        stop.evaluate()
    train_s = time.perf_counter() - began - stop.evaluation_s
    return {"train_s": train_s, "start_s": start_s, "evaluation_s": stop.evaluation_s, "env_steps": stop.env_steps,
            "return_mean": stop.return_mean}  # fmt: skip


def linear(first: float) -> Callable[[float], float]:
    """rl-zoo's `lin_`: falls from `first` to 0 with the share of the budget that is left."""
    return lambda left: left * first


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))) + "\n")
