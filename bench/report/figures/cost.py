"""Figures of inference cost: accuracy against seconds per image, alone and beside the certified accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from bench.report.comparison import Comparison
from bench.report.figures.accuracy import draw_envelopes, finish_panel
from bench.report.figures.style import (
    ACCURACY_LABEL,
    COLUMN_WIDTH,
    PAGE_WIDTH,
    RADIUS_LABEL,
    Style,
    add_legend,
    groups_of,
    legend_height,
    styles,
    use_plain_numbers,
)
from bench.report.rates import Quartiles, seconds_per_certificate

SHARES_OF_REACH = (0.2, 0.4, 0.6)
"""Of R_max at the largest sigma: the table's radii nearest to them are drawn, so that no result picks them."""

_LARGEST_AREA, _LEAST_AREA = 200.0, 12.0
"""Areas in square points of the marker of the largest method, and of one that is too small to be seen else."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One label in the plane of seconds and accuracy.

    Attributes:
        parameters: of the method, 0 where nobody knows.
        seconds: of an image.
        accuracy: share of images, NaN where unknown; interval: its bounds, where they are known.
    """

    label: str
    parameters: int
    seconds: Quartiles
    accuracy: float
    interval: tuple[float, float] | None = None


def accuracy_against_cost_figure(comparison: Comparison) -> Figure | None:
    """Return certified accuracy at the best sigma against seconds per certified image, a panel per radius.

    Bars are the exact 95% interval and the quartiles over repetitions; areas are proportional to parameters. The cost
    is that at the chosen sigma or, where this was not measured, at the measured sigma nearest to it. None where the
    labels share no sigma or no cost was measured.
    """
    radii = compared_radii(comparison)
    by_radius = {radius: _points(comparison, radius) for radius in radii}
    if not by_radius[radii[0]]:
        return None
    width = PAGE_WIDTH if len(radii) > 1 else COLUMN_WIDTH
    by_label = styles(comparison)
    legend = _legend(by_radius[radii[0]], by_label)
    figure = Figure(figsize=(width, 2.2 + legend_height(legend, width)), layout="constrained")
    panels = figure.subplots(1, len(radii), sharey=True, squeeze=False).ravel()
    for panel, (radius, points) in zip(panels, by_radius.items(), strict=True):
        draw_points(panel, points, by_label)
        panel.set_title(f"$r$ = {radius:g}")
        panel.set_xlabel(_seconds_label(comparison))
    points = [point for some in by_radius.values() for point in some]
    panels[0].set_ylim(_limits(points))
    panels[0].set_ylabel("certified accuracy (%)")
    _add_sized_legend(figure, legend, points)
    return figure


def compared_radii(comparison: Comparison) -> tuple[float, ...]:
    """Return the table's radii that are drawn against cost: nearest to `SHARES_OF_REACH`, zero left out."""
    reach = max(entry.reach for entry in comparison.entries)
    usable = [radius for radius in comparison.radii if 0 < radius <= reach] or [comparison.radii[0]]
    chosen = (min(usable, key=lambda one: (abs(one - share * reach), one)) for share in SHARES_OF_REACH)
    return tuple(dict.fromkeys(chosen))


def overview_figure(comparison: Comparison) -> Figure | None:
    """Return the two results in one figure: best over sigma, and accuracy against seconds at one radius.

    The first has a second panel where there are more labels than one panel shows. The radius is the second of
    `compared_radii`. None where there is no choice of sigma, no measured cost, or a third panel would be needed.
    """
    radius = (compared_radii(comparison) * 2)[1]
    points, groups = _points(comparison, radius), groups_of(comparison.labels)
    if not points or len(groups) > 2 or len({entry.sigma for entry in comparison.best}) < 2:
        return None
    by_label = {label: one for label, one in styles(comparison).items() if label in comparison.labels}
    figure = Figure(figsize=(PAGE_WIDTH, 2.3 + legend_height(by_label, PAGE_WIDTH)), layout="constrained")
    widths = (1.35 if len(groups) == 1 else 1, *[1] * len(groups))
    *panels, last = figure.subplots(1, len(widths), width_ratios=widths)
    for panel, group, title in zip(
        panels, groups, (r"(a) best over $\sigma$", "(b) other methods"), strict=False
    ):
        draw_envelopes(panel, comparison, {label: by_label[label] for label in group})
        finish_panel(panel, max(one.reach for one in comparison.best), (), comparison.radii)
        panel.set_xlabel(RADIUS_LABEL)
        panel.set_title(title, loc="left", pad=14)
    panels[0].set_ylabel(ACCURACY_LABEL)
    draw_points(last, points, by_label)
    last.set_ylim(_limits(points))
    last.set_title(f"({'abc'[len(groups)]}) accuracy against cost", loc="left", pad=14)
    last.set_xlabel(_seconds_label(comparison))
    last.set_ylabel(f"certified accuracy at $r$ = {radius:g} (%)")
    add_legend(figure, by_label)
    return figure


