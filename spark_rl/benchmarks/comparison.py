"""One result: ours beside its floor, measured in turns, so that a busy machine slows both."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from spark_rl.errors import RunError


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """`ours[i]` and `floor[i]` come from round i, one straight after the other. Raises RunError where they don't pair.

    The headline `ratio` is median over median. `paired_ratio` is the median of the rounds' own ratios: where the two
    differ by more than a few hundredths, the machine was busy with something else, and the run is to be repeated.
    """

    name: str  # "rollout/floor_plain"
    unit: str  # of ours and floor
    better: Literal["higher", "lower"]
    ours: Sequence[float]
    floor: Sequence[float]
    settings: Mapping[str, Any]  # what would have to be repeated to get the figure again
    detail: Mapping[str, Any] = field(default_factory=dict)  # what helps to understand it

    def __post_init__(self) -> None:
        if not self.ours or len(self.ours) != len(self.floor):
            raise RunError(f"benchmark {self.name}", f"{len(self.ours)} rounds of ours, {len(self.floor)} of the floor",
                           "pairs", "this is a defect in spark_rl")  # fmt: skip

    @property
    def ratio(self) -> float:
        """Median of ours over median of the floor."""
        return statistics.median(self.ours) / statistics.median(self.floor)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `ours` and `floor` are medians, `rounds` everything measured, `spread` least and most."""
        paired = [ours / floor for ours, floor in zip(self.ours, self.floor, strict=True)]
        series = {"ours": list(self.ours), "floor": list(self.floor)}
        return {
            "name": self.name,
            "ours": statistics.median(self.ours),
            "floor": statistics.median(self.floor),
            "ratio": self.ratio,
            "unit": self.unit,
            "better": self.better,
            "paired_ratio": statistics.median(paired),
            "spread": {key: [min(values), max(values)] for key, values in (series | {"ratio": paired}).items()},
            "rounds": series,
            "settings": dict(self.settings),
            "detail": dict(self.detail),
        }

    def to_json(self, machine: Mapping[str, Any]) -> str:
        """One line."""
        return json.dumps(self.to_dict() | {"machine": dict(machine)})

    def __str__(self) -> str:
        facts = self.to_dict()
        low, high = facts["spread"]["ratio"]
        return (f"{self.name}: {_digits(facts['ours'])} over {_digits(facts['floor'])} {self.unit} = {self.ratio:.3g} "
                f"({self.better} is better; rounds {low:.3g} to {high:.3g}, {len(self.ours)} of them)")  # fmt: skip


def in_turns(rounds: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Call every measure once a round, A B C A B C ...; each one's values."""
    values: list[list[float]] = [[] for _ in measures]
    for _ in range(rounds):
        for found, measure in zip(values, measures, strict=True):
            found.append(measure())
    return values


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
