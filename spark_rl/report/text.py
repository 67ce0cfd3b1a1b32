"""Numbers and times as a person reads them."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """12,345 / 499.2 / 0.0235; an en dash for NULL and NaN."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 100 else f"{value:.1f}".removesuffix(".0")


def count(value: float | None) -> str:
    """A whole number with its thousands apart; an en dash for NULL."""
    return "–" if value is None else f"{int(value):,}"


def counted(value: float | None, thing: str) -> str:
    """1 episode; 12,345 episodes; – episodes."""
    return f"{count(value)} {thing}{'' if value == 1 else 's'}"


def seconds(value: float | None) -> str:
    """A duration: 0.42 s, 12.3 s, 3 min 20 s, 2 h 05 min; an en dash for NULL."""
    if value is None:
        return "–"
    if value < 100:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(num_bytes: float | None) -> str:
    """850 bytes, 1.2 MB, 3.4 GB (powers of 1,000)."""
    if num_bytes is None:
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{int(num_bytes)} bytes"
