"""Comparison -> a figure of how the lower bound of p_A is distributed over the images."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy import special

from bench.report.comparison import Comparison
from bench.report.figures.style import (
    MOST_TOGETHER,
    Style,
    add_legend,
    drawn_steps,
    grid_shape,
    groups_of,
    panel_grid,
    styles,
)
from bench.report.lower_bounds import LowerBounds
from bench.smoothing.stats import proportion_interval

LEFT = 0.05
"""Lowest bound that is drawn: images below it are as good as lost."""

MARKED = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
"""Bounds with a marker on each line."""

_LABEL = r"lower bound of $p_A$ (logit scale)"
_NINES = tuple(1 - 10.0**-nines for nines in range(1, 9))


def lower_bounds_figure(comparison: Comparison) -> Figure:
    """Return the share of images with at least each lower bound of p_A: a panel per sigma, a line per label, bands.

    A line ends at the largest bound of any image, and begins at 1/2 where lower ones are unknown. Right of 1/2 it is
    the certified accuracy: at Phi(r / sigma) that at radius r. The bands are pointwise exact 95% intervals, for
    a few labels alone.
    """
    every, sigmas = styles(comparison), comparison.sigmas
    by_label = {label: every[label] for label in comparison.labels}
    groups = groups_of(comparison.labels)
    columns = len(sigmas) if len(groups) > 1 and len(sigmas) <= MOST_TOGETHER else grid_shape(len(sigmas))[1]
    figure, axes = panel_grid(len(groups) * len(sigmas), by_label, columns=columns)
    smallest = 0.1
    for panel, (group, sigma) in zip(axes, itertools.product(groups, sigmas), strict=True):
        panel.set_xscale("logit")
        panel.axvspan(LEFT, 0.5, color="0.96", linewidth=0)
        for entry in (one for one in comparison.at_sigma(sigma) if one.label in group):
            bounds = entry.lower_bounds
            smallest = min([smallest, *bounds.tails[:1]])
            _draw(panel, bounds, by_label[entry.label], has_band=len(groups) == 1)
        panel.set_title(rf"$\sigma$ = {sigma:g}")
    _finish(axes, columns, 1 - smallest / 2)
    add_legend(figure, by_label)
    return figure


def _draw(axes: Axes, bounds: LowerBounds, style: Style, has_band: bool) -> None:
    """Draw the exact step function from its largest bound down to the left edge, perhaps with its band."""
    edge = LEFT if bounds.has_uncertified else 0.5
    every = np.array(bounds.tails)
    found = np.unique(every[every < 1 - edge])
    if not len(found):
        return
    tails = np.append(found, 1 - edge)[::-1]
    tails = tails[drawn_steps(-special.logit(tails))]
    counts = np.searchsorted(every, tails, side="right")
    marked = [bound for bound in MARKED if 1 - tails[-1] >= bound >= edge]
    values = [100 * bounds.at_least(bound).value for bound in marked]
    axes.plot(marked, values, linestyle="none", clip_on=False, zorder=3, **style.marker_settings)
    axes.step(1 - tails, 100 * counts / bounds.images, where="pre", color=style.color, linestyle=style.line)
    if not has_band:
        return
    low, high = proportion_interval(counts, bounds.images)
    axes.fill_between(
        1 - tails, 100 * low, 100 * high, step="pre", color=style.color, alpha=0.12, linewidth=0
    )


def _finish(axes: list[Axes], columns: int, right: float) -> None:
    ticks = [0.1, 0.5, *(tick for tick in _NINES if tick < right)]
    for panel in axes:
        panel.xaxis.set_major_locator(FixedLocator(ticks))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.tick_params(labelbottom=True)
    for panel in axes[-columns:]:
        panel.set_xlabel(_LABEL)
    for panel in axes[::columns]:
        panel.set_ylabel("images with at least it (%)")
    axes[0].set_xlim(LEFT, right)
    axes[0].set_ylim(0, 102)
    axes[0].set_yticks(range(0, 101, 20))
    axes[0].text(1.35 * LEFT, 4, "not certified", rotation=90, ha="center", color="0.45")
