"""Certified accuracy against seconds per image: a curve per method, and the best of all at each cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from bench.report.equal_accuracy import Curve, pareto
from bench.report.figures.style import (
    COLUMN_WIDTH,
    SETTINGS,
    literal,
    numbered_styles,
    save_figure,
    use_plain_numbers,
)


def pareto_figure(curves: Sequence[Curve], radius: float, device: str) -> Figure:
    """Return the expected certified accuracy at the radius against seconds, n' growing along each curve.

    The grey band follows the points that no other beats in both.
    """
    figure = Figure(figsize=(COLUMN_WIDTH * 1.25, 3.0), layout="constrained")
    axes = figure.subplots()
    front = pareto(curves)
    if front:
        axes.step(
            [seconds for seconds, _, _ in front],
            [100 * accuracy for _, accuracy, _ in front],
            where="post",
            color="0.85",
            linewidth=5,
            label="best at each cost",
            solid_capstyle="butt",
        )
    by_method = numbered_styles(curve.method for curve in curves)
    for curve in curves:
        axes.plot(
            curve.seconds,
            [100 * value for value in curve.accuracy],
            color=by_method[curve.method].color,
            linestyle=by_method[curve.method].line,
            label=literal(curve.method),
        )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    use_plain_numbers(axes.xaxis)
    axes.set_xlabel("seconds per image, by measured throughput")
    axes.set_ylabel(f"expected certified at radius {radius:g} (%)")
    axes.set_title(literal(device), fontsize=7, color="0.35")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def write_pareto(curves: Sequence[Curve], radius: float, device: str, folder: Path) -> list[Path]:
    """Write pareto.png and pareto.pdf, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(SETTINGS):  # type: ignore[arg-type]
        return save_figure(pareto_figure(curves, radius, device), folder / "pareto")
