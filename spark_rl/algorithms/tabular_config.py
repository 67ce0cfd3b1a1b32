"""What can be set about learning in tables."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TabularConfig(BaseModel):
    """Section [algorithm] with one of four names.

    Defaults are Sutton and Barto 2018, sections 6.4 to 6.7 (example 6.6: step size 0.5 and epsilon 0.1).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    policy_kind: ClassVar[str] = "tabular"
    needs_torch: ClassVar[bool] = False

    name: Literal["q_learning", "double_q_learning", "sarsa", "expected_sarsa"] = "q_learning"
    mode: Literal["serial", "parallel"] = Field(
        "parallel", description="serial: row by row; parallel: all rows of all groups in one step from their counts"
    )
    discount: float = Field(0.99, ge=0.0, le=1.0, description="per env step")
    initial_value: float = Field(0.0, description="of every pair; above what can be earned, it explores by itself")
    step_size: float = Field(0.5, gt=0.0, le=1.0, description="of a pair's first update")
    step_size_power: float = Field(0.0, ge=0.0, le=1.0, description="0: constant; 1 with step_size 1: running means")
    step_size_visits: float = Field(1.0, gt=0.0, description="updates of a pair until its step has fallen by 2^-power")

    exploration: Literal["epsilon_greedy", "boltzmann", "max_boltzmann", "ucb", "greedy"] = "epsilon_greedy"
    epsilon: float = Field(0.1, ge=0.0, le=1.0, description="share of actions that explore, at the beginning")
    epsilon_end: float | None = Field(
        None, ge=0.0, le=1.0, description="at the end of the schedule; as epsilon if unset"
    )
    schedule: Literal["linear", "exponential"] = Field("linear", description="of epsilon and of temperature")
    schedule_fraction: float = Field(1.0, gt=0.0, le=1.0, description="share of the run until the schedule's end")
    epsilon_ladder: float = Field(
        0.0, ge=0.0, description="Ape-X's alpha: one epsilon a group; 7 in the source, 0: off"
    )
    temperature: float = Field(1.0, gt=0.0, description="of the softmax, in units of the values, at the beginning")
    temperature_end: float | None = Field(None, gt=0.0, description="at the end of the schedule; unchanged if unset")
    ucb: float = Field(1.0, gt=0.0, description="c of c * sqrt(ln(1 + N(s)) / N(s, a)), in units of the values")
    count_bonus: float = Field(0.0, ge=0.0, description="beta of beta / sqrt(N(s, a)), added to rewards when learning")

    replay_ratio: float = Field(0.0, ge=0.0, description="updates sampled from all stored rows, per new row")

    @model_validator(mode="after")
    def _consistent(self) -> TabularConfig:
        if self.replay_ratio and self.name == "sarsa":
            raise ValueError(
                "sarsa learns about what its current policy does; take replay_ratio out, or expected_sarsa"
            )
        if self.schedule == "exponential" and (self.epsilon == 0.0 or self.epsilon_end == 0.0):
            raise ValueError("an exponential schedule never reaches 0; choose a small epsilon_end, or linear")
        return self
