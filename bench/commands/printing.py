"""What commands print to stdout: tables, with rich, and the report of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.commands.options import say
from bench.errors import plain
from bench.report import markup

if TYPE_CHECKING:
    from bench.config.labels import Labels
    from bench.report.comparison import Comparison


def print_table(table: markup.Table, *, has_intervals: bool = False) -> None:
    """Print a table with its notes, and with the intervals of its numbers where asked to.

    A pipe gets lines of a fixed width.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=240 if has_intervals else 160)
    title = Text(plain(table.caption)) if table.caption else None
    shown = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for position, header in enumerate(table.headers):
        is_name = position == 0
        shown.add_column(
            Text(plain(header)),
            justify="left" if is_name or table.holds_words else "right",
            no_wrap=is_name or not table.holds_words,
            overflow="fold" if table.holds_words else "ellipsis",
        )
    for block in table.blocks:
        if block.title:
            shown.add_row(Text(plain(block.title), style="italic"))
        for row in block.rows:
            shown.add_row(*(_text(markup.as_cell(cell), has_intervals) for cell in row))
        shown.add_section()
    console.print(shown)
    for note in table.notes:
        if note.startswith(markup.BRACKETS) and not has_intervals:
            continue
        console.print(plain(note), highlight=False, markup=False, style="dim")


def _text(cell: markup.Cell, has_interval: bool) -> Text:
    text = Text(plain(cell.text), style="bold" if cell.is_best else "")
    return text.append(f" {cell.detail}", style="not bold") if has_interval and cell.interval else text


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
    labels: Labels | None = None,
) -> Comparison:
    """Write tables and figures of the runs to `out`, print the main table and what is said beside it.

    Args:
        allow: header fields in which the runs may differ.
        has_published: set published numbers beside ours.
        labels: names in place of the display names.

    Returns:
        The runs as they were compared.
    """
    from bench.config.labels import DISPLAYED
    from bench.records.file import check_comparable, read_run
    from bench.report.comparison import compare
    from bench.report.write import write_report

    runs = [read_run(folder) for folder in folders]
    check_comparable(runs, allow)
    comparison = compare(runs, labels or DISPLAYED)
    report = write_report(comparison, out, has_published=has_published)
    print_table(report.table)
    lines = (*report.sentences, f"Tables and figures: {out} ({len(report.files)} files)", report.published)
    for line in filter(None, lines):
        say(line)
    return comparison


def duration(seconds: float) -> str:
    """Return a time for reading: "41 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
