"""Comparison -> figures for a paper, as PNG and PDF; no global matplotlib state is read or changed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from bench.device.children import end_with_parent, portable, without_interrupts
from bench.errors import EngineError
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

Published = Sequence[PublishedNumber]
"""Numbers of the runs' data set that papers report."""


def write_figures(
    comparison: Comparison, folder: Path, published: Published = (), names: Sequence[str] = FIGURES
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
    with matplotlib.style.context(["default", SETTINGS]):
        figures = make_figures(comparison, published, names)
        folder.mkdir(parents=True, exist_ok=True)
        for name in set(names) - figures.keys():
            for suffix in (".png", ".pdf"):
                (folder / name).with_suffix(suffix).unlink(missing_ok=True)
        return [path for name, figure in figures.items() for path in save_figure(figure, folder / name)]


@contextmanager
def figures_written_by(
    processes: int, comparison: Comparison, folder: Path, published: Published = ()
) -> Iterator[Callable[[], list[Path]]]:
    """Write the figures as `write_figures` in processes of their own, while the block within computes; the same bytes.

    What the block is given, and calls once, waits for the figures and returns their paths. Where something fails,
    figures that are finished stay.

    Args:
        processes: 1 writes them in this one, when they are asked for. More are forked from this one, which must have no
            other thread that runs Python, and no GPU in use; where the system refuses one, the others do its part.

    Raises:
        EngineError: a process has died.
    """
    if processes == 1:
        yield lambda: write_figures(comparison, folder, published)
        return
    context = multiprocessing.get_context("fork")  # nothing is copied
    queue, fill = os.pipe()
    os.write(fill, bytes(range(len(FIGURES))))
    os.close(fill)
    begun: list[tuple[Connection, ForkProcess]] = []
    try:
        with suppress(OSError), without_interrupts(spawns=False):
            for _ in range(processes):
                ours, theirs = context.Pipe(duplex=False)
                with theirs:
                    process = context.Process(
                        target=_draw, args=(theirs, queue, comparison, folder, published)
                    )
                    process.start()
                begun.append((ours, process))
        yield lambda: _written(begun, queue, comparison, folder, published)
    finally:
        os.close(queue)
        for ours, process in begun:
            process.terminate()
            process.join()
            ours.close()


def _draw(
    connection: Connection, queue: int, comparison: Comparison, folder: Path, published: Published
) -> None:
    """Write figures while there are any in the queue, and send the paths, or what ended it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unlike its parent; leaves no half-written file
    end_with_parent()
    try:
        connection.send(_from_queue(queue, comparison, folder, published))
    except Exception as error:
        connection.send(portable(error))


def _from_queue(
    queue: int, comparison: Comparison, folder: Path, published: Published
) -> dict[str, list[Path]]:
    """Write the figures whose numbers are in a pipe, each of which one process reads; return name -> paths."""
    written = {}
    while number := os.read(queue, 1):
        name = FIGURES[number[0]]
        written[name] = write_figures(comparison, folder, published, (name,))
    return written


def _written(
    begun: Sequence[tuple[Connection, ForkProcess]],
    queue: int,
    comparison: Comparison,
    folder: Path,
    published: Published,
) -> list[Path]:
    """Wait for the processes, and return all paths in the order of `FIGURES`."""
    written = {} if begun else _from_queue(queue, comparison, folder, published)
    for connection, process in begun:
        try:
            answer = connection.recv()
        except EOFError:
            process.join()
            raise EngineError(
                f"a process that draws figures has died (exit code {process.exitcode}), perhaps for want of memory; "
                "repeat the command"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        written |= answer
    return [path for name in FIGURES for path in written[name]]


def make_figures(
    comparison: Comparison, published: Published = (), names: Sequence[str] = FIGURES
) -> dict[str, Figure]:
    """Return file name -> figure, those without data left out, in the matplotlib style that is in force."""
    figures = {
        name: _PLAIN[name](comparison) if name in _PLAIN else _WITH_PUBLISHED[name](comparison, published)
        for name in names
    }
    return {name: figure for name, figure in figures.items() if figure is not None}
