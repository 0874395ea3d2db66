"""Comparison -> figures for a paper, as PNG and PDF; no global matplotlib state is read or changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from bench.report.comparison import Comparison
from bench.report.figures.accuracy import certified_accuracy_figure, envelope_figure, sigmas_figure
from bench.report.figures.cost import accuracy_against_cost_figure, overview_figure
from bench.report.figures.differences import differences_figure
from bench.report.figures.lower_bounds import lower_bounds_figure
from bench.report.figures.samples import levels_figure, samples_figure
from bench.report.figures.style import SETTINGS, save_figure
from bench.report.published import PublishedNumber

_PLAIN: dict[str, Callable[[Comparison], Figure | None]] = {
    "overview": overview_figure,
    "sigmas": sigmas_figure,
    "differences": differences_figure,
    "p_lower": lower_bounds_figure,
    "accuracy_against_cost": accuracy_against_cost_figure,
    "samples": samples_figure,
    "levels": levels_figure,
}

FIGURES = frozenset({"certified_accuracy", "envelope", *_PLAIN})
"""Names, without suffix, of all files that `write_figures` may write."""


def write_figures(
    comparison: Comparison, folder: Path, published: Sequence[PublishedNumber] = ()
) -> list[Path]:
    """Write `FIGURES` as PNG (200 dpi) and PDF, at the width of a column or a page of a paper.

    Figures without data are left out: those of the best sigma and of all sigmas where there is one, or none is shared;
    those on cost where none was measured; differences of a single method. The same comparison gives the same bytes.

    Args:
        folder: made where missing; files of these names in it are replaced, those of figures left out removed.
        published: numbers of the runs' data set, to be drawn beside the curves of the same methods.

    Returns:
        The paths written.
    """
    with matplotlib.style.context(["default", SETTINGS]):
        figures = make_figures(comparison, published)
        folder.mkdir(parents=True, exist_ok=True)
        for name in FIGURES - figures.keys():
            for suffix in (".png", ".pdf"):
                (folder / name).with_suffix(suffix).unlink(missing_ok=True)
        return [path for name, figure in figures.items() for path in save_figure(figure, folder / name)]


def make_figures(comparison: Comparison, published: Sequence[PublishedNumber] = ()) -> dict[str, Figure]:
    """Return file name -> figure, those without data left out, in the matplotlib style that is in force."""
    figures = {
        "certified_accuracy": certified_accuracy_figure(comparison, published),
        "envelope": envelope_figure(comparison, published),
        **{name: make(comparison) for name, make in _PLAIN.items()},
    }
    return {name: figure for name, figure in figures.items() if figure is not None}
