"""Curves of training runs -> one figure: loss above, held-out score below, over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.figures.style import COLORS, COLUMN_WIDTH, SETTINGS, literal, write_figure
from bench.training import curves
from bench.training.curves import Look


def draw_curves(sources: Sequence[Path], out: Path) -> Path:
    """Write the curves in CSV files as one figure, a line per file, and return its path.

    The lower panel is left out where nothing was scored. A line is named by what tells its path from the others'.

    Args:
        sources: files that `bench train` wrote; see `bench.training.curves`.
        out: the image, its kind told by its suffix.

    Raises:
        RecordsError: a file that is missing or holds no curves.
    """
    read = {path: curves.read(path) for path in sources}  # before they are named: not every path has a name
    lines = {name: read[path] for name, path in _names(sources).items()}
    is_scored = any(look.score is not None for looks in lines.values() for look in looks)
    with matplotlib.style.context(["default", SETTINGS]):
        figure = Figure(figsize=(COLUMN_WIDTH, 3.6 if is_scored else 2.2), layout="constrained")
        panels = figure.subplots(2 if is_scored else 1, 1, sharex=True, squeeze=False)[:, 0].tolist()
        for (name, looks), color in zip(lines.items(), _colors(len(lines)), strict=True):
            _draw(panels, looks, name, color)
        panels[0].set_ylabel("training loss")
        panels[-1].set_xlabel("step")
        if is_scored:
            panels[1].set_ylabel("held-out score")
        panels[0].legend()
        out.parent.mkdir(parents=True, exist_ok=True)
        write_figure(figure, out)
    return out


def _colors(count: int) -> list[str]:
    """Return so many colours, no two alike: those of the methods, or as many hues as are asked for."""
    if count <= len(COLORS):
        return list(COLORS[:count])
    import seaborn  # here, since few figures need it

    return [str(color) for color in seaborn.husl_palette(count, l=0.5).as_hex()]


def _draw(panels: Sequence[Axes], looks: Sequence[Look], name: str, color: str) -> None:
    settings: dict[str, Any] = {"color": color, "label": literal(name), "marker": "o", "markersize": 2}
    losses = [(look.step, look.loss) for look in looks if look.loss is not None]
    scores = [(look.step, look.score) for look in looks if look.score is not None]
    for panel, points in zip(panels, (losses, scores), strict=False):
        if points:
            panel.plot(*zip(*points, strict=True), **settings)


def _names(sources: Sequence[Path]) -> dict[str, Path]:
    """Return a name per file: its path without what all paths begin with, and without what all end with."""
    parts = [path.with_suffix("").parts for path in sources]
    for end in (0, -1):
        while all(len(names) > 1 for names in parts) and len({names[end] for names in parts}) == 1:
            parts = [names[1:] if end == 0 else names[:-1] for names in parts]
    return {"/".join(names): path for names, path in zip(parts, sources, strict=True)}
