"""Figures of inference cost: accuracy against seconds per image, and speedup bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from bench.report.comparison import Comparison, MeasuredCost
from bench.report.figures.style import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    Style,
    add_legend,
    grid_shape,
    legend_height,
    literal,
    styles,
    use_plain_numbers,
)
from bench.report.markup import format_significant
from bench.report.rates import REFERENCE, Quartiles, seconds_per_certificate

TARGET_RADIUS = 0.5
"""Radius of the accuracy that is drawn against cost; the table's nearest one is taken."""

_LARGEST_AREA, _LEAST_AREA = 200.0, 12.0
"""Areas in square points of the marker of the largest method, and of one that is too small to be seen else."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One label in the plane of seconds and accuracy.

    Attributes:
        parameters: of the method, 0 where nobody knows.
        seconds: of an image.
        accuracy: share of images; interval: its bounds, where they are known.
    """

    label: str
    parameters: int
    seconds: Quartiles
    accuracy: float
    interval: tuple[float, float] | None = None


def accuracy_against_cost_figure(comparison: Comparison) -> Figure | None:
    """Return certified accuracy near radius 0.5 at the best sigma against seconds per certified image.

    Bars are the exact 95% interval and the quartiles over repetitions. The cost is that at the chosen sigma or, where
    this was not measured, at the measured sigma nearest to it. None where the labels share no sigma or no cost was
    measured.
    """
    radius = min(comparison.radii, key=lambda radius: (abs(radius - TARGET_RADIUS), radius))
    points = [
        point for label in comparison.labels if (point := _point(comparison, label, radius)) is not None
    ]
    if not points:
        return None
    figure = accuracy_by_seconds(points, styles(comparison), COLUMN_WIDTH)
    axes = figure.axes[0]
    samples = sorted({one.cost.samples_per_certificate for one in comparison.costs})
    axes.set_xlabel(f"seconds per certified image ({' or '.join(f'{count:,}' for count in samples)} samples)")
    axes.set_ylabel(f"certified at radius {radius:g} (%)")
    axes.set_title(r"$\sigma$ chosen on the certified images", loc="right", fontsize=7, color="0.35")
    return figure


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
    largest = max(point.parameters for point in points)
    legend = {_named(point): replace(by_label[point.label], line="none") for point in points}
    figure = Figure(figsize=(width, 2.6 + legend_height(legend, width)), layout="constrained")
    axes = figure.subplots()
    for point in points:
        _draw_point(axes, point, by_label[point.label], largest)
    seconds = [value for point in points for value in (point.seconds.first, point.seconds.third)]
    lowest = min(100 * (point.interval[0] if point.interval else point.accuracy) for point in points)
    axes.set_xscale("log")
    axes.set_xlim(min(seconds) / 2, max(seconds) * 2)
    axes.set_ylim(max(0.0, 10 * float(np.floor((lowest - 8) / 10))), 104)
    use_plain_numbers(axes.xaxis)
    add_legend(figure, legend)
    if largest:
        figure.legends[0].set_title("method, parameters (area of its marker)")
        figure.legends[0].get_title().set_fontsize(7)
    return figure


def _draw_point(axes: Axes, point: Point, style: Style, largest: int) -> None:
    x, y = point.seconds.median, 100 * point.accuracy
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
    axes.scatter(x, y, s=2, color="black", zorder=4, linewidth=0, clip_on=False)


def _unit_area(marker: str) -> float:
    """Return the area of a marker as matplotlib draws it at size 1: shapes differ in it."""
    style = MarkerStyle(marker)
    outline = style.get_path().transformed(style.get_transform()).to_polygons()[0]
    x, y = np.asarray(outline, dtype=np.float64).T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def _named(point: Point) -> str:
    """Return the label with its parameters behind it as 700k, 1.9M or 3B."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k"), (1, "")):
        if point.parameters >= unit:
            return f"{point.label}, {point.parameters / unit:.3g}{name}"
    return point.label


def speedup_figure(comparison: Comparison) -> Figure | None:
    """Return speedups relative to REFERENCE as horizontal bars on a log axis, a panel per sigma.

    Whiskers are the quartiles over repetitions. None where no speedup, or only that of REFERENCE itself, was
    measured.
    """
    compared = [one for one in comparison.costs if one.speedup is not None]
    if all(one.method == REFERENCE for one in compared):
        return None
    sigmas = sorted({one.sigma for one in compared})
    labels = list(dict.fromkeys(one.label for one in compared))
    rows, columns = grid_shape(len(sigmas))
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    figure = Figure(figsize=(width, (0.24 * len(labels) + 0.5) * rows + 0.25), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    by_label = styles(comparison)
    for panel, sigma in zip(panels, sigmas, strict=False):
        for one in compared:
            if one.sigma == sigma and one.speedup is not None:
                _draw_bar(panel, labels.index(one.label), one.speedup, by_label[one.label].color)
        panel.set_title(rf"$\sigma$ = {sigma:g}")
        panel.axvline(1, color="0.3", linewidth=0.7)
        panel.tick_params(labelbottom=True)
        panel.tick_params(axis="y", length=0)
        panel.grid(visible=False, axis="y")
        panel.spines["left"].set_visible(False)
    for unused in panels[len(sigmas) :]:
        unused.remove()
    _finish_bars(panels[0], labels, compared)
    figure.supxlabel(f"speedup relative to {REFERENCE} (ratio of samples per second)", fontsize=8)
    return figure


def _draw_bar(axes: Axes, position: int, speedup: Quartiles, color: str) -> None:
    """Draw one bar from 1 to the median, its whiskers, and the median beyond the outer end."""
    whiskers = [[speedup.median - speedup.first], [speedup.third - speedup.median]]
    axes.barh(position, speedup.median - 1, left=1, height=0.62, color=color, linewidth=0)
    if speedup.third > 1.001 * speedup.first:
        axes.errorbar(speedup.median, position, xerr=whiskers, color="0.2", linewidth=0.8, capsize=1.8)
    is_faster = speedup.median >= 1
    axes.annotate(
        f"{format_significant(speedup.median)}×",
        (speedup.third if is_faster else speedup.first, position),
        xytext=(4 if is_faster else -4, 0),
        textcoords="offset points",
        ha="left" if is_faster else "right",
        va="center",
        fontsize=7,
    )


def _finish_bars(axes: Axes, labels: Sequence[str], compared: Sequence[MeasuredCost]) -> None:
    """Set the shared axes, leaving room for the values beyond the outermost bars."""
    ends = [end for one in compared if one.speedup for end in (one.speedup.first, one.speedup.third)]
    slowest, fastest = min(*ends, 1.0), max(*ends, 1.0)
    room = max(fastest / slowest, 2.0) ** 0.35
    axes.set_xscale("log")
    axes.set_xlim(slowest / (room if slowest < 0.95 else 1.1), fastest * room)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), [literal(label) for label in labels])
    use_plain_numbers(axes.xaxis)
