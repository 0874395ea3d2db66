"""Curves and costs -> Bokeh figures for the page, as the JSON that its library draws; the extra `html`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.embed import json_item
from bokeh.models import ColumnDataSource, CrosshairTool, HoverTool
from bokeh.plotting import figure

from bench.report.comparison import Comparison
from bench.report.figures.style import Style, styles
from bench.report.metrics import Curve, envelope
from bench.smoothing.stats import proportion_interval

MARKERS = {
    "o": "circle",
    "s": "square",
    "^": "triangle",
    "D": "diamond",
    "v": "inverted_triangle",
    "P": "plus",
    "X": "x",
    "<": "hex",
    ">": "star",
    "p": "square_pin",
}
"""Markers of the printed figures -> the library's."""

VALUES = " values"
"""Name of what carries the tooltip of a figure of curves; no label begins with a space."""

POINTS_PER_DASH = 1.8
"""Pixels for each line width of a printed dash."""


def curve_plots(comparison: Comparison) -> list[tuple[str, Any]]:
    """Return (sigma, certified-accuracy figure) for each sigma, then ("best", ...) for the envelope over sigma."""
    by_sigma = {
        f"{sigma:g}": {entry.label: (entry.curve, entry.reach) for entry in comparison.at_sigma(sigma)}
        for sigma in comparison.sigmas
    }
    if comparison.best:
        of_label = {label: comparison.best_of(label) for label in comparison.labels}
        by_sigma["best"] = {
            label: (envelope([one.curve for one in entries]), max(one.reach for one in entries))
            for label, entries in of_label.items()
        }
    return [
        (sigma, json_item(_curves(curves, styles(comparison), comparison.radii, sigma != "best")))
        for sigma, curves in by_sigma.items()
    ]


def cost_plot(comparison: Comparison, points: Sequence[dict[str, Any]]) -> Any:
    """Return the figure of accuracy against seconds per certified image for `bench.report.page.values.cost_points`."""
    by_label = styles(comparison)
    panel = figure(
        height=340,
        sizing_mode="stretch_width",
        x_axis_type="log",
        y_range=(0, 104),
        tools="pan,wheel_zoom,reset,save",
        x_axis_label="seconds per certified image (log scale)",
        y_axis_label="certified accuracy (%)",
        name="cost",
    )
    columns = {name: [point[name] for point in points] for name in points[0]}
    columns |= {"color": [by_label[label].color for label in columns["label"]]}
    columns |= {"marker": [MARKERS[by_label[label].marker] for label in columns["label"]]}
    source = ColumnDataSource(columns, name="costs")
    panel.segment("seconds", "low", "seconds", "high", source=source, color="color", line_alpha=0.7)
    panel.segment("first", "accuracy", "third", "accuracy", source=source, color="color", line_alpha=0.7)
    shown = panel.scatter("seconds", "accuracy", source=source, size=13, marker="marker", color="color")
    offsets = {"x_offset": 10, "y_offset": "offset"}
    panel.text("seconds", "accuracy", text="label", source=source, text_font_size="13px", **offsets)
    panel.x_range.range_padding = 0.35
    tooltips = [
        ("", "@label"),
        ("certified", "@accuracy{0.0}% [@low{0.0}, @high{0.0}]"),
        ("seconds", "@seconds{0.000} [@first{0.000}, @third{0.000}]"),
        ("σ chosen", "@sigma"),
        ("parameters", "@parameters{0,0}"),
    ]
    panel.add_tools(HoverTool(renderers=[shown], tooltips=tooltips))
    return json_item(_finished(panel))


def _curves(
    curves: dict[str, tuple[Curve, float]],
    by_label: dict[str, Style],
    radii: Sequence[float],
    has_bands: bool,
) -> Any:
    """Return the figure of curves, each with its R_max."""
    longest = max(reach for _, reach in curves.values()) or 1.0
    panel = _finished(
        figure(
            height=300,
            sizing_mode="stretch_width",
            x_range=(0, 1.04 * longest),
            y_range=(0, 102),
            tools="pan,wheel_zoom,reset,save",
            x_axis_label="L2 radius (pixels in [0,1])",
            y_axis_label="certified accuracy (%)",
        )
    )
    for label, (steps, _) in curves.items():
        _draw(panel, steps, label, by_label[label], radii, has_bands)
    _add_values(panel, curves, longest, has_bands)
    return panel


