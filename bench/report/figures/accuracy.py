"""Comparison -> figures for a paper, as PNG and PDF; no global matplotlib state is read or changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.comparison import Comparison
from bench.report.figures.cost import accuracy_against_cost_figure, speedup_figure
from bench.report.figures.lower_bounds import lower_bounds_figure
from bench.report.figures.published import PublishedCurve, draw_published, legend_of, published_curves
from bench.report.figures.style import (
    ACCURACY_LABEL,
    COLUMN_WIDTH,
    RADIUS_LABEL,
    SETTINGS,
    Style,
    add_legend,
    grid_shape,
    legend_height,
    panel_grid,
    save_figure,
    styles,
)
from bench.report.metrics import Curve, envelope
from bench.report.published import PublishedNumber
from bench.smoothing.stats import proportion_interval

FIGURES = frozenset({"certified_accuracy", "p_lower", "envelope", "accuracy_against_cost", "speedup"})
"""Names, without suffix, of all files that `write_figures` may write."""


def write_figures(
    comparison: Comparison, folder: Path, published: Sequence[PublishedNumber] = ()
) -> list[Path]:
    """Write certified_accuracy, p_lower, envelope, accuracy_against_cost and speedup, as PNG (200 dpi) and PDF.

    Figures without data are left out: the envelope where the methods share no sigma, the two on cost where no
    cost was measured, speedup also where REFERENCE is not among the methods. The same comparison gives the same bytes.

    Args:
        folder: made where missing; files of these names in it are replaced, those of others removed.
        published: numbers of the runs' data set, to be drawn beside the curves of the same methods.

    Returns:
        The paths written.
    """
    with matplotlib.style.context(["default", SETTINGS]):
        figures = make_figures(comparison, published)
        folder.mkdir(parents=True, exist_ok=True)
        for name in FIGURES - figures.keys():
            for suffix in (".png", ".pdf"):
                (folder / name).with_suffix(suffix).unlink(missing_ok=True)
        return [path for name, figure in figures.items() for path in save_figure(figure, folder / name)]


def make_figures(comparison: Comparison, published: Sequence[PublishedNumber] = ()) -> dict[str, Figure]:
    """Return file name -> figure, those without data left out, in the matplotlib style that is in force."""
    figures = {
        "certified_accuracy": certified_accuracy_figure(comparison, published),
        "p_lower": lower_bounds_figure(comparison),
        "envelope": envelope_figure(comparison, published),
        "accuracy_against_cost": accuracy_against_cost_figure(comparison),
        "speedup": speedup_figure(comparison),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def certified_accuracy_figure(comparison: Comparison, published: Sequence[PublishedNumber] = ()) -> Figure:
    """Return certified accuracy against radius: a panel per sigma, a line per label, 95% bands.

    Published numbers of a measured method at a measured sigma are drawn as `bench.report.figures.published` says.
    """
    sigmas = comparison.sigmas
    every = styles(comparison)
    by_label = {label: every[label] for label in comparison.labels}
    others = published_curves(comparison, published, sigmas)
    figure, axes = panel_grid(len(sigmas), by_label | legend_of(others))
    for panel, sigma in zip(axes, sigmas, strict=True):
        for entry in comparison.at_sigma(sigma):
            _draw_curve(panel, entry.curve, by_label[entry.label], comparison.radii, has_band=True)
        draw_published(panel, [one for one in others if one.sigma == sigma])
        panel.set_title(rf"$\sigma$ = {sigma:g}")
        panel.tick_params(labelbottom=True)
    for panel in axes[-grid_shape(len(sigmas))[1] :]:
        panel.set_xlabel(RADIUS_LABEL)
    _set_limits(axes[0], comparison, [entry.curve for entry in comparison.entries], others)
    add_legend(figure, by_label | legend_of(others))
    return figure


def envelope_figure(comparison: Comparison, published: Sequence[PublishedNumber] = ()) -> Figure | None:
    """Return the upper envelope over sigma against radius, a line per label; None if no sigma is shared.

    Published numbers that state no sigma but the best at each radius are drawn beside it.
    """
    if not comparison.best:
        return None
    others = published_curves(comparison, published, (None,))
    every = styles(comparison)
    legend = {label: every[label] for label in comparison.labels} | legend_of(others)
    height = 2.3 + legend_height(legend, COLUMN_WIDTH)
    figure = Figure(figsize=(COLUMN_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    envelopes = {
        label: envelope([entry.curve for entry in comparison.best_of(label)]) for label in comparison.labels
    }
    for label, upper in envelopes.items():
        _draw_curve(axes, upper, legend[label], comparison.radii, has_band=False)
    draw_published(axes, others)
    _set_limits(axes, comparison, list(envelopes.values()), others)
    axes.set_xlabel(RADIUS_LABEL)
    axes.set_ylabel(ACCURACY_LABEL)
    axes.set_title(r"$\sigma$ chosen on the certified images", loc="right", fontsize=7, color="0.35")
    add_legend(figure, legend)
    return figure


def _draw_curve(axes: Axes, steps: Curve, style: Style, radii: Sequence[float], has_band: bool) -> None:
    """Draw the exact step function, markers at the table's radii, and the pointwise exact 95% band."""
    x = np.array([*steps.radii, steps.radii[-1]])
    counts = np.array([*steps.counts, 0])
    axes.step(x, 100 * counts / steps.images, where="pre", color=style.color, linestyle=style.line)
    marked = [radius for radius in radii if radius <= steps.radii[-1]]
    values = [100 * steps.at(radius).value for radius in marked]
    axes.plot(marked, values, linestyle="none", clip_on=False, zorder=3, **style.marker_settings)
    if has_band:
        low, high = proportion_interval(counts[:-1], steps.images)
        axes.fill_between(
            x[:-1], 100 * low, 100 * high, step="pre", color=style.color, alpha=0.12, linewidth=0
        )


def _set_limits(
    axes: Axes, comparison: Comparison, curves: Sequence[Curve], others: Sequence[PublishedCurve]
) -> None:
    longest = max(
        *(one.radii[-1] for one in curves), *(one.points[-1][0] for one in others if one.points), 0.0
    )
    axes.set_xlim(0, 1.04 * (longest or max(comparison.radii) or 1.0))
    axes.set_ylim(0, 102)
    axes.set_yticks(range(0, 101, 20))
