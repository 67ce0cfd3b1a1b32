"""What can be set about PPO."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Schedule = Literal["constant", "linear"]


class PPOConfig(BaseModel):
    """Section [algorithm] with name = "ppo". Defaults are stable-baselines3's, where nothing else is said.

    Source of the defaults: Schulman et al. 2017, arXiv:1707.06347, table 3 (MuJoCo), and Raffin et al. 2021.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Literal["ppo"] = "ppo"
    learning_rate: float = Field(3e-4, gt=0.0, description="Adam's step size")
    learning_rate_schedule: Schedule = Field("constant", description="linear: falls to 0 at the end of the run")
    num_epochs: int = Field(10, ge=1, description="passes over an iteration's rows")
    minibatch_size: int = Field(
        64, ge=1, description="most rows of a gradient step; minibatches of an epoch are of equal size"
    )
    discount: float = Field(0.99, ge=0.0, le=1.0, description="gamma, per env step")
    gae_lambda: float = Field(0.95, ge=0.0, le=1.0, description="0: one-step targets; 1: full returns")
    clip: float = Field(0.2, gt=0.0, description="how far a probability ratio may move and still be rewarded")
    clip_schedule: Schedule = Field("constant", description="linear: falls to 0 at the end of the run")
    value_clip: float = Field(0.0, ge=0.0, description="most change of a value an iteration, reward units; 0: no limit")
    entropy_coef: float = Field(0.0, ge=0.0, description="weight of the entropy bonus, per nat")
    value_coef: float = Field(0.5, ge=0.0, description="weight of the squared value error")
    max_grad_norm: float = Field(0.5, gt=0.0, description="global norm to which a gradient is shortened")
    target_kl: float = Field(
        0.0, ge=0.0, description="no further epoch once the mean KL of one exceeds 1.5 times this, nats; 0: no limit"
    )
    normalize_advantage: bool = Field(True, description="zero mean and unit deviation in every minibatch")
    normalize_return: bool = Field(False, description="divide rewards by the running deviation of the return")
    sequence_length: int = Field(
        16, ge=1, description="env steps that a gradient goes back through a recurrent policy's memory"
    )
    adam_eps: float = Field(1e-5, gt=0.0, description="Adam's epsilon; OpenAI baselines' value, torch's is 1e-8")


def scheduled(value: float, schedule: Schedule, progress: float) -> float:
    """The value at `progress`, the share of the run's env steps already taken, [0, 1]."""
    return value * (1.0 - progress) if schedule == "linear" else value
