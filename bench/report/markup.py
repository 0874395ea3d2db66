"""How numbers are written, and one table structure with its rendering as Markdown.

The command line renders the same structure with rich, `bench.report.tables.latex` for papers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from typing import TYPE_CHECKING

from bench.config.numbers import number
from bench.errors import plain

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = ("=", "+", "-", "@")
"""What begins a formula in a spreadsheet."""

BRACKETS = "Brackets: "
"""What begins a note on the intervals of a table."""

_MARKDOWN = {character: "\\" + character for character in r"\`*_{}[]<>#|~&$"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: unescaped text, for numbers perhaps with an interval around them.

    Where there is text alone, it may stand in a row as it is.

    Attributes:
        text: what stands in the cell.
        interval: (low, high) as written; None where there is none.
        is_best: printed in bold.
        aside: a number that belongs to it, in parentheses; "" for none.
    """

    text: str
    interval: tuple[str, str] | None = None
    is_best: bool = False
    aside: str = ""

    @property
    def detail(self) -> str:
        """What stands behind the text: "(aside)" and "[low, high]", where there are any."""
        parts = [f"({self.aside})"] if self.aside else []
        parts += [] if self.interval is None else [f"[{self.interval[0]}, {self.interval[1]}]"]
        return " ".join(parts)


Row = tuple[Cell | str, ...]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows under one title (empty for none); the first cell of a row names it."""

    title: str = ""
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A caption (empty for none), column headers, blocks of rows as wide as the headers, and footnotes.

    All text is unescaped. A note that begins with `BRACKETS` is about intervals: it is for readers who see them.

    Attributes:
        holds_words: columns hold words, which a terminal may fold, and not numbers.
        details: those of the notes that a paper has no room for; its LaTeX holds them as comments.
    """

    caption: str = ""
    headers: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()
    holds_words: bool = False
    details: tuple[str, ...] = ()

    def columns(self, places: Sequence[int]) -> Table:
        """Return the table of some of the columns, in that order."""
        blocks = tuple(
            replace(block, rows=tuple(tuple(row[place] for place in places) for row in block.rows))
            for block in self.blocks
        )
        return replace(self, headers=tuple(self.headers[place] for place in places), blocks=blocks)


def blocks_of(
    frame: pd.DataFrame,
    make_rows: Callable[[pd.DataFrame], Iterable[Row]],
    by: Sequence[str] = ("sigma",),
    title: str = "σ = {:g}",
) -> tuple[Block, ...]:
    """Return a block per value of some columns, in their order, titled with the values and the number of images.

    Args:
        frame: with a column `images` that is constant in each block.
        make_rows: rows of the frame -> rows of the block.
        by: the columns; title: with a place for the value of each.
    """
    return tuple(
        Block(title=f"{title.format(*values)} ({part['images'].iloc[0]} images)", rows=tuple(make_rows(part)))
        for values, part in frame.groupby(list(by), sort=False)
    )


def as_cell(entry: Cell | str) -> Cell:
    """Return what stands in a row as a cell."""
    return Cell(text=entry) if isinstance(entry, str) else entry


def escape_markdown(text: str) -> str:
    """Return `text` on one line, with every character that Markdown or its tables would interpret escaped."""
    return "".join(_MARKDOWN.get(character, character) for character in plain(" ".join(text.split())))


def csv_text(value: object) -> object:
    """Return a cell of a CSV file: a text that a spreadsheet would take for a formula stands behind an apostrophe.

    Control characters are spelled out; numbers, also those that are written as text, stay as they are.
    """
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def signed(value: float, decimals: int) -> str:
    """Return a number with its sign, which a number that rounds to zero has not."""
    text = f"{value:+.{decimals}f}"
    return text if float(text) else text[1:]


def _is_number(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def format_radius(radius: float, decimals: int) -> str:
    """Return a radius with `decimals` decimals, rounded down: it never exceeds the certified one."""
    return str(Decimal(repr(float(radius) + 0.0)).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_DOWN))


def format_percent(share: float) -> str:
    """Return a share in [0,1] as a percentage with one decimal, rounded to nearest."""
    return f"{100 * share:.1f}"


def format_at_most(share: float) -> str:
    """Return a share in [0,1] as a percentage with one decimal, rounded up: what is said to be at most that, is."""
    return _percent(share, ROUND_UP)


def format_at_least(share: float) -> str:
    """Return a share in [0,1] as a percentage with one decimal, rounded down: a lower bound stays one."""
    return _percent(share, ROUND_DOWN)


def _percent(share: float, rounding: str) -> str:
    return str((100 * Decimal(repr(float(share)))).quantize(Decimal("0.1"), rounding=rounding))


def format_significant(value: float) -> str:
    """Return a number with three significant digits, thousands separated, without an exponent."""
    return f"{Decimal(f'{value:#.3g}'):,f}"


def to_markdown(table: Table) -> str:
    """Return the table as GitHub-flavoured Markdown: one pipe table per block, then a list of footnotes."""
    parts = [f"**{escape_markdown(table.caption)}**"]
    for block in table.blocks:
        if block.title:
            parts.append(escape_markdown(block.title))
        parts.append(_pipe_table(table.headers, block.rows))
    if table.notes:
        parts.append("\n".join(f"- {escape_markdown(note)}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def _pipe_table(headers: Sequence[str], rows: Sequence[Row]) -> str:
    rule = ["---", *["---:"] * (len(headers) - 1)]
    lines = [[escape_markdown(header) for header in headers], rule]
    lines += [[_markdown_cell(as_cell(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return f"{f'**{text}**' if cell.is_best else text} {cell.detail}".rstrip()
