"""Rows as lines of text in aligned columns: numbers to the right, long arrays and cells cut short, and saying so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_LIST_ITEMS = 8  # a CartPole observation is whole, an Atari frame is not
_CELL_WIDTH = 100


def aligned(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A header, a rule, and a line for each of the rows; values as `cell` shows them. A single text column is whole."""
    if len(names) == 1 and all(isinstance(row[0], str) for row in rows):
        return [names[0], "-" * len(names[0]), *(row[0] for row in rows)]  # EXPLAIN, SHOW CREATE TABLE, a config
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(line[i]) for line in cells)]) for i, name in enumerate(names)]
    numeric = [all(value is None or _is_number(value) for value in column) for column in zip(*rows, strict=True)]
    numeric = numeric or [False] * len(names)

    def line(words: Sequence[str]) -> str:
        columns = zip(words, widths, numeric, strict=True)
        return "  ".join(word.rjust(width) if right else word.ljust(width) for word, width, right in columns).rstrip()

    return [line(names), "  ".join("-" * width for width in widths), *map(line, cells)]


def cell(value: Any) -> str:
    """One value on one line, of at most 100 characters: 0.123457, [0.1, -0.2], {x: 1}, NULL, <28224 bytes>."""
    text = "\\n".join(_show(value).splitlines())
    return text if len(text) <= _CELL_WIDTH else f"{text[: _CELL_WIDTH - 1]}…"


def _show(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return number(value)
    if isinstance(value, bytes | bytearray):
        return f"<{len(value):,} bytes>"
    if hasattr(value, "asDict"):  # a struct
        value = value.asDict()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_show(key)}: {_show(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        rest = [f"… {len(value) - _LIST_ITEMS:,} more"] if len(value) > _LIST_ITEMS else []
        return "[" + ", ".join([*map(_show, value[:_LIST_ITEMS]), *rest]) + "]"
    return str(value)


def number(value: float) -> str:
    """Six significant digits; large numbers keep all digits before the point: 0.333333, 1234567.9, 1.5e-07."""
    if not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return f"{value:.1f}" if abs(value) >= 1e6 else f"{value:.6g}"


def _is_number(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or type(value).__name__ == "Decimal"
