"""One look for all figures: sizes, fonts, and a fixed colour, line and marker per method."""

from __future__ import annotations

import io
import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.config.methods import BUILT_IN, described
from bench.errors import UsageError, plain
from bench.records.disk import replace_file
from bench.report.comparison import Comparison, Named

COLUMN_WIDTH, PAGE_WIDTH = 3.4, 6.9
"""Widths in inches of one column and of a whole page of a two-column paper."""

RADIUS_LABEL = r"$L_2$ radius (pixels in [0,1])"
ACCURACY_LABEL = "certified accuracy (%)"

SETTINGS: dict[str, Any] = {
    **seaborn.axes_style("ticks"),
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "0.3",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "text.usetex": False,
}
"""Matplotlib settings, for `matplotlib.rc_context`; fonts are embedded in PDF as TrueType."""

COLORS = (
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#cc78bc",
    "#d55e00",
    "#56b4e9",
    "#949494",
    "#ca9161",
    "#ece133",
    "#fbafe4",
)
"""Colours of lines and markers in order: seaborn's colour-blind safe palette."""

LINES: tuple[Any, ...] = ("-", (0, (4.5, 1.5)), (0, (5, 1.3, 1, 1.3)), (0, (1.2, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
_PUBLISHED_LINE = (0, (0.9, 2.2))


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one label is drawn: colour and marker tell the method, line and filling the run.

    Attributes:
        color: "#rrggbb", of seaborn's colour-blind safe palette.
        line: a matplotlib line style.
        marker: a matplotlib marker.
        is_hollow: True in every second run.
        is_published: True for numbers that a paper reports: larger, empty markers that show what lies below.
    """

    color: str
    line: Any
    marker: str
    is_hollow: bool
    is_published: bool = False

    @property
    def marker_settings(self) -> dict[str, Any]:
        """Keyword arguments for drawing its markers."""
        if self.is_published:
            empty = {"markerfacecolor": "none", "markersize": 6.5, "markeredgewidth": 0.8}
            return {"marker": self.marker, "markeredgecolor": self.color} | empty
        face = "white" if self.is_hollow else self.color
        return {"marker": self.marker, "markerfacecolor": face, "markeredgecolor": self.color}


def styles(comparison: Comparison) -> dict[str, Style]:
    """Return label -> style: of a method with a colour of its own that one, by order of appearance else."""
    named: list[Named] = [*comparison.everything, *comparison.costs]
    looks = described([*BUILT_IN, *(one.method for one in named)])
    places = {name: COLORS.index(look.color) for name, look in looks.items() if look.color in COLORS}
    free = (place for place in itertools.count() if place not in places.values())
    places |= {one: next(free) for one in dict.fromkeys(one.method for one in named) if one not in places}
    return {
        one.label: Style(
            color=looks[one.method].color or COLORS[places[one.method] % len(COLORS)],
            line=LINES[(places[one.method] + one.run_number) % len(LINES)],
            marker=MARKERS[places[one.method] % len(MARKERS)],
            is_hollow=one.run_number % 2 == 1,
        )
        for one in named
    }


def numbered_styles(names: Iterable[str]) -> dict[str, Style]:
    """Return name -> style by position, for names that are no labels of a comparison."""
    return {
        name: Style(
            color=COLORS[number % len(COLORS)],
            line=LINES[number % len(LINES)],
            marker=MARKERS[number % len(MARKERS)],
            is_hollow=False,
        )
        for number, name in enumerate(names)
    }


def published_style(color: str, number: int) -> Style:
    """Return how a method's published curve `number` is drawn: dotted in the method's colour, markers empty."""
    marker = MARKERS[number % len(MARKERS)]
    return Style(color=color, line=_PUBLISHED_LINE, marker=marker, is_hollow=True, is_published=True)


def grid_shape(panels: int) -> tuple[int, int]:
    """Return (rows, columns) for that many panels: up to three in a row, four as two by two."""
    columns = 2 if panels == 4 else min(panels, 3)
    return -(-panels // columns), columns


def panel_grid(count: int, by_label: Mapping[str, Style]) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels with common axes and room for a legend of these labels, and its panels."""
    rows, columns = grid_shape(count)
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    figure = Figure(figsize=(width, 2.2 * rows + legend_height(by_label, width)), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for unused in panels[count:]:
        unused.remove()
    for panel in panels[:count:columns]:
        panel.set_ylabel(ACCURACY_LABEL)
    return figure, panels[:count].tolist()


def use_plain_numbers(axis: Axis) -> None:
    """Label a log axis 0.1, 1, 10, and between them where the range is short."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def literal(text: str) -> str:
    """Return `text` so that matplotlib shows it as it is: no formula between dollar signs, no control character."""
    return "\n".join(map(plain, text.split("\n"))).replace("$", r"\$")


def legend_shape(labels: Collection[str], width: float) -> tuple[int, int]:
    """Return (rows, columns) of a legend of these labels below a figure `width` inches wide."""
    entry_points = 38 + 4.6 * max(map(len, labels))
    columns = max(1, min(len(labels), int(width * 72 // entry_points)))
    return -(-len(labels) // columns), columns


def legend_height(labels: Collection[str], width: float) -> float:
    """Return how many inches a figure must grow to hold that legend."""
    return 0.17 * legend_shape(labels, width)[0] + 0.1


def add_legend(figure: Figure, by_label: Mapping[str, Style]) -> None:
    """Add one legend below all panels, in as many columns as fit."""
    handles = [
        Line2D([], [], color=style.color, linestyle=style.line, label=literal(label), **style.marker_settings)
        for label, style in by_label.items()
    ]
    columns = legend_shape(by_label, figure.get_figwidth())[1]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.4)


def save_figure(figure: Figure, stem: Path, command: str = "") -> list[Path]:
    """Write one figure as PNG and, without a creation date so that repeating gives the same bytes, PDF.

    Args:
        command: what made its records, kept in the metadata; "": nothing.
    """
    paths = [stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.pdf")]
    write_figure(figure, paths[0], {"Description": command} if command else None)
    write_figure(figure, paths[1], {"CreationDate": None} | ({"Subject": command} if command else {}))
    return paths


def write_figure(figure: Figure, path: Path, metadata: Mapping[str, str | None] | None = None) -> None:
    """Write a figure at once; its kind is that of the suffix.

    Raises:
        UsageError: no figure is of that kind.
    """
    drawn, kind = io.BytesIO(), path.suffix.removeprefix(".").lower()
    kinds = figure.canvas.get_supported_filetypes()
    if kind not in kinds:
        raise UsageError(f"{path} does not end in the name of a kind of figure, such as .png, .pdf or .svg")
    figure.savefig(drawn, format=kind, metadata=None if metadata is None else dict(metadata))
    replace_file(path, drawn.getvalue())
