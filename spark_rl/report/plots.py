"""What is drawn from the rows of a query. Every function takes rows and gives a drawing for any shape of picture.

Rows are the dicts of `sql.query.fetch`; a NULL is None and becomes a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spark_rl.report.style import COLORS, Shape, compact

Rows = Sequence[dict[str, Any]]
Draw = Callable[[Figure, Shape], None]

# More boxes or bars than this are narrower than the gaps between them on a phone.
_BOXES = 40
_BARS = {"wide": 60, "narrow": 28}


def values(rows: Rows, name: str) -> np.ndarray:
    """[N] float64, NaN where the row has NULL."""
    return np.array([math.nan if row[name] is None else float(row[name]) for row in rows])


def curve(rows: Rows, *, prefix: str, color: str, unit: str, evaluations: bool = False) -> Draw:
    """Mean with the middle half of the episodes over env steps; greedy evaluations as points with their interval."""

    def draw(figure: Figure, shape: Shape) -> None:
        axes = _axes(figure, shape, "env steps", unit)
        steps = values(rows, "env_steps")
        mean, low, high = (values(rows, f"{prefix}_{part}") for part in ("mean", "p25", "p75"))
        known = np.isfinite(mean)  # an iteration in which no episode ended is bridged, not a gap: it says nothing
        if known.any():
            axes.fill_between(steps[known], low[known], high[known], color=COLORS[color], alpha=0.18, linewidth=0,
                              label="middle half of the episodes")  # fmt: skip
            axes.plot(steps[known], mean[known], color=COLORS[color], marker="o" if known.sum() == 1 else None,
                      label="mean of the episodes that ended")  # fmt: skip
        if evaluations:
            _evaluations(axes, rows, steps)
        axes.set_xlim(0, 1.02 * max(1.0, steps.max()))
        _legend(figure, axes, shape)

    return draw


def _evaluations(axes: Axes, rows: Rows, steps: np.ndarray) -> None:
    mean, low, high = (values(rows, f"evaluation_return_{part}") for part in ("mean", "low", "high"))
    known = np.isfinite(mean)
    if known.any():
        errors = np.abs(np.stack([mean - low, high - mean])[:, known])
        axes.errorbar(steps[known], mean[known], errors, fmt="o", color=COLORS["orange"], markersize=5, capsize=3,
                      clip_on=False, label="greedy evaluation, 95 % interval of the mean")  # fmt: skip


def boxes(rows: Rows, *, unit: str) -> Draw:
    """Quantiles of return by policy version: boxes while they are few, bands when they are many."""

    def draw(figure: Figure, shape: Shape) -> None:
        axes = _axes(figure, shape, "policy version", unit)
        version = values(rows, "policy_version")
        _whole_numbers(axes, shape, version)
        p05, p25, p50, p75, p95 = (values(rows, f"return_p{part}") for part in ("05", "25", "50", "75", "95"))
        many = len(rows) > _BOXES
        if many:
            axes.fill_between(version, p05, p95, color=COLORS["blue"], alpha=0.14, linewidth=0, label="5 % to 95 %")
            axes.fill_between(version, p25, p75, color=COLORS["blue"], alpha=0.3, linewidth=0, label="25 % to 75 %")
            axes.plot(version, p50, color=COLORS["blue"], label="median")
        else:
            axes.vlines(version, p05, p95, color=COLORS["blue"], linewidth=1.2, label="5 % to 95 %")
            axes.bar(version, p75 - p25, 0.6, p25, color=COLORS["blue"], alpha=0.35, label="25 % to 75 %")
            axes.hlines(p50, version - 0.3, version + 0.3, color=COLORS["blue"], linewidth=2, label="median")
        axes.plot(version, values(rows, "return_iqm"), color=COLORS["orange"], linestyle="-" if many else "",
                  marker=None if many else "D", markersize=4, label="interquartile mean")  # fmt: skip
        _legend(figure, axes, shape)

    return draw


def line(rows: Rows, name: str, *, color: str, unit: str) -> Draw:
    """One number an iteration."""

    def draw(figure: Figure, shape: Shape) -> None:
        axes = _axes(figure, shape, "env steps", unit)
        steps, number = values(rows, "env_steps"), values(rows, name)
        single = np.isfinite(number).sum() == 1
        axes.set_xlim(0, 1.02 * max(1.0, steps.max()))
        axes.plot(steps, number, color=COLORS[color], marker="o" if single else None)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))

    return draw


def speeds(rows: Rows) -> Draw:
    """Env steps a second, while collecting and over the whole loop."""

    def draw(figure: Figure, shape: Shape) -> None:
        axes = _axes(figure, shape, "iteration", "env steps/s")
        _whole_numbers(axes, shape, values(rows, "iteration"))
        for name, color, label in (
            ("rollout_env_steps_per_s", "teal", "while collecting"),
            ("env_steps_per_s", "blue", "the whole loop: collecting, learning, evaluating"),
        ):
            number = values(rows, name)
            marker = "o" if np.isfinite(number).sum() == 1 else None
            axes.plot(values(rows, "iteration"), number, color=COLORS[color], marker=marker, label=label)
        axes.set_ylim(bottom=0)
        _legend(figure, axes, shape)

    return draw


def stacked(rows: Rows, parts: dict[str, tuple[str, str]]) -> Draw:
    """Seconds an iteration as stacked bars; `parts` is column -> (label, colour), from the bottom up.

    Many iterations share a bar, which then shows their mean. The legend says each part's share of the whole run.
    """
    spent = {name: float(np.nansum(values(rows, name))) for name in parts}
    total = sum(spent.values()) or 1.0

    def draw(figure: Figure, shape: Shape) -> None:
        axes = _axes(figure, shape, "iteration", "s an iteration")
        iteration = values(rows, "iteration")
        _whole_numbers(axes, shape, iteration)
        bins = np.array_split(np.arange(len(rows)), min(len(rows), _BARS[shape.layout]))
        center = np.array([iteration[inside].mean() for inside in bins])
        width = 0.82 * (np.median(np.diff(center)) if len(center) > 1 else 1.0)
        bottom = np.zeros(len(bins))
        for name, (label, color) in parts.items():
            seconds = np.nan_to_num(values(rows, name))
            height = np.array([seconds[inside].mean() for inside in bins])
            axes.bar(center, height, width, bottom, color=COLORS[color], label=f"{label} {spent[name] / total:.0%}")
            bottom += height
        _legend(figure, axes, shape)

    return draw


def _axes(figure: Figure, shape: Shape, x_label: str, y_label: str) -> Axes:
    axes = figure.add_subplot()
    axes.grid(visible=False, axis="x")
    axes.set_xlabel(x_label)
    # Upright and above its axis, where it reads without turning the head and takes no width.
    axes.set_title(y_label, loc="left", color=COLORS["muted"])
    axes.xaxis.set_major_formatter(FuncFormatter(compact))
    axes.yaxis.set_major_formatter(FuncFormatter(compact))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if shape.narrow else 10))
    return axes


def _whole_numbers(axes: Axes, shape: Shape, numbers: np.ndarray) -> None:
    """An axis of versions or iterations. A single one stands in the middle, as wide as one of six."""
    room = max(0.6, 3.0 - (numbers.max() - numbers.min()) / 2)
    axes.set_xlim(numbers.min() - room, numbers.max() + room)
    steps = MaxNLocator(integer=True, nbins=6 if shape.narrow else 12).tick_values(numbers.min(), numbers.max())
    axes.set_xticks([step for step in steps if numbers.min() <= step <= numbers.max() and step == round(step)])


def _legend(figure: Figure, axes: Axes, shape: Shape) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = 1 if shape.narrow else len(labels)
    if shape.narrow and max(map(len, labels)) < 24:
        columns = 2
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, borderaxespad=0.2, labelcolor=COLORS["ink"])
