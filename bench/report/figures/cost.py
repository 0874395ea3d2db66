"""Figures of inference cost: accuracy against seconds per image, and speedup bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from bench.device.timing import Quartiles, seconds_per_certificate
from bench.report.comparison import REFERENCE, Comparison, MeasuredCost
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
from bench.report.metrics import Share

TARGET_RADIUS = 0.5
"""Radius of the accuracy that is drawn against cost; the table's nearest one is taken."""

Place = Literal["outside lower center", "outside upper center"]

_LARGEST_AREA = 260.0
"""Area in square points of the marker of the largest method."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One label in the plane of accuracy and cost."""

    label: str
    parameters: int
    share: Share
    seconds: Quartiles


def accuracy_against_cost_figure(comparison: Comparison) -> Figure | None:
    """Return certified accuracy near radius 0.5 at the best sigma against seconds per certified image.

    One marker per label, its area proportional to the parameters; bars are the exact 95% interval and the
    quartiles over repetitions. The cost is that at the chosen sigma or, where this was not measured, at the
    measured sigma nearest to it. None where the labels share no sigma or no cost was measured.
    """
    radius = min(comparison.radii, key=lambda radius: (abs(radius - TARGET_RADIUS), radius))
    points = [
        point for label in comparison.labels if (point := _point(comparison, label, radius)) is not None
    ]
    if not points:
        return None
    figure = Figure(figsize=(COLUMN_WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    by_label = styles(comparison)
    largest = max(point.parameters for point in points)
    for point in points:
        _draw_point(axes, point, by_label[point.label], largest)
    seconds = [value for point in points for value in (point.seconds.first, point.seconds.third)]
    axes.set_xscale("log")
    axes.set_xlim(min(seconds) / 4, max(seconds) * 3)
    axes.set_ylim(_lowest(points), 104)
    use_plain_numbers(axes.xaxis)
    samples = sorted({one.cost.samples_per_certificate for one in comparison.costs})
    axes.set_xlabel(f"seconds per certified image ({' or '.join(f'{count:,}' for count in samples)} samples)")
    axes.set_ylabel(f"certified at radius {radius:g} (%)")
    axes.set_title(r"$\sigma$ chosen on the certified images", loc="right", fontsize=7, color="0.35")
    _add_area_legend(figure, points, largest, "outside lower center")
    if not _place_labels(figure, axes, points, by_label, largest):
        for legend in [*figure.legends]:
            legend.remove()
        _add_area_legend(figure, points, largest, "outside upper center")
        labels = [point.label for point in points]
        figure.set_figheight(3.0 + legend_height(labels, COLUMN_WIDTH))
        add_legend(figure, {label: replace(by_label[label], marker="o", line="none") for label in labels})
    return figure


def speedup_figure(comparison: Comparison) -> Figure | None:
    """Return speedups relative to `dds` as horizontal bars on a log axis, a panel per sigma.

    Whiskers are the quartiles over repetitions. None where no speedup, or only that of `dds` itself, was
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


def _point(comparison: Comparison, label: str, radius: float) -> Point | None:
    best = comparison.best_at(label, radius)
    cost = None if best is None else comparison.cost_near(label, best.sigma)
    if best is None or cost is None:
        return None
    share, seconds = best.curve.at(radius), seconds_per_certificate(cost)
    return Point(label=label, parameters=cost.parameters, share=share, seconds=seconds)


def _draw_point(axes: Axes, point: Point, style: Style, largest: int) -> None:
    x, y = point.seconds.median, 100 * point.share.value
    low, high = (100 * bound for bound in point.share.interval())
    axes.errorbar(
        x,
        y,
        xerr=[[x - point.seconds.first], [point.seconds.third - x]],
        yerr=[[y - low], [high - y]],
        color=style.color,
        linewidth=0.9,
        capsize=1.8,
    )
    face = "white" if style.is_hollow else style.color
    axes.scatter(
        x,
        y,
        s=_area(point.parameters, largest),
        facecolor=face,
        edgecolor=style.color,
        alpha=0.75,
        zorder=3,
        clip_on=False,
    )
    axes.scatter(x, y, s=2, color="black", zorder=4, linewidth=0, clip_on=False)


def _area(parameters: int, largest: int) -> float:
    return _LARGEST_AREA * parameters / max(largest, 1)


def _lowest(points: Sequence[Point]) -> float:
    """Return the lower end of the percent axis, a multiple of 10 below all intervals."""
    low = min(100 * point.share.interval()[0] for point in points)
    return max(0.0, 10 * float(np.floor((low - 8) / 10)))


def _add_area_legend(figure: Figure, points: Sequence[Point], largest: int, place: Place) -> None:
    """Add a legend of up to three round parameter counts in the range of the points.

    A callable that is no module counts none; where all are such there is no legend.
    """
    smallest = min((point.parameters for point in points if point.parameters), default=0)
    if smallest == 0:
        return
    counts = sorted({_round(count) for count in np.geomspace(smallest, largest, 3)})
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="o",
            markersize=_area(count, largest) ** 0.5,
            markerfacecolor="0.75",
            markeredgecolor="0.4",
            label=_count(count),
        )
        for count in counts
    ]
    figure.legend(
        handles=handles,
        title="parameters",
        title_fontsize=7,
        loc=place,
        ncols=3,
        handletextpad=0.6,
        handleheight=2.2,
    )


def _round(count: float) -> int:
    """Return the count with one significant digit."""
    return int(float(f"{count:.0e}"))


def _count(count: int) -> str:
    """Return a count as 700k, 2M or 3B."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:g}{name}"
    return str(count)


def _place_labels(
    figure: Figure, axes: Axes, points: Sequence[Point], by_label: Mapping[str, Style], largest: int
) -> bool:
    """Write each label where it overlaps nothing; return False, writing none, if one finds no place."""
    figure.draw_without_rendering()
    frame = axes.get_window_extent().padded(-2)
    taken = [box for point in points for box in _obstacles(figure, axes, point, largest)]
    places: list[tuple[float, float]] = []
    for point in points:
        for offset in _offsets(_marker_radius(point, largest)):
            text = _annotate(axes, point, offset)
            box = text.get_window_extent().padded(1)
            text.remove()
            is_inside = (
                frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            )
            if is_inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                places.append(offset)
                break
        else:
            return False
    for point, offset in zip(points, places, strict=True):
        _annotate(axes, point, offset, by_label[point.label].color, _marker_radius(point, largest))
    return True


def _offsets(marker: float) -> list[tuple[float, float]]:
    """Return offsets in points, nearest first, of the places a label may take around a marker."""
    return [
        ((marker + gap) * x, (marker + gap) * y)
        for gap in (3, 9, 16, 24, 32)
        for x, y in ((1, 0), (0.8, 0.8), (0.8, -0.8), (-1, 0), (-0.8, 0.8), (-0.8, -0.8), (0, 1), (0, -1))
    ]


def _annotate(
    axes: Axes, point: Point, offset: tuple[float, float], color: str = "black", marker: float = np.inf
) -> Annotation:
    """Write a label in a darker shade of `color`, with a leader line where it stands far from the marker."""
    dx, dy = offset
    shade = tuple(0.7 * channel for channel in to_rgb(color))
    leader = {"arrowstyle": "-", "color": shade, "linewidth": 0.5, "shrinkA": 0, "shrinkB": marker}
    text = axes.annotate(
        literal(point.label),
        (point.seconds.median, 100 * point.share.value),
        xytext=offset,
        textcoords="offset points",
        ha="left" if dx > 0 else "right" if dx < 0 else "center",
        va="bottom" if dy > 0 else "top" if dy < 0 else "center",
        fontsize=7.5,
        color=shade,
        arrowprops=leader if np.hypot(dx, dy) > marker + 6 else None,
    )
    text.set_in_layout(False)
    return text


def _marker_radius(point: Point, largest: int) -> float:
    return float((_area(point.parameters, largest) / np.pi) ** 0.5)


def _obstacles(figure: Figure, axes: Axes, point: Point, largest: int) -> list[Bbox]:
    """Return the boxes, in pixels, of a point's marker and of its two error bars."""
    half = _marker_radius(point, largest) * figure.dpi / 72
    low, high = point.share.interval()
    transform = axes.transData.transform
    x, y = transform((point.seconds.median, 100 * point.share.value))
    left, right = transform((point.seconds.first, 0))[0], transform((point.seconds.third, 0))[0]
    bottom, top = (
        transform((point.seconds.median, 100 * low))[1],
        transform((point.seconds.median, 100 * high))[1],
    )
    return [
        Bbox.from_extents(x - half, y - half, x + half, y + half),
        Bbox.from_extents(x - 2, bottom, x + 2, top),
        Bbox.from_extents(left, y - 2, right, y + 2),
    ]
