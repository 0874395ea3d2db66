"""Comparison -> certified accuracy against radius: by sigma, at the best sigma, and all sigmas of each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.comparison import Comparison
from bench.report.figures.published import PublishedCurve, draw_published, legend_of, published_curves
from bench.report.figures.style import (
    FAINT,
    LINES,
    MOST_TOGETHER,
    RADIUS_LABEL,
    Style,
    add_legend,
    drawn_steps,
    grid_shape,
    groups_of,
    literal,
    panel_grid,
    styles,
)
from bench.report.metrics import Curve, envelope
from bench.report.published import PublishedNumber
from bench.smoothing.stats import proportion_interval


def certified_accuracy_figure(comparison: Comparison, published: Sequence[PublishedNumber] = ()) -> Figure:
    """Return certified accuracy against radius: a panel per sigma, a line per label that ends at R_max, 95% bands.

    More than `MOST_TOGETHER` labels take several rows of panels without bands: each row shows some in their colours
    and the others in grey. Published numbers of a measured method at a measured sigma are drawn as
    `bench.report.figures.published` says.
    """
    sigmas = comparison.sigmas
    every = styles(comparison)
    by_label = {label: every[label] for label in comparison.labels}
    others = published_curves(comparison, published, sigmas)
    groups = groups_of(comparison.labels)
    columns = len(sigmas) if len(groups) > 1 and len(sigmas) <= MOST_TOGETHER else None
    figure, axes = panel_grid(
        len(groups) * len(sigmas), by_label | legend_of(others), has_common_x=False, columns=columns
    )
    places = [(group, sigma) for group in groups for sigma in sigmas]
    for panel, (group, sigma) in zip(axes, places, strict=True):
        entries = comparison.at_sigma(sigma)
        reach = max(entry.reach for entry in entries)
        for entry in sorted(entries, key=lambda one: one.label in group):
            style = by_label[entry.label] if entry.label in group else None
            draw_curve(panel, entry.curve, style, comparison.radii, entry.reach, has_band=len(groups) == 1)
        here = [one for one in others if one.sigma == sigma]
        draw_published(panel, here)
        panel.set_title(rf"$\sigma$ = {sigma:g}")
        finish_panel(panel, reach, here, comparison.radii)
    for panel in axes[-(columns or grid_shape(len(sigmas))[1]) :]:
        panel.set_xlabel(RADIUS_LABEL)
    add_legend(figure, by_label | legend_of(others))
    return figure


def envelope_figure(comparison: Comparison, published: Sequence[PublishedNumber] = ()) -> Figure | None:
    """Return certified accuracy at the best sigma of each radius: a line per label, in panels as above.

    Published numbers that state no sigma but the best at each radius are drawn beside it. None where there is no
    choice of sigma: the labels share one at most.
    """
    if len({entry.sigma for entry in comparison.best}) < 2:
        return None
    others = published_curves(comparison, published, (None,))
    every = styles(comparison)
    legend = {label: every[label] for label in comparison.labels} | legend_of(others)
    groups = groups_of(comparison.labels)
    figure, axes = panel_grid(len(groups), legend)
    for panel, group in zip(axes, groups, strict=True):
        draw_envelopes(panel, comparison, {label: every[label] for label in group})
        draw_published(panel, others)
        finish_panel(panel, max(one.reach for one in comparison.best), others, comparison.radii)
        panel.set_xlabel(RADIUS_LABEL)
    add_legend(figure, legend)
    return figure


def draw_envelopes(axes: Axes, comparison: Comparison, by_label: Mapping[str, Style]) -> None:
    """Draw the best over sigma of every label, those without a style in grey, and mark R_max of each sigma above."""
    reaches: dict[float, float] = {}
    for entry in comparison.best:
        reaches[entry.sigma] = max(entry.reach, reaches.get(entry.sigma, 0.0))
    for label in sorted(comparison.labels, key=lambda one: one in by_label):
        entries = comparison.best_of(label)
        upper, reach = envelope([one.curve for one in entries]), max(one.reach for one in entries)
        draw_curve(axes, upper, by_label.get(label), comparison.radii, reach, has_band=False)
    last = -1.0
    for sigma, reach in reaches.items():
        axes.axvline(reach, color="0.55", linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=0.5)
        if reach - last > 0.17 * max(reaches.values()):
            axes.annotate(
                rf"$\sigma$ = {sigma:g}",
                (reach, 102),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                color="0.35",
                fontsize=8,
                annotation_clip=False,
            )
            last = reach


def sigmas_figure(comparison: Comparison) -> Figure | None:
    """Return all sigmas of each method in one panel: a line per sigma, darker as it grows. None for a single sigma."""
    if len(comparison.sigmas) < 2:
        return None
    every, labels = styles(comparison), comparison.labels
    shades = {sigma: place for place, sigma in enumerate(comparison.sigmas)}
    figure, axes = panel_grid(
        len(labels), ["σ = 0.25"] * 2, columns=min(len(labels), 4) if len(labels) != 1 else None
    )
    for panel, label in zip(axes, labels, strict=True):
        for entry in (one for one in comparison.entries if one.label == label):
            style = _shaded(every[label], shades[entry.sigma], len(shades))
            draw_curve(panel, entry.curve, style, (), entry.reach, has_band=False)
        panel.set_title(literal(label))
        finish_panel(panel, max(entry.reach for entry in comparison.entries), (), comparison.radii)
        panel.set_xlabel(RADIUS_LABEL)
    grey = Style(color="#444444", line="-", marker="", is_hollow=False)
    handles = [
        Line2D([], [], color=one.color, linestyle=one.line, label=rf"$\sigma$ = {sigma:g}")
        for sigma, place in shades.items()
        for one in [_shaded(grey, place, len(shades))]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _shaded(style: Style, place: int, count: int) -> Style:
    """Return the style in a lighter colour for small sigmas, with a line of its own for each."""
    weight = 0.5 * (count - 1 - place) / max(1, count - 1)
    color = tuple(weight + (1 - weight) * part for part in to_rgb(style.color))
    red, green, blue = (round(255 * part) for part in color)
    line = LINES[(count - 1 - place) % len(LINES)]
    return Style(color=f"#{red:02x}{green:02x}{blue:02x}", line=line, marker=style.marker, is_hollow=False)


def draw_curve(
    axes: Axes, steps: Curve, style: Style | None, radii: Sequence[float], reach: float, *, has_band: bool
) -> None:
    """Draw the exact step function up to R_max, markers at the table's radii, and the pointwise exact 95% band.

    Args:
        style: None: in grey, behind the others.
        reach: R_max; a line whose last step is there ends in the air, since nothing beyond can be certified.
    """
    x, counts = np.array(steps.radii), np.array(steps.counts)
    if x[-1] < reach * (1 - 1e-9):
        x, counts = np.append(x, [x[-1], reach]), np.append(counts, [0, 0])
    drawn = drawn_steps(x)
    x, counts = x[drawn], counts[drawn]
    shares = 100 * counts / steps.images
    if style is None:
        axes.step(x, shares, where="pre", color=FAINT, linewidth=0.8, zorder=1)
        return
    axes.step(x, shares, where="pre", color=style.color, linestyle=style.line)
    marked = [radius for radius in radii if radius <= steps.radii[-1]]
    values = [100 * steps.at(radius).value for radius in marked]
    if marked:
        axes.plot(marked, values, linestyle="none", clip_on=False, zorder=3, **style.marker_settings)
    if has_band:
        low, high = proportion_interval(counts, steps.images)
        axes.fill_between(x, 100 * low, 100 * high, step="pre", color=style.color, alpha=0.1, linewidth=0)


def finish_panel(axes: Axes, reach: float, others: Sequence[PublishedCurve], radii: Sequence[float]) -> None:
    """Set the limits: to R_max, or to the last published radius."""
    longest = max([reach, *(one.points[-1][0] for one in others if one.points)])
    axes.set_xlim(0, 1.03 * (longest or max(radii) or 1.0))
    axes.set_ylim(0, 102)
    axes.set_yticks(range(0, 101, 20))
    axes.tick_params(labelbottom=True)
