"""One look for all figures: sizes, fonts, and a fixed colour, line and marker per method."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, NullFormatter
from numpy.typing import NDArray

from bench.config.methods import BUILT_IN, described
from bench.errors import UsageError, plain
from bench.records.disk import replace_file
from bench.report.comparison import Comparison, Named

COLUMN_WIDTH, PAGE_WIDTH = 3.25, 6.75
"""Widths in inches of one column and of a whole page of a two-column paper: figures are printed at their own size."""

RADIUS_LABEL = r"$\ell_2$ radius $r$"
ACCURACY_LABEL = "certified accuracy (%)"

SETTINGS: dict[str, Any] = {
    "text.color": ".15",
    "axes.labelcolor": ".15",
    "xtick.color": ".15",
    "ytick.color": ".15",
    "lines.solid_capstyle": "round",
    "patch.edgecolor": "w",
    "patch.force_edgecolor": True,
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "DejaVu Serif"],  # both come with matplotlib
    "mathtext.fontset": "stix",
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "axes.titlesize": 8.5,
    "axes.titley": 1.0,  # no axis has ticks above, which matplotlib would measure for every drawing
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
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
    "#b86e00",
    "#00835c",
    "#a9489a",
    "#7a4b2a",
    "#5a5f66",
    "#c63d2f",
    "#1a8fb0",
    "#7d7a00",
    "#5b4fc0",
)
"""Colours of lines and markers in order: each has a contrast of 3 to 1 or more with white, and a lightness apart."""

FINEST = 4000
"""Steps of a curve that a panel shows: a quarter of a dot at 300 dpi, across the width of a column."""

FAINT = "0.82"
"""Colour of the lines that another panel shows in their colours."""

LINES: tuple[Any, ...] = (
    "-",
    (0, (4.5, 1.5)),
    (0, (5, 1.3, 1, 1.3)),
    (0, (1.2, 1.2)),
    (0, (8, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2.5, 1)),
    (0, (7, 1.3, 1, 1.3, 1, 1.3)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
_PUBLISHED_LINE = (0, (0.9, 2.2))

MOST_TOGETHER = 4
"""Labels that one panel shows in colour; more of them hide each other."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one label is drawn: colour and marker tell the method, line and filling the run.

    Attributes:
        color: "#rrggbb".
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


def sized_styles(names: Iterable[str]) -> dict[str, Style]:
    """Return name -> style of methods at some size, such as "rrcm-s": the colour is that of the method."""
    held = list(dict.fromkeys(names))
    owners = {name: _owner(name) for name in held}
    free = iter(range(len(BUILT_IN), 1000))
    places = {name: list(BUILT_IN).index(owner) if owner else next(free) for name, owner in owners.items()}
    repeated: Counter[int] = Counter()
    found = {}
    for name, place in places.items():
        found[name] = Style(
            color=COLORS[place % len(COLORS)],
            line=LINES[(place + repeated[place]) % len(LINES)],
            marker=MARKERS[(place + 4 * repeated[place]) % len(MARKERS)],
            is_hollow=repeated[place] % 2 == 1,
        )
        repeated[place] += 1
    return found


def _owner(name: str) -> str:
    """Return the built-in method that a name is a size of; "" for none."""
    return max((one for one in BUILT_IN if f"{name}-".startswith(f"{one}-")), key=len, default="")


def published_style(color: str, number: int) -> Style:
    """Return how a method's published curve `number` is drawn: dotted in the method's colour, markers empty."""
    marker = MARKERS[number % len(MARKERS)]
    return Style(color=color, line=_PUBLISHED_LINE, marker=marker, is_hollow=True, is_published=True)


def grid_shape(panels: int) -> tuple[int, int]:
    """Return (rows, columns) for that many panels: up to three in a row, four as two by two."""
    columns = 2 if panels == 4 else min(panels, 3)
    return -(-panels // columns), columns


def panel_grid(
    count: int, labels: Collection[str], *, has_common_x: bool = True, columns: int | None = None
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels with room for a legend of these labels, and its panels.

    Args:
        has_common_x: one x-axis for all panels; the y-axis always is one.
        columns: panels in a row; None: as many as fit.
    """
    columns = columns or grid_shape(count)[1]
    rows = -(-count // columns)
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    figure = Figure(figsize=(width, 1.95 * rows + 0.15 + legend_height(labels, width)), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=has_common_x, sharey=True, squeeze=False).ravel()
    for unused in panels[count:]:
        unused.remove()
    for panel in panels[:count:columns]:
        panel.set_ylabel(ACCURACY_LABEL)
    return figure, panels[:count].tolist()


def drawn_steps(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return which of the steps of a curve are drawn, ascending: all, or the first and one for each `FINEST`-th.

    It is the last of those in that part of the axis: a step function takes its value from the right end of each step,
    and is nowhere drawn higher than it is.

    Args:
        places: (S,) of the steps along the axis, ascending, from the left to the right end of the panel.
    """
    if len(places) <= FINEST:
        return np.arange(len(places))
    cells = np.floor(FINEST * (places - places[0]) / (places[-1] - places[0]))
    is_last = np.diff(cells, append=np.inf) > 0
    is_last[0] = True  # where the line begins
    return np.flatnonzero(is_last)


def groups_of(labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the labels in as few groups of much the same size as leave at most `MOST_TOGETHER` in each."""
    count = max(1, -(-len(labels) // MOST_TOGETHER))
    ends = [round(place * len(labels) / count) for place in range(count + 1)]
    return [tuple(labels[start:end]) for start, end in itertools.pairwise(ends)]


def use_plain_numbers(axis: Axis) -> None:
    """Label a log axis 0.1, 1, 10, and between them where the range is short; 10^k where it is of large numbers."""
    low, high = axis.get_view_interval()
    is_short, is_large = high / low < 100, high >= 1e5 or low < 1e-4
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_short else (1,)))
    axis.set_major_formatter(
        LogFormatterMathtext()
        if is_large and not is_short
        else FuncFormatter(lambda value, _: f"{value:,.9g}")
    )
    axis.set_minor_formatter(NullFormatter())


def literal(text: str) -> str:
    """Return `text` so that matplotlib shows it as it is: no formula between dollar signs, no control character."""
    return "\n".join(map(plain, text.split("\n"))).replace("$", r"\$")


def legend_shape(labels: Collection[str], width: float) -> tuple[int, int]:
    """Return (rows, columns) of a legend of these labels below a figure `width` inches wide."""
    entry_points = 40 + 4.5 * max(map(len, labels))
    columns = max(1, min(len(labels), int(width * 72 // entry_points)))
    return -(-len(labels) // columns), columns


def legend_height(labels: Collection[str], width: float) -> float:
    """Return how many inches a figure must grow to hold that legend."""
    return 0.18 * legend_shape(labels, width)[0] + 0.1


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
    _lay_out(figure)
    write_figure(figure, paths[0], {"Description": command} if command else None)
    write_figure(figure, paths[1], {"CreationDate": None} | ({"Subject": command} if command else {}))
    return paths


def _lay_out(figure: Figure) -> None:
    """Place all parts once, for both files: it takes longer than to draw them."""
    if (engine := figure.get_layout_engine()) is not None:
        figure.set_dpi(matplotlib.rcParams["savefig.dpi"])
        engine.execute(figure)
        figure.set_layout_engine(None)


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
