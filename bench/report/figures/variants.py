"""Comparison of several training runs -> a figure of what each variant certifies, and of what it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.comparison import Comparison, Entry
from bench.report.figures.style import (
    ACCURACY_LABEL,
    COLORS,
    COLUMN_WIDTH,
    LINES,
    MARKERS,
    PAGE_WIDTH,
    RADIUS_LABEL,
    SETTINGS,
    Style,
    add_legend,
    drawn_steps,
    groups_of,
    legend_height,
    literal,
    save_figure,
    styles,
)
from bench.report.tables.variants import Variants, variants_frame, variants_of

MOST_COLUMNS = 3
"""Groups side by side."""


def write_variants(comparison: Comparison, reference: str, folder: Path) -> list[Path]:
    """Write variants.png and variants.pdf of `variants_figure`; return the paths.

    Raises:
        UsageError, RecordsError: as `bench.report.tables.variants.variants_of`.
    """
    with matplotlib.style.context(["default", SETTINGS]):
        folder.mkdir(parents=True, exist_ok=True)
        return save_figure(variants_figure(comparison, reference), folder / "variants")


def variants_figure(comparison: Comparison, reference: str) -> Figure:
    """Return mean certified accuracy of each variant up to R_max, and below it the difference to the reference.

    A column per group of `variants_of`. Bars are the 95% intervals of `variants_frame`, at the table's radii within
    R_max; more than a panel shows have their differences in several panels.

    Raises:
        UsageError, RecordsError: as `bench.report.tables.variants.variants_of`.
    """
    groups, frame = variants_of(comparison, reference), variants_frame(comparison, reference)
    names = list(dict.fromkeys(name for variants in groups.values() for name in variants))
    by_name = _styles(comparison, reference, names, groups)
    others = groups_of([name for name in names if name != reference]) if len(names) > 1 else []
    columns = min(len(groups), MOST_COLUMNS)
    rows = -(-len(groups) // columns) * (1 + len(others))
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    figure = Figure(figsize=(width, 1.75 * rows + 0.2 + legend_height(names, width)), layout="constrained")
    panels = figure.subplots(rows, columns, sharex="col", squeeze=False)
    for place, ((sigma, method), variants) in enumerate(groups.items()):
        top, column = (place // columns) * (1 + len(others)), place % columns
        reach = max(entry.reach for entries in variants.values() for entry in entries)
        _draw_means(panels[top, column], variants, by_name, comparison.radii)
        name = f"{literal(comparison.name_of(method))}, " if method else ""
        panels[top, column].set_title(rf"{name}$\sigma$ = {sigma:g}")
        of_group = frame["method"].isin({entries[0].method for entries in variants.values()})
        here = frame[(frame["sigma"] == sigma) & of_group & (frame["radius"] <= reach)]
        for below, group in enumerate(others, top + 1):
            _draw_differences(panels[below, column], here, {name: by_name[name] for name in group})
        _share_limits(list(panels[top + 1 : top + 1 + len(others), column]))
        panels[top + len(others), column].set_xlabel(RADIUS_LABEL)
        panels[top + len(others), column].tick_params(labelbottom=True)
        if column == 0:
            panels[top, 0].set_ylabel(ACCURACY_LABEL)
            for below in panels[top + 1 : top + 1 + len(others), 0]:
                below.set_ylabel(f"minus {literal(reference)} (points)")
    for unused in panels.flat:
        if not unused.has_data():
            unused.remove()
    add_legend(figure, by_name)
    return figure


def _share_limits(panels: Sequence[Axes]) -> None:
    """Give panels of differences one scale, so that they can be compared by eye."""
    limits = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _styles(
    comparison: Comparison, reference: str, names: Sequence[str], groups: Mapping[tuple[float, str], Variants]
) -> dict[str, Style]:
    """Return a style per variant: the reference in the colour of the first method, the others in the colours left.

    Where a group holds several methods, a variant of each has the method's colour: the reference, else the one of its
    name, else the first.
    """
    own = styles(comparison)
    colors = {reference: next(iter(own.values())).color}
    if any(method == "" for _, method in groups):
        held = {name: entries[0] for variants in groups.values() for name, entries in variants.items()}
        colors = {}
        for name in sorted(held, key=lambda name: (name != reference, name != held[name].method)):
            if (color := own[held[name].label].color) not in colors.values():
                colors[name] = color
    left = [color for color in COLORS if color not in colors.values()]
    colors |= dict(zip([name for name in names if name not in colors], cycle(left), strict=False))
    looks = zip(names, cycle(LINES), cycle(MARKERS), strict=False)
    return {
        name: Style(color=colors[name], line=line, marker=mark, is_hollow=False) for name, line, mark in looks
    }


def _draw_means(
    axes: Axes,
    variants: Mapping[str, Sequence[Entry]],
    by_name: Mapping[str, Style],
    radii: Sequence[float],
) -> None:
    """Draw each variant's mean over its training runs as the exact step function, with markers at the table's radii.

    It ends at the R_max of its own runs.
    """
    longest = max(entry.reach for entries in variants.values() for entry in entries)
    for name, entries in variants.items():
        style, reach = by_name[name], max(entry.reach for entry in entries)
        x = np.unique([radius for entry in entries for radius in entry.curve.radii])
        x = x[drawn_steps(x)]
        shares = np.array([_mean(entries, radius) for radius in x])
        if x[-1] < reach * (1 - 1e-9):
            x, shares = np.append(x, [x[-1], reach]), np.append(shares, [0, 0])
        axes.step(x, shares, where="pre", color=style.color, linestyle=style.line)
        marked = [radius for radius in radii if radius <= reach]
        values = [_mean(entries, radius) for radius in marked]
        axes.plot(marked, values, linestyle="none", clip_on=False, zorder=3, **style.marker_settings)
    axes.set_xlim(-0.04 * longest, 1.03 * longest)  # room for what is drawn beside radius 0
    axes.set_ylim(0, 102)
    axes.set_yticks(range(0, 101, 20))


def _mean(entries: Sequence[Entry], radius: float) -> float:
    return float(100 * np.mean([entry.curve.at(radius).value for entry in entries]))


def _draw_differences(axes: Axes, frame: pd.DataFrame, by_name: Mapping[str, Style]) -> None:
    """Draw the difference of every variant at each radius, the variants beside each other."""
    step = np.diff(np.unique(frame["radius"])).min(initial=0.25)
    axes.axhline(0, color="0.3", linewidth=0.7)
    for place, (name, style) in enumerate(by_name.items()):
        rows = frame[frame["variant"] == name]
        value, low, high = (
            100 * rows[column].to_numpy(dtype=float)
            for column in ("difference", "difference_low", "difference_high")
        )
        shift = 0.12 * step * (place - (len(by_name) - 1) / 2)
        axes.errorbar(
            rows["radius"] + shift,
            value,
            yerr=[value - low, high - value],
            color=style.color,
            linestyle="none",
            capsize=1.5,
            linewidth=0.9,
            clip_on=False,
            **style.marker_settings,
        )