def _seconds_label(comparison: Comparison) -> str:
    samples = sorted({one.cost.samples_per_certificate for one in comparison.costs})
    return f"s / image ({' or '.join(f'{count:,}' for count in samples)} samples)"


def _points(comparison: Comparison, radius: float) -> list[Point]:
    found = (_point(comparison, label, radius) for label in comparison.labels)
    return [point for point in found if point is not None]


def _point(comparison: Comparison, label: str, radius: float) -> Point | None:
    best = comparison.best_at(label, radius)
    cost = None if best is None else comparison.cost_near(label, best.sigma)
    if best is None or cost is None:
        return None
    share = best.curve.at(radius)
    return Point(
        label=label,
        parameters=cost.parameters,
        seconds=seconds_per_certificate(cost),
        accuracy=share.value,
        interval=share.interval(),
    )


def accuracy_by_seconds(points: Sequence[Point], by_label: Mapping[str, Style], width: float) -> Figure:
    """Return the points on a log axis of seconds: a marker per label, its area proportional to the parameters.

    The legend names every label and its parameters.
    """
    legend = _legend(points, by_label)
    figure = Figure(figsize=(width, 2.4 + legend_height(legend, width)), layout="constrained")
    axes = figure.subplots()
    draw_points(axes, points, by_label)
    axes.set_ylim(_limits(points))
    _add_sized_legend(figure, legend, points)
    return figure


def draw_points(axes: Axes, points: Sequence[Point], by_label: Mapping[str, Style]) -> None:
    """Draw the points on a log axis of seconds, the largest first; one without an accuracy is a line at its seconds."""
    largest = max(point.parameters for point in points)
    for point in sorted(points, key=lambda one: -one.parameters):
        _draw_point(axes, point, by_label[point.label], largest)
    seconds = [value for point in points for value in (point.seconds.first, point.seconds.third)]
    axes.set_xscale("log")
    axes.set_xlim(min(seconds) / 2.3, max(seconds) * 2.3)
    use_plain_numbers(axes.xaxis)


def _limits(points: Sequence[Point]) -> tuple[float, float]:
    """Return limits of percentages that all points and their intervals fit in."""
    known = [point for point in points if not math.isnan(point.accuracy)]
    bounds = [100 * end for one in known for end in one.interval or (one.accuracy, one.accuracy)]
    return max(0.0, 10 * np.floor((min(bounds) - 3) / 10)), min(104.0, 10 * np.ceil((max(bounds) + 3) / 10))


def _legend(points: Sequence[Point], by_label: Mapping[str, Style]) -> dict[str, Style]:
    return {_named(point): replace(by_label[point.label], line="none") for point in points}


def _add_sized_legend(figure: Figure, legend: Mapping[str, Style], points: Sequence[Point]) -> None:
    add_legend(figure, legend)
    if max(point.parameters for point in points):
        figure.legends[0].set_title("method, parameters (area of its marker)")
        figure.legends[0].get_title().set_fontsize(8)


def _draw_point(axes: Axes, point: Point, style: Style, largest: int) -> None:
    x, y = point.seconds.median, 100 * point.accuracy
    if math.isnan(y):
        axes.axvline(x, color=style.color, linestyle=style.line, linewidth=1)
        return
    low, high = (100 * bound for bound in point.interval or (point.accuracy, point.accuracy))
    axes.errorbar(
        x,
        y,
        xerr=[[x - point.seconds.first], [point.seconds.third - x]],
        yerr=[[y - low], [high - y]] if point.interval else None,
        color=style.color,
        linewidth=0.9,
        capsize=1.8,
    )
    axes.scatter(
        x,
        y,
        s=max(_LEAST_AREA, _LARGEST_AREA * point.parameters / max(largest, 1)) / _unit_area(style.marker),
        marker=style.marker,
        facecolor="white" if style.is_hollow else style.color,
        edgecolor=style.color,
        alpha=0.75,
        zorder=3,
        clip_on=False,
    )


def _unit_area(marker: str) -> float:
    """Return the area of a marker as matplotlib draws it at size 1: shapes differ in it."""
    style = MarkerStyle(marker)
    outline = style.get_path().transformed(style.get_transform()).to_polygons()[0]
    x, y = np.asarray(outline, dtype=np.float64).T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def _named(point: Point) -> str:
    """Return the label with its parameters behind it as 700k, 1.9M or 3B."""
    unknown = " (line: no accuracy known)" if math.isnan(point.accuracy) else ""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k"), (1, "")):
        if point.parameters >= unit:
            return f"{point.label}, {point.parameters / unit:.3g}{name}{unknown}"
    return f"{point.label}{unknown}"
