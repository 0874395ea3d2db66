"""Comparison of several trainings -> a figure of what each variant of a method certifies, with bands over trainings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes

from bench.report.comparison import Comparison
from bench.report.figures.style import (
    COLORS,
    LINES,
    MARKERS,
    RADIUS_LABEL,
    SETTINGS,
    Style,
    add_legend,
    literal,
    panel_grid,
    save_figure,
)
from bench.report.tables.variants import Variants, variants_of
from bench.report.variants import Estimate, at_radius, estimate, pooled_variance, scores

POINTS = 121
"""Radii at which a curve is drawn."""


def write_variants(comparison: Comparison, reference: str, folder: Path) -> list[Path]:
    """Write variants.png and variants.pdf: mean certified accuracy against radius, with 95% bands; return the paths.

    A panel per sigma and method, a line per variant. The bands are the intervals of `bench.report.variants.estimate`,
    with the training variance that is pooled over the panel's variants.

    Raises:
        UsageError, RecordsError: as `bench.report.tables.variants.variants_of`.
    """
    groups = variants_of(comparison, reference)
    names = list(dict.fromkeys(name for variants in groups.values() for name in variants))
    with matplotlib.style.context(["default", SETTINGS]):
        by_name = dict(zip(names, _styles(), strict=False))
        figure, panels = panel_grid(len(groups), by_name)
        for panel, ((sigma, method), variants) in zip(panels, groups.items(), strict=True):
            for name in variants:
                _draw(panel, variants, name, by_name[name], comparison.radii)
            panel.set_title(rf"{literal(method)}, $\sigma$ = {sigma:g}")
            panel.set_xlabel(RADIUS_LABEL)
        panels[0].set_xlim(left=0)
        panels[0].set_ylim(0, 102)
        add_legend(figure, by_name)
        folder.mkdir(parents=True, exist_ok=True)
        return save_figure(figure, folder / "variants")


def _styles() -> list[Style]:
    return [
        Style(color=color, line=line, marker=marker, is_hollow=False)
        for color, line, marker in zip(COLORS, cycle(LINES), MARKERS, strict=False)
    ]


def _draw(axes: Axes, variants: Variants, name: str, style: Style, radii: Sequence[float]) -> None:
    """Draw one variant's mean, its band, and markers at the table's radii."""
    reach = max(record.radius for entry in variants[name] for record in entry.records)
    x = np.linspace(0, reach, POINTS)
    points = [_estimate(variants, name, radius) for radius in x]
    axes.plot(x, [100 * one.value for one in points], color=style.color, linestyle=style.line)
    low, high = (np.clip([getattr(one, end) for one in points], 0, 1) for end in ("low", "high"))
    axes.fill_between(x, 100 * low, 100 * high, color=style.color, alpha=0.12, linewidth=0)
    marked = [radius for radius in radii if radius <= reach]
    values = [100 * _estimate(variants, name, radius).value for radius in marked]
    axes.plot(marked, values, linestyle="none", clip_on=False, zorder=3, **style.marker_settings)


def _estimate(variants: Variants, name: str, radius: float) -> Estimate:
    found = {
        one: scores([entry.records for entry in entries], at_radius(radius))
        for one, entries in variants.items()
    }
    return estimate(found[name], pooled=pooled_variance(found.values()))
