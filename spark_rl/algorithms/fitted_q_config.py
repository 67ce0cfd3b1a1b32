"""What can be set about fitted Q iteration."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class FittedQConfig(BaseModel):
    """Section [algorithm] with name = "fitted_q". It learns from a table alone: `spark-rl offline`, never `train`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    policy_kind: ClassVar[str] = "tabular"
    needs_torch: ClassVar[bool] = False
    offline_only: ClassVar[bool] = True

    name: Literal["fitted_q"] = "fitted_q"
    discount: float = Field(0.99, ge=0.0, le=1.0, description="per env step")
    initial_value: float = Field(0.0, description="of pairs before the first sweep, and of states never acted in")
    max_sweeps: int = Field(1000, ge=1, description="queries over the table, at most")
    tolerance: float = Field(1e-6, gt=0.0, description="largest change that ends the sweeps, units of the values")
