"""Tables at any width: intervals go first, then the columns are split over several tables; no number is ever cut."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from bench.errors import plain
from bench.report.markup import Cell, Row, Table, as_cell

GAP = 2
"""Spaces between two columns."""

LEAST_PROSE = 28
"""Width below which prose is no column of a table but stands below the row's name."""

LONGEST_NAME = 24
"""Width at which the names of rows are folded where a table would not fit otherwise."""

ABOUT_INTERVALS = "Brackets"
"""First word of the notes that explain intervals: left out where none is printed."""


def widths(table: Table, *, has_intervals: bool) -> list[int]:
    """Return the width that each column needs: its widest cell, or the longest word of its header."""
    columns = []
    for position, header in enumerate(table.headers):
        cells = [cell_text(row[position], has_intervals) for block in table.blocks for row in block.rows]
        columns.append(max(map(cell_len, (*cells, *plain(header).split())), default=1))
    return columns


def fitted(table: Table, width: int, *, has_intervals: bool) -> tuple[list[Table], bool]:
    """Return the tables that show all columns of one within a width, and whether they show its intervals.

    Args:
        width: columns of the terminal.
        has_intervals: whether intervals are wanted; they are left out before the table is split.
    """
    cells = (as_cell(cell) for block in table.blocks for row in block.rows for cell in row)
    shows = has_intervals and any(cell.interval for cell in cells)
    if shows and _total(widths(table, has_intervals=True)) <= width:
        return [table], True
    needed = _foldable(widths(table, has_intervals=False), width)
    parts: list[list[int]] = [[]]
    for position in range(1, len(needed)):
        if parts[-1] and _total([needed[one] for one in (0, *parts[-1], position)]) > width:
            parts.append([])
        parts[-1].append(position)
    return [table.columns((0, *part)) for part in parts], False


def notes_of(tables: Sequence[Table], *, has_intervals: bool) -> list[str]:
    """Return the notes of several tables, each once; those on intervals only where intervals are shown."""
    notes = dict.fromkeys(note for table in tables for note in table.notes)
    return [note for note in notes if has_intervals or not note.startswith(ABOUT_INTERVALS)]


def show(console: Console, table: Table, *, has_intervals: bool) -> bool:
    """Print a table of numbers without its notes, and return whether its intervals are shown."""
    parts, shows = fitted(table, console.width, has_intervals=has_intervals)
    for number, part in enumerate(parts):
        caption = f"{part.caption} (continued)" if number and part.caption else part.caption
        for line in lines(replace(part, caption=caption), console.width, has_intervals=shows):
            console.print(line, soft_wrap=True)
        console.print()
    return shows


def show_words(console: Console, table: Table) -> None:
    """Print rows of words: a table where the prose has room, else each row as its name with lines below."""
    rows = [[cell_text(cell, False) for cell in row] for block in table.blocks for row in block.rows]
    needed = widths(table, has_intervals=False)
    prose = [position for position, width in enumerate(needed) if width > LONGEST_NAME]
    room = console.width - _total([width for at, width in enumerate(needed) if at not in prose]) - GAP
    has_room = prose == [len(needed) - 1] and room >= LEAST_PROSE
    if not prose and _total(needed) > console.width:
        show(console, table, has_intervals=False)
    elif _total(needed) <= console.width or has_room:
        for line in lines(table, console.width, has_intervals=False):
            console.print(line, soft_wrap=True)
    else:
        for row in rows:
            console.print(Text(row[0], style="bold"), soft_wrap=True)
            for header, text in zip(table.headers[1:], row[1:], strict=True):
                label = "" if len(row) == 2 else f"{header}: "
                for one in _wrapped(label + text, console.width - 2):
                    console.print(Text(f"  {one}"), soft_wrap=True)


def lines(table: Table, width: int, *, has_intervals: bool) -> Iterator[Text]:
    """Yield the lines of a table: caption, headers, and block by block its title and rows.

    Names of rows, headers and a last column of words are folded where they have no room; numbers never are.
    """
    needed = _foldable(widths(table, has_intervals=has_intervals), width)
    unfolded = [max(one, cell_len(plain(text))) for one, text in zip(needed, table.headers, strict=True)]
    needed = unfolded if _total(unfolded) <= width else needed
    if table.holds_words and (over := _total(needed) - width) > 0:
        needed[-1] = max(needed[-1] - over, 1)
    if table.caption:
        yield from (Text(line, style="italic") for line in _wrapped(plain(table.caption), width))
    yield from _row_lines(table.headers, needed, table.holds_words, style="bold")
    yield Text("─" * min(_total(needed), width))
    for number, block in enumerate(table.blocks):
        if number:
            yield Text()
        if block.title:
            yield from (Text(line, style="italic") for line in _wrapped(plain(block.title), width))
        for row in block.rows:
            yield from _row_lines(row, needed, table.holds_words, has_intervals=has_intervals)


def cell_text(entry: Cell | str, has_intervals: bool) -> str:
    """Return what a cell shows on a terminal."""
    cell = as_cell(entry)
    detail = f" {cell.detail}" if has_intervals and cell.interval else ""
    return plain(cell.text) + detail


def _row_lines(
    row: Row, needed: Sequence[int], holds_words: bool, *, has_intervals: bool = False, style: str = ""
) -> Iterator[Text]:
    """Yield the lines of one row; a cell that is wider than its column is folded at spaces, a name anywhere."""
    folded = []
    for position, (entry, width) in enumerate(zip(row, needed, strict=True)):
        text = cell_text(entry, has_intervals)
        is_foldable = position == 0 or bool(style) or holds_words
        folded.append(
            _wrapped(text, width, breaks=position == 0) if is_foldable and cell_len(text) > width else [text]
        )
    for depth in range(max(map(len, folded))):
        line = Text(style=style)
        for position, (entry, parts, width) in enumerate(zip(row, folded, needed, strict=True)):
            text = parts[depth] if depth < len(parts) else ""
            padding = " " * (width - cell_len(text))
            is_left = position == 0 or holds_words
            line.append("" if is_left else padding)
            line.append(text, style="bold" if as_cell(entry).is_best else None)
            line.append(padding if is_left else "")
            line.append("" if position == len(needed) - 1 else " " * GAP)
        line.rstrip()
        yield line


def _wrapped(text: str, width: int, *, breaks: bool = False) -> list[str]:
    return textwrap.wrap(text, max(width, 1), break_on_hyphens=False, break_long_words=breaks) or [""]


def _foldable(needed: list[int], width: int) -> list[int]:
    """Return the widths with the names' column narrowed where the table would not fit."""
    return [min(needed[0], LONGEST_NAME), *needed[1:]] if _total(needed) > width else needed


def _total(columns: Sequence[int]) -> int:
    return sum(columns) + GAP * max(0, len(columns) - 1)
