"""Comparison -> figures of what the number of samples and the confidence change, from the counts of the records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy import special

from bench.report.comparison import Comparison, Entry
from bench.report.equal_accuracy import chances_of_at_least, least_count
from bench.report.figures.accuracy import draw_curve, finish_panel
from bench.report.figures.style import (
    COLORS,
    LINES,
    RADIUS_LABEL,
    Style,
    legend_shape,
    literal,
    panel_grid,
)
from bench.report.metrics import Curve, curve_of
from bench.smoothing.estimation import largest_radius
from bench.smoothing.stats import upper_tails

FEWER = (1, 3, 10, 30)
"""What n is divided by."""

LEVELS = (0.1, 0.01, 0.001, 1e-5)
"""Failure probabilities of a certificate that are drawn, beside the run's own."""

POINTS = 60
"""Radii at which the expectation is computed."""


def samples_figure(comparison: Comparison) -> Figure | None:
    """Return the certified accuracy that fewer samples are expected to give, a panel per label, a line per n.

    All at the middle sigma. The expectation is exact: of n counted samples, any n' are hypergeometric. None where an
    entry has no counts, or was not made by fixed estimation with Clopper-Pearson bounds.
    """
    entries = _counted(comparison)
    if not entries:
        return None
    lines = {f"$n$ = {max(1, entries[0].header.n // part):,}": part for part in FEWER}

    def draw(axes: Axes, entry: Entry) -> None:
        hits, is_selected = _hits(entry)
        kinds, images = np.unique(
            hits[is_selected], return_counts=True
        )  # of few values many images have each
        shares = 100 * images / len(hits)
        for place, part in enumerate(FEWER):
            n = max(1, entry.header.n // part)
            x = np.linspace(0, largest_radius(replace(entry.header, n=n), entry.sigma), POINTS)
            needed = [least_count(n, entry.header.alpha, float(radius), entry.sigma) for radius in x]
            values = [
                float(shares @ chances_of_at_least(count, kinds, entry.header.n, n)) for count in needed
            ]
            axes.plot(x, values, color=COLORS[place], linestyle=LINES[place])

    return _panels(comparison, entries, draw, list(lines))


def levels_figure(comparison: Comparison) -> Figure | None:
    """Return certified accuracy by the failure probability alpha of a certificate, a panel per label, a line per alpha.

    All at the middle sigma. Each alpha is one that might have been fixed beforehand: none may be chosen by what it
    shows. None as for `samples_figure`.
    """
    entries = _counted(comparison)
    if not entries:
        return None
    own = entries[0].header.alpha
    alphas = tuple(sorted({*LEVELS, own}, reverse=True))

    def draw(axes: Axes, entry: Entry) -> None:
        counted = _hits(entry)
        for place, alpha in enumerate(alphas):
            reach = largest_radius(replace(entry.header, alpha=alpha), entry.sigma)
            style = Style(color=COLORS[place], line=LINES[place], marker="", is_hollow=False)
            draw_curve(axes, _curve(entry, *counted, alpha), style, (), reach, has_band=False)

    names = [rf"$\alpha$ = {_level(alpha)}{' (the run)' if alpha == own else ''}" for alpha in alphas]
    return _panels(comparison, entries, draw, names)


def _counted(comparison: Comparison) -> tuple[Entry, ...]:
    """Return the entries of the middle sigma where all have the counts of one bound by fixed estimation, else none.

    None either where they differ in n or alpha, of which a line shows one.
    """
    entries = comparison.at_sigma(comparison.sigmas[len(comparison.sigmas) // 2])
    for entry in entries:
        header = entry.header
        is_plain = (header.estimation, header.bound) == ("fixed", "clopper-pearson")
        if not is_plain or not entry.has_counts or entry.is_composed:
            return ()
    return entries if len({(entry.header.n, entry.header.alpha) for entry in entries}) == 1 else ()


def _panels(
    comparison: Comparison,
    entries: Sequence[Entry],
    draw: Callable[[Axes, Entry], None],
    names: Sequence[str],
) -> Figure:
    columns = min(len(entries), 4) if len(entries) != 1 else None
    title = rf"$\sigma$ = {entries[0].sigma:g}"
    figure, axes = panel_grid(len(entries), [*names, title], columns=columns)
    for panel, entry in zip(axes, entries, strict=True):
        draw(panel, entry)
        panel.set_title(literal(entry.label))
        finish_panel(panel, max(one.reach for one in entries), (), comparison.radii)
        panel.set_xlabel(RADIUS_LABEL)
    handles = [
        Line2D([], [], color=COLORS[place], linestyle=LINES[place], label=name)
        for place, name in enumerate(names)
    ]
    count = legend_shape(names, figure.get_figwidth())[1]
    figure.legend(handles=handles, title=title, loc="outside lower center", ncols=count)
    return figure


def _hits(entry: Entry) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return (I,) how many estimation samples have the label, and (I,) whether selection chose it."""
    return entry.columns.hits, entry.columns.selected == entry.columns.label


def _curve(entry: Entry, hits: NDArray[np.int64], is_selected: NDArray[np.bool_], alpha: float) -> Curve:
    """Return the certified accuracy of the entry's counts at another alpha.

    Args:
        hits, is_selected: of the entry, as `_hits` returns them.
    """
    n = entry.header.n
    kinds, places = np.unique(hits, return_inverse=True)  # of few values many images have each
    tails = upper_tails(kinds, n, alpha)
    radii = np.maximum(0.0, -entry.sigma * special.ndtri(tails))
    certified = np.where((kinds > 0) & (tails <= 0.5), radii, -1.0)[places]
    return curve_of(np.where(is_selected, certified, -1.0))


def _level(alpha: float) -> str:
    if alpha >= 1e-4:
        return f"{alpha:g}"
    factor, power = f"{alpha:e}".split("e")
    times = "" if float(factor) == 1 else rf"{float(factor):g} \cdot "
    return f"${times}10^{{{int(power)}}}$"
