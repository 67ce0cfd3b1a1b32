"""What can be set about the DQN family."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DQNConfig(BaseModel):
    """Section [algorithm] with name = "dqn". Defaults are stable-baselines3's, where nothing else is said.

    The family: double, dueling, n_steps, prioritized, noisy and distribution can each be chosen alone or together.
    Rainbow is all of them, with distribution = "categorical". Source: Hessel et al. 2018, arXiv:1710.02298.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    policy_kind: ClassVar[str] = "q"

    name: Literal["dqn"] = "dqn"
    learning_rate: float = Field(1e-4, gt=0.0, description="Adam's step size")
    learning_rate_schedule: Literal["constant", "linear"] = Field("constant", description="linear: 0 at the run's end")
    discount: float = Field(0.99, ge=0.0, le=1.0, description="gamma, per env step")
    batch_size: int = Field(32, ge=1, description="rows of a gradient step")
    replay_capacity: int = Field(1_000_000, ge=1, description="rows; the window is the whole iterations that fit")
    replay_ratio: float = Field(0.25, gt=0.0, description="gradient steps per env step; x batch_size: samples a row")
    learning_starts: int = Field(100, ge=0, description="env steps before the first gradient step")
    target_every: int = Field(1000, ge=1, description="gradient steps between moves of the target network")
    target_share: float = Field(1.0, gt=0.0, le=1.0, description="how far the target network moves; 1: a copy")
    max_grad_norm: float = Field(10.0, gt=0.0, description="global norm to which a gradient is shortened")
    adam_eps: float = Field(1e-8, gt=0.0, description="Adam's epsilon")

    epsilon: float = Field(1.0, ge=0.0, le=1.0, description="share of random actions at the beginning")
    epsilon_end: float = Field(0.05, ge=0.0, le=1.0, description="and at the end of the schedule")
    epsilon_steps: int = Field(10_000, ge=1, description="env steps until the schedule's end")
    epsilon_schedule: Literal["linear", "exponential"] = "linear"
    epsilon_ladder: float = Field(
        0.0, ge=0.0, description="Ape-X's alpha: one epsilon a group; 7 in the source, 0: off"
    )

    double: bool = Field(False, description="the online network chooses the action that the target network values")
    dueling: bool = Field(False, description="streams for the state's value and the actions' advantages")
    noisy: bool = Field(False, description="noise in the weights explores; set epsilon and epsilon_end to 0 with it")
    n_steps: int = Field(1, ge=1, description="rewards summed before the target bootstraps; 3 in Rainbow")
    prioritized: bool = Field(False, description="draw rows in proportion to their last TD error")
    priority_exponent: float = Field(0.6, ge=0.0, le=1.0, description="alpha; 0: uniform")
    priority_beta: float = Field(
        0.4, ge=0.0, le=1.0, description="of the importance weights, at the beginning; 1 at the run's end"
    )
    distribution: Literal["none", "categorical", "quantile"] = Field(
        "none", description="what is learned about returns: their mean, C51's atoms, or QR-DQN's quantiles"
    )
    num_atoms: int = Field(51, ge=2, description="of the distribution; 200 quantiles in QR-DQN's source")
    value_min: float = Field(-10.0, description="smallest return that categorical knows, reward units")
    value_max: float = Field(10.0, description="largest return that categorical knows, reward units")

    @model_validator(mode="after")
    def _consistent(self) -> DQNConfig:
        if self.distribution == "categorical" and self.value_min >= self.value_max:
            raise ValueError(f"value_min < value_max; they are {self.value_min:g} and {self.value_max:g}")
        if self.epsilon_schedule == "exponential" and 0.0 in (self.epsilon, self.epsilon_end):
            raise ValueError("an epsilon_end above 0: an exponential schedule never reaches 0")
        if self.batch_size > self.replay_capacity:
            raise ValueError(f"a replay_capacity of at least batch_size = {self.batch_size}")
        return self

    @property
    def num_outputs(self) -> int:
        """Numbers that the network gives for an action."""
        return 1 if self.distribution == "none" else self.num_atoms
