"""Comparison -> a figure of the differences between methods on the same images, with their paired intervals."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.config.methods import kinds
from bench.report.comparison import Comparison, Entry
from bench.report.figures.style import (
    MOST_TOGETHER,
    RADIUS_LABEL,
    Style,
    add_legend,
    grid_shape,
    groups_of,
    panel_grid,
    styles,
)
from bench.report.paired import paired_differences


def differences_figure(comparison: Comparison) -> Figure | None:
    """Return the certified accuracy of one method minus that of each other, in points, a panel per sigma.

    It is the method under study, or the first where none is. Bars are the paired 95% score intervals, not corrected
    for their number, at the table's radii within R_max. None where no sigma has two labels.
    """
    first = _reference(comparison)
    sigmas = [sigma for sigma in comparison.sigmas if _others(comparison, first, sigma)]
    if not sigmas:
        return None
    every = styles(comparison)
    by_label = {label: every[label] for label in comparison.labels if label != first}
    named = {f"{first} − {label}": style for label, style in by_label.items()}
    groups = groups_of(list(by_label))
    columns = len(sigmas) if len(groups) > 1 and len(sigmas) <= MOST_TOGETHER else grid_shape(len(sigmas))[1]
    figure, axes = panel_grid(len(groups) * len(sigmas), named, has_common_x=False, columns=columns)
    for panel, (group, sigma) in zip(axes, itertools.product(groups, sigmas), strict=True):
        [own] = [entry for entry in comparison.at_sigma(sigma) if entry.label == first]
        others = [entry for entry in _others(comparison, first, sigma) if entry.label in group]
        for place, entry in enumerate(others):
            shift = (place - (len(others) - 1) / 2) / max(1, len(others))
            _draw(panel, own, entry, by_label[entry.label], comparison.radii, shift)
        panel.axhline(0, color="0.3", linewidth=0.7)
        panel.set_title(rf"$\sigma$ = {sigma:g}")
        panel.set_xlabel(RADIUS_LABEL)
        panel.tick_params(labelbottom=True)
    for panel in axes[::columns]:
        panel.set_ylabel("difference (points)")
    add_legend(figure, named)
    return figure


def _reference(comparison: Comparison) -> str:
    found = kinds([entry.method for entry in comparison.entries])
    return next(
        (entry.label for entry in comparison.entries if found[entry.method] == "studied"),
        comparison.labels[0],
    )


def _others(comparison: Comparison, first: str, sigma: float) -> list[Entry]:
    entries = comparison.at_sigma(sigma)
    if first not in [entry.label for entry in entries]:
        return []
    return [entry for entry in entries if entry.label != first]


def _draw(axes: Axes, own: Entry, entry: Entry, style: Style, radii: tuple[float, ...], shift: float) -> None:
    """Draw one difference at each radius, beside those of the other labels."""
    reached = [radius for radius in radii if radius <= own.reach]
    if not reached:
        return
    step = min(np.diff(reached), default=own.reach) if len(reached) > 1 else own.reach
    found = paired_differences(own.certified, entry.certified, reached)
    low, middle, high = np.array([(*one.interval(), one.difference) for one in found])[:, [0, 2, 1]].T
    axes.errorbar(
        [one.radius + 0.6 * shift * step for one in found],
        100 * middle,
        yerr=100 * np.array([middle - low, high - middle]),
        color=style.color,
        linestyle="none",
        capsize=1.5,
        linewidth=0.9,
        **style.marker_settings,
    )
