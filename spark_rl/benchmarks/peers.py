"""How fast others collect: stable-baselines3's own rollout loop, in a process of its own."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

from spark_rl.benchmarks.crew import Stepper
from spark_rl.envs.make import make_single
from spark_rl.envs.spec import EnvSpec
from spark_rl.errors import UserError

_BUFFER_STEPS = 32  # vector steps between two buffers; rl-zoo's CartPole value


def require_stable_baselines3() -> None:
    """UserError that names the extra where it is not installed."""
    if find_spec("stable_baselines3") is None:
        raise UserError("the comparison with stable-baselines3", "no module 'stable_baselines3'", "the extra 'bench'",
                        "pip install 'spark-rl[bench]'")  # fmt: skip


def stable_baselines3(env: EnvSpec, network: str, num_envs: int) -> Stepper:
    """PPO.collect_rollouts over a DummyVecEnv, into its rollout buffer; every step is a transition there."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import CallbackList
    from stable_baselines3.common.vec_env import DummyVecEnv

    envs = DummyVecEnv([partial(make_single, env)] * num_envs)
    policy = "CnnPolicy" if network == "nature_cnn" else "MlpPolicy"
    model: Any = PPO(policy, envs, n_steps=_BUFFER_STEPS, batch_size=num_envs * _BUFFER_STEPS, device="cpu")
    # What learn() prepares before its first rollout.
    _, callback = model._setup_learn(total_timesteps=2**31, callback=CallbackList([]))

    def run(steps: int) -> int:
        done = 0
        while done < steps:
            model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=_BUFFER_STEPS)
            done += _BUFFER_STEPS
        return done * num_envs

    return run
