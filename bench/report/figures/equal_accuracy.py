"""Certified accuracy against seconds per image: a panel per radius, a curve per method, from the records' counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.comparison import Comparison
from bench.report.equal_accuracy import SHARES, Curve
from bench.report.figures.cost import compared_radii
from bench.report.figures.style import (
    SETTINGS,
    Style,
    add_legend,
    literal,
    panel_grid,
    save_figure,
    styles,
    use_plain_numbers,
)
from bench.report.rates import REFERENCE


def equal_accuracy_figure(comparison: Comparison, by_radius: Mapping[float, Sequence[Curve]]) -> Figure:
    """Return the best expected accuracy within so many seconds per image, n' growing along each line to a marker at n.

    Three radii at most are drawn, those of `compared_radii` where they have curves. Grey lines are at the shares of the
    reference's accuracy where the table compares.

    Args:
        comparison: of the run that the curves are of.
        by_radius: radius -> curves, ascending.
    """
    wanted = [radius for radius in compared_radii(comparison) if radius in by_radius]
    by_radius = {radius: by_radius[radius] for radius in wanted or list(by_radius)[:1]}
    every = styles(comparison)
    methods = dict.fromkeys(curve.method for curves in by_radius.values() for curve in curves)
    by_label = {comparison.name_of(method): every[comparison.name_of(method)] for method in methods}
    figure, panels = panel_grid(len(by_radius), by_label)
    for panel, (radius, curves) in zip(panels, by_radius.items(), strict=True):
        for curve in curves:
            _draw(panel, curve, by_label[comparison.name_of(curve.method)])
            if curve.method == REFERENCE:
                for share in SHARES:
                    panel.axhline(100 * share * curve.accuracy()[0][0, -1], color="0.6", linewidth=0.6)
        panel.set_title(f"$r$ = {radius:g}")
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("seconds per image")
    panels[0].set_ylabel("expected certified acc. (%)")
    shares = " and ".join(f"{share:.0%}" for share in SHARES)
    note = f"lines: {shares} of {literal(comparison.name_of(REFERENCE))}"
    panels[0].text(0.98, 0.03, note, transform=panels[0].transAxes, ha="right", color="0.35", fontsize=8)
    panels[0].set_xscale("log")
    panels[0].set_ylim(0, 102)
    panels[0].set_yticks(range(0, 101, 20))
    use_plain_numbers(panels[0].xaxis)
    add_legend(figure, by_label)
    return figure


def _draw(axes: Axes, curve: Curve, style: Style) -> None:
    """Draw the highest accuracy of n' samples or fewer, above 0; more may certify less, by a discrete bound."""
    accuracy, seconds = (values[0] for values in curve.accuracy())
    reached = 100 * np.maximum.accumulate(accuracy)
    reached[reached == 0] = np.nan
    axes.step(seconds, reached, where="post", color=style.color, linestyle=style.line)
    axes.plot(seconds[-1:], reached[-1:], linestyle="none", clip_on=False, zorder=3, **style.marker_settings)


def write_equal_accuracy_figure(
    comparison: Comparison, by_radius: Mapping[float, Sequence[Curve]], folder: Path
) -> list[Path]:
    """Write equal_accuracy.png and equal_accuracy.pdf, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.style.context(["default", SETTINGS]):
        return save_figure(equal_accuracy_figure(comparison, by_radius), folder / "equal_accuracy")
