"""Published curves in the figures of measured ones: dotted, hollow, without a band, labelled with their paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from bench.report.comparison import Comparison
from bench.report.figures.style import Style, published_style, styles
from bench.report.published import PublishedNumber

Series = tuple[str, str, str, float | None]


@dataclass(frozen=True, kw_only=True)
class PublishedCurve:
    """The published numbers of one method, paper, variant and sigma, with how they are drawn.

    Attributes:
        label: the same for one paper's curves of a method at all sigmas, unless it has several at one sigma.
        sigma: None where each radius has its best sigma.
        points: radius and certified accuracy in [0,1] where this is above zero, by ascending radius.
    """

    label: str
    style: Style
    sigma: float | None
    points: tuple[tuple[float, float], ...]


def published_curves(
    comparison: Comparison, numbers: Sequence[PublishedNumber], sigmas: Collection[float | None]
) -> tuple[PublishedCurve, ...]:
    """Return the published curves of the measured methods at these sigmas, in the order of the numbers.

    Args:
        numbers: published for the data set of the comparison.
        sigmas: (None,) for the numbers that state none.
    """
    measured = styles(comparison)
    colors = {one.method: measured[one.label].color for one in comparison.everything}
    series: dict[Series, list[PublishedNumber]] = {}
    for number in numbers:
        if number.method in colors and number.sigma in sigmas:
            series.setdefault(number.series, []).append(number)
    labels = _labels(comparison, series)
    made: Counter[str] = Counter()
    by_label: dict[str, Style] = {}
    for key, label in labels.items():
        if label not in by_label:
            by_label[label] = published_style(colors[key[0]], made[key[0]])
            made[key[0]] += 1
    return tuple(_curve(labels[key], by_label[labels[key]], members) for key, members in series.items())


def draw_published(axes: Axes, curves: Sequence[PublishedCurve]) -> None:
    """Draw the curves through their points above zero, with straight lines: nothing is known between them."""
    for one in curves:
        axes.plot(
            [radius for radius, _ in one.points],
            [100 * accuracy for _, accuracy in one.points],
            color=one.style.color,
            linestyle=one.style.line,
            clip_on=False,
            zorder=3.5,
            **one.style.marker_settings,
        )


def legend_of(curves: Sequence[PublishedCurve]) -> dict[str, Style]:
    """Return label -> style, for the legend."""
    return {one.label: one.style for one in curves}


def _labels(comparison: Comparison, series: Collection[Series]) -> dict[Series, str]:
    """Return a label with paper and year per series, and the variant where one sigma has several."""
    variants = Counter((method, paper, sigma) for method, paper, _, sigma in series)
    return {
        (method, paper, variant, sigma): f"published: {comparison.name_of(method)}, {paper}"
        + (f", {variant or 'main'}" if variants[method, paper, sigma] > 1 else "")
        for method, paper, variant, sigma in series
    }


def _curve(label: str, style: Style, numbers: Sequence[PublishedNumber]) -> PublishedCurve:
    points = sorted((number.radius, number.certified_accuracy) for number in numbers)
    points = [(radius, accuracy) for radius, accuracy in points if accuracy > 0]
    return PublishedCurve(label=label, style=style, sigma=numbers[0].sigma, points=tuple(points))
