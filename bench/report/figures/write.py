"""Comparison -> figures for a paper, as PNG and PDF; no global matplotlib state is read or changed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from bench.device.children import serve_parent
from bench.report.comparison import Comparison
from bench.report.figures.accuracy import certified_accuracy_figure, envelope_figure, sigmas_figure
from bench.report.figures.cost import accuracy_against_cost_figure, overview_figure
from bench.report.figures.differences import differences_figure
from bench.report.figures.lower_bounds import lower_bounds_figure
from bench.report.figures.samples import levels_figure, samples_figure
from bench.report.figures.style import SETTINGS, save_figure
from bench.report.published import PublishedNumber

_WITH_PUBLISHED: dict[str, Callable[[Comparison, Sequence[PublishedNumber]], Figure | None]] = {
    "certified_accuracy": certified_accuracy_figure,
    "envelope": envelope_figure,
}

_PLAIN: dict[str, Callable[[Comparison], Figure | None]] = {
    "overview": overview_figure,
    "sigmas": sigmas_figure,
    "differences": differences_figure,
    "p_lower": lower_bounds_figure,
    "accuracy_against_cost": accuracy_against_cost_figure,
    "samples": samples_figure,
    "levels": levels_figure,
}

FIGURES = (*_WITH_PUBLISHED, *_PLAIN)
"""Names, without suffix, of all files that `write_figures` may write."""

Paths = Callable[[], list[Path]]
"""Waits until the figures are written, and returns the paths."""


def write_figures(
    comparison: Comparison,
    folder: Path,
    published: Sequence[PublishedNumber] = (),
    names: Sequence[str] = FIGURES,
) -> list[Path]:
    """Write `FIGURES` as PNG (200 dpi) and PDF, at the width of a column or a page of a paper.

    Figures without data are left out: those of the best sigma and of all sigmas where there is one, or none is shared;
    those on cost where none was measured; differences of a single method. The same comparison gives the same bytes.

    Args:
        folder: made where missing; files of these names in it are replaced, those of figures left out removed.
        published: numbers of the runs' data set, to be drawn beside the curves of the same methods.
        names: of the figures to write, out of `FIGURES`.

    Returns:
        The paths written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [path for name in names for path in _write(name, comparison, folder, published)]


@contextmanager
def figures_written_by(
    processes: int, comparison: Comparison, folder: Path, published: Sequence[PublishedNumber] = ()
) -> Iterator[Paths]:
    """Write the figures as `write_figures` in processes of their own, while the block within computes; the same bytes.

    Args:
        processes: 1 writes them in this one, when they are asked for. More are forked from this one, which must have no
            other thread that runs Python, and no GPU in use.
    """
    if processes == 1:
        yield lambda: write_figures(comparison, folder, published)
        return
    pool = ProcessPoolExecutor(
        min(processes, len(FIGURES)),
        mp_context=multiprocessing.get_context("fork"),  # the comparison is not copied
        initializer=_begin,
        initargs=(comparison, folder, published),
    )
    try:
        written = [pool.submit(_write_begun, name) for name in FIGURES]
        yield lambda: [path for one in written for path in one.result()]
    finally:
        pool.shutdown(cancel_futures=True)


_begun: list[tuple[Comparison, Path, Sequence[PublishedNumber]]] = []
"""In a process that was forked to write figures: what all of them are made of."""


def _begin(comparison: Comparison, folder: Path, published: Sequence[PublishedNumber]) -> None:
    serve_parent()
    _begun.append((comparison, folder, published))


def _write_begun(name: str) -> list[Path]:
    return write_figures(*_begun[0], (name,))


def _write(
    name: str, comparison: Comparison, folder: Path, published: Sequence[PublishedNumber]
) -> list[Path]:
    """Write one figure; return its paths, none where it has no data."""
    with matplotlib.style.context(["default", SETTINGS]):
        if (figure := _made(name, comparison, published)) is not None:
            return save_figure(figure, folder / name)
    for suffix in (".png", ".pdf"):
        (folder / name).with_suffix(suffix).unlink(missing_ok=True)
    return []


def make_figures(comparison: Comparison, published: Sequence[PublishedNumber] = ()) -> dict[str, Figure]:
    """Return file name -> figure, those without data left out, in the matplotlib style that is in force."""
    figures = {name: _made(name, comparison, published) for name in FIGURES}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _made(name: str, comparison: Comparison, published: Sequence[PublishedNumber]) -> Figure | None:
    make = _PLAIN.get(name)
    return _WITH_PUBLISHED[name](comparison, published) if make is None else make(comparison)
