"""What commands print to stdout: tables that fit the terminal, and the report of runs."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.commands.options import say
from bench.commands.terminal import machine, tables
from bench.device.host import cores
from bench.errors import plain
from bench.report import markup

if TYPE_CHECKING:
    from bench.config.labels import Labels
    from bench.report.comparison import Comparison

PIPE_WIDTH = 160
"""Columns of what is no terminal, unless COLUMNS gives another number."""


def console() -> Console:
    """Return the console of stdout, as wide as the terminal; a pipe has PIPE_WIDTH columns, or COLUMNS."""
    found = Console(highlight=False)
    if not found.is_terminal and not os.environ.get("COLUMNS", "").isdecimal():
        found = Console(width=PIPE_WIDTH, highlight=False)
    return found


def print_table(table: markup.Table, *, has_intervals: bool = False, has_notes: bool = True) -> None:
    """Print a table with its notes; `has_intervals`: with the intervals of its numbers where they have room."""
    print_tables([table], has_intervals=has_intervals, has_notes=has_notes)


def print_tables(
    several: Sequence[markup.Table], *, has_intervals: bool = False, has_notes: bool = True
) -> None:
    """Print tables, and below them the notes of all, each once."""
    out = console()
    shown = []
    for table in several:
        if table.holds_words:
            tables.show_words(out, table)
        else:
            shown.append(tables.show(out, table, has_intervals=has_intervals))
    for note in tables.notes_of(several, has_intervals=any(shown)) if has_notes else ():
        print_sentence(note, style="dim")


def print_sentence(text: str, *, style: str = "") -> None:
    """Print a sentence, folded at spaces where it is wider than the terminal."""
    out = console()
    for line in textwrap.wrap(plain(text), out.width, break_long_words=False, break_on_hyphens=False):
        out.print(line, markup=False, style=style, soft_wrap=True)


def name_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of names and what they are."""
    block = markup.Block(rows=tuple(map(tuple, rows)))
    print_table(markup.Table(headers=tuple(headers), blocks=(block,), holds_words=True))


def report_runs(
    folders: Sequence[Path],
    out: Path,
    allow: Sequence[str] = (),
    *,
    has_published: bool = False,
    as_json: bool = False,
    is_quiet: bool = False,
    labels: Labels | None = None,
) -> Comparison:
    """Write tables, figures and results.json of the runs to `out`; print the main table and the verdicts.

    Args:
        allow: header fields in which the runs may differ.
        has_published: set published numbers beside ours.
        as_json: print the content of results.json instead.
        is_quiet: print the table alone.
        labels: names in place of the display names.

    Returns:
        The runs as they were compared.
    """
    from bench.commands.terminal.verdicts import verdicts
    from bench.config.labels import DISPLAYED
    from bench.records.disk import replace_file
    from bench.records.file import check_comparable, read_run
    from bench.records.lines import collector_paused
    from bench.report.comparison import compare
    from bench.report.write import write_report

    runs = [read_run(folder) for folder in folders]
    check_comparable(runs, allow)
    with collector_paused():
        comparison = compare(runs, labels or DISPLAYED)
        report = write_report(comparison, out, has_published=has_published, processes=_drawing_processes())
        results = machine.results(comparison)
    replace_file(out / machine.RESULTS, machine.as_text(results))
    if as_json:
        machine.print_json(results | {"folder": str(out)})
        return comparison
    tables = [report.table] if report.training is None else [report.table, report.training]
    print_tables(tables, has_notes=not is_quiet)
    if not is_quiet:
        say("")
        for line in filter(None, (*verdicts(comparison), *report.sentences, report.published)):
            print_sentence(line)
        say(f"Results: {out} ({len(report.files) + 1} files); for programs: {out / machine.RESULTS}")
    return comparison


MOST_DRAWING = 4
"""Processes that draw figures, of which there are nine, at most."""


def _drawing_processes() -> int:
    """Return how many processes draw figures: this one alone where it cannot be forked in safety."""
    is_alone = threading.active_count() == 1 and "torch" not in sys.modules  # which has threads of its own
    return min(cores(), MOST_DRAWING) if is_alone and sys.platform == "linux" else 1


def duration(seconds: float) -> str:
    """Return a time for reading: "41 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 86400:,.0f} days"
