"""The figures of a report as SVG for the page and as PNG files."""

from __future__ import annotations

from spark_rl.report.data import Report
from spark_rl.report.figures import Figure
from spark_rl.report.plots import Rows
from spark_rl.report.style import NARROW, WIDE, Shape, render_png, render_svg

# Inches. The page shows them about 1,000 and 330 pixels wide, which makes the letters 12 and 11 pixels high.
_WIDE = Shape(WIDE, 10.0, 3.6)
_NARROW = Shape(NARROW, 3.8, 3.3)
_SMALL = Shape(NARROW, 3.8, 2.3)


def svgs(figure: Figure, rows: Rows) -> dict[str, str]:
    """Layout -> <svg>; small figures have one layout, which fits both windows."""
    draw = figure.draw(rows)
    shapes = [_SMALL] if figure.small else [_WIDE, _NARROW]
    return {shape.layout: render_svg(draw, shape, figure.key) for shape in shapes}


def pngs(report: Report) -> dict[str, bytes]:
    """File name -> content, for every figure that has something to show."""
    return {
        f"{figure.key}.png": render_png(figure.draw(rows), _SMALL if figure.small else _WIDE)
        for figure, rows in report.figures
        if rows
    }