def _add_values(panel: Any, curves: dict[str, tuple[Curve, float]], end: float, has_bands: bool) -> None:
    """Add one tooltip that holds every label's value at the radius under the pointer; an unseen line carries it.

    Beyond a label's R_max it has none: its accuracy is NaN, and its text a dash.
    """
    reaches = [reach for _, reach in curves.values()]
    radii = np.unique(np.concatenate([*(steps.radii for steps, _ in curves.values()), reaches, [end]]))
    columns: dict[str, Any] = {"radius": radii, "middle": np.full(len(radii), 50.0)}
    tooltips = [("radius", "@radius{0.000}")]
    for place, (label, (steps, reach)) in enumerate(curves.items()):
        counts = np.array([steps.at(radius).count for radius in radii])
        low, high = proportion_interval(counts, steps.images)
        accuracy = np.where(radii <= reach, 100.0, np.nan) * counts / steps.images
        intervals = [f" [{100 * a:.1f}, {100 * b:.1f}]" * has_bands for a, b in zip(low, high, strict=True)]
        columns[f"accuracy{place}"] = accuracy
        columns[f"text{place}"] = [
            "–" if np.isnan(value) else f"{value:.1f}%{interval}"
            for value, interval in zip(accuracy, intervals, strict=True)
        ]
        tooltips.append((label, f"@text{place}"))
    carrier = panel.line("radius", "middle", source=ColumnDataSource(columns), alpha=0.0, name=VALUES)
    hover = HoverTool(
        renderers=[carrier], tooltips=tooltips, mode="vline", line_policy="nearest", name=VALUES
    )
    panel.add_tools(hover, CrosshairTool(dimensions="height", line_alpha=0.4, line_color="gray"))


def _finished(panel: Any) -> Any:
    """Return the panel without a background or logo of its own: the page gives both themes' colours."""
    panel.background_fill_alpha = panel.border_fill_alpha = 0
    panel.outline_line_color = None
    panel.toolbar.logo = None
    panel.toolbar.autohide = True
    panel.toolbar.active_scroll = None
    panel.toolbar.active_drag = None
    panel.min_border_right = 12
    panel.axis.axis_label_text_font_style = "normal"
    panel.axis.axis_label_text_font_size = "13px"
    panel.axis.major_label_text_font_size = "12px"
    panel.axis.minor_tick_line_color = None
    panel.grid.grid_line_dash = [2, 3]
    return panel


def _draw(panel: Any, steps: Curve, label: str, style: Style, radii: Sequence[float], has_band: bool) -> None:
    """Add the exact step function, its 95% band, and markers at the table's radii; all named by the label."""
    corners = _corners(steps)
    source = ColumnDataSource(corners)
    if has_band:
        panel.varea("radius", "low", "high", source=source, color=style.color, alpha=0.12, name=label)
    dash = _dash(style)
    panel.line(
        "radius", "accuracy", source=source, color=style.color, line_width=2, line_dash=dash, name=label
    )
    marked = [radius for radius in radii if radius <= steps.radii[-1]]
    panel.scatter(
        marked,
        [100 * steps.at(radius).value for radius in marked],
        marker=MARKERS[style.marker],
        size=7,
        color=style.color,
        fill_alpha=0.0 if style.is_hollow else 1.0,
        name=label,
    )


def _corners(steps: Curve) -> dict[str, Any]:
    """Return the corners of the step function in order, percent, with the exact interval at each."""
    radii = np.repeat(steps.radii, 2)[:-1]
    counts = np.concatenate([[steps.counts[0]], np.repeat(steps.counts[1:], 2)]).astype(int)
    radii, counts = np.append(radii, radii[-1]), np.append(counts, 0)
    low, high = proportion_interval(counts, steps.images)
    percent = {"accuracy": 100 * counts / steps.images, "low": 100 * low, "high": 100 * high}
    # Drawn and never read as numbers: single precision weighs half.
    return {"radius": radii} | {name: values.astype(np.float32) for name, values in percent.items()}


def _dash(style: Style) -> list[int]:
    return [] if style.line == "-" else [max(1, round(POINTS_PER_DASH * part)) for part in style.line[1]]
