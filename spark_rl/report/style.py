"""How the pictures look: one palette for all of them, and SVG that takes the page's font and colours.

Sizes are in inches; the page scales a picture to its column, so a picture exists in two shapes, one for a wide window
and one for a phone, where the same letters must stay readable.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Each colour is a CSS variable of the page too, so that the dark theme can change it.
COLORS = {
    "ink": "#1f2933",
    "muted": "#66727f",
    "rule": "#dde3e9",
    "blue": "#2f6db5",
    "orange": "#d9742b",
    "teal": "#2a9187",
    "violet": "#7d5fb2",
    "rose": "#c2527a",
    "grey": "#98a3ae",
}
WIDE, NARROW = "wide", "narrow"
_PNG_DPI = 160

_RC: Any = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib; in the page, text takes the page's font
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelcolor": COLORS["muted"],
    "axes.edgecolor": COLORS["rule"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.015,
    "grid.color": COLORS["rule"],
    "grid.linewidth": 0.7,
    "text.color": COLORS["ink"],
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.labelcolor": COLORS["muted"],
    "ytick.labelcolor": COLORS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud, and takes the page's font
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a picture, and the layout that goes with it."""

    layout: str
    width: float
    height: float

    @property
    def narrow(self) -> bool:
        return self.layout == NARROW


def render_svg(draw: Callable[[Figure, Shape], None], shape: Shape, key: str) -> str:
    """The picture as an <svg> element without a header; equal input gives equal text. `key` is unique on the page."""
    # The salt makes the names of clip paths and markers; two pictures on a page must not share them.
    stream = io.StringIO()
    with matplotlib.rc_context(_RC | {"svg.hashsalt": f"{key}-{shape.layout}"}):
        _figure(draw, shape).savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Names such as axes_1 would stand on the page once a picture. Nothing refers to them.
    text = re.sub(r'(<g) id="[^"]*"', r"\1", text)
    # The page gives the size; the viewBox keeps the proportions.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for name, color in COLORS.items():
        text = text.replace(color, f"var(--{name})")
    return text


def render_png(draw: Callable[[Figure, Shape], None], shape: Shape) -> bytes:
    """The picture as a PNG file, on white."""
    stream = io.BytesIO()
    with matplotlib.rc_context(_RC):
        _figure(draw, shape).savefig(stream, format="png", dpi=_PNG_DPI, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def _figure(draw: Callable[[Figure, Shape], None], shape: Shape) -> Figure:
    # Figure, not pyplot: no window system, and nothing global that a notebook's own pictures would meet.
    figure = Figure(figsize=(shape.width, shape.height), layout="constrained")
    draw(figure, shape)
    return figure


def compact(value: float, _position: Any = None) -> str:
    """A number on an axis: 950, 2k, 1.5M, 0.02; no trailing zeros."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")
