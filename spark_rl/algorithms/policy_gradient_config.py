"""What can be set about A2C, REINFORCE and IMPALA. This module imports no torch, so that a mistake is told at once."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from spark_rl.algorithms.ppo_config import Schedule


class PolicyGradientConfig(BaseModel):
    """The keys of [algorithm] that these algorithms have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    learning_rate: float = Field(7e-4, gt=0.0, description="the optimizer's step size")
    learning_rate_schedule: Schedule = Field("constant", description="linear: falls to 0 at the end of the run")
    discount: float = Field(0.99, ge=0.0, le=1.0, description="gamma, per env step")
    entropy_coef: float = Field(0.0, ge=0.0, description="weight of the entropy bonus, per nat")
    value_coef: float = Field(0.5, ge=0.0, description="weight of the squared value error")
    max_grad_norm: float = Field(0.5, gt=0.0, description="global norm to which a gradient is shortened")
    normalize_advantage: bool = Field(False, description="zero mean and unit deviation over the iteration's rows")
    normalize_return: bool = Field(False, description="divide rewards by the running deviation of the return")
    sequence_length: int = Field(
        16, ge=1, description="env steps that a gradient goes back through a recurrent policy's memory"
    )


class A2CConfig(PolicyGradientConfig):
    """Section [algorithm] with name = "a2c". Defaults are stable-baselines3's."""

    name: Literal["a2c"] = "a2c"
    gae_lambda: float = Field(1.0, ge=0.0, le=1.0, description="1: n-step returns, as published; 0: one-step targets")
    rmsprop_decay: float = Field(0.99, gt=0.0, lt=1.0, description="of the mean square gradient, per gradient step")
    rmsprop_eps: float = Field(1e-5, gt=0.0, description="under the root")


class ReinforceConfig(PolicyGradientConfig):
    """Section [algorithm] with name = "reinforce"."""

    name: Literal["reinforce"] = "reinforce"
    learning_rate: float = Field(1e-2, gt=0.0, description="Adam's step size")
    baseline: bool = Field(True, description="take a learned value off the returns; it also stands for unseen rest")
    normalize_advantage: bool = Field(True, description="zero mean and unit deviation over the rows that count")
    adam_eps: float = Field(1e-5, gt=0.0, description="Adam's epsilon")


class ImpalaConfig(PolicyGradientConfig):
    """Section [algorithm] with name = "impala". Clips and RMSprop after the source's table D.1."""

    name: Literal["impala"] = "impala"
    rho_clip: float = Field(1.0, gt=0.0, description="most weight of one temporal difference")
    c_clip: float = Field(1.0, gt=0.0, description="most weight with which a difference is passed back a step")
    trace_lambda: float = Field(1.0, ge=0.0, le=1.0, description="0: one-step targets; 1: to the end of the fragment")
    rmsprop_decay: float = Field(0.99, gt=0.0, lt=1.0, description="of the mean square gradient, per gradient step")
    rmsprop_eps: float = Field(1e-5, gt=0.0, description="under the root")
