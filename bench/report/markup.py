"""How numbers are written, and one table structure with its renderings as Markdown and LaTeX.

The command line renders the same structure with rich.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING

from bench.config.numbers import number
from bench.errors import plain

if TYPE_CHECKING:
    import pandas as pd

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    "σ": r"$\sigma$",
    "α": r"$\alpha$",
} | {character: "\\" + character for character in "{}$&#_%"}
_FORMULA = ("=", "+", "-", "@")
"""What begins a formula in a spreadsheet."""

_MARKDOWN = {character: "\\" + character for character in r"\`*_{}[]<>#|~&$"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: unescaped text, for numbers perhaps with an interval around them.

    Where there is text alone, it may stand in a row as it is.

    Attributes:
        text: what stands in the cell.
        interval: (low, high) as written; None where there is none.
        is_best: printed in bold.
    """

    text: str
    interval: tuple[str, str] | None = None
    is_best: bool = False

    @property
    def detail(self) -> str:
        """The interval as "[low, high]", empty where there is none."""
        return "" if self.interval is None else f"[{self.interval[0]}, {self.interval[1]}]"


Row = tuple[Cell | str, ...]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows under one title (empty for none); the first cell of a row names it."""

    title: str = ""
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A caption (empty for none), column headers, blocks of rows as wide as the headers, and footnotes.

    All text is unescaped.

    Attributes:
        holds_words: columns hold words, which a terminal may fold, and not numbers.
    """

    caption: str = ""
    headers: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()
    holds_words: bool = False


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
    return _escape(text, _MARKDOWN)


def escape_latex(text: str) -> str:
    """Return `text` on one line, with every character that LaTeX would interpret escaped."""
    return _escape(text, _LATEX)


def csv_text(value: object) -> object:
    """Return a cell of a CSV file: a text that a spreadsheet would take for a formula stands behind an apostrophe.

    Control characters are spelled out; numbers, also those that are written as text, stay as they are.
    """
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def format_radius(radius: float, decimals: int) -> str:
    """Return a radius with `decimals` decimals, rounded down: it never exceeds the certified one."""
    return str(Decimal(repr(float(radius))).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_DOWN))


def format_percent(share: float) -> str:
    """Return a share in [0,1] as a percentage with one decimal, rounded to nearest."""
    return f"{100 * share:.1f}"


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


def to_latex(table: Table) -> str:
    """Return the table as a LaTeX `table` environment for booktabs, intervals as sub- and superscript."""
    columns = len(table.headers)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[t]",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}",
        r"\toprule",
        " & ".join(map(escape_latex, table.headers)) + r" \\",
    ]
    for block in table.blocks:
        lines.append(r"\midrule")
        if block.title:
            lines.append(rf"\multicolumn{{{columns}}}{{l}}{{\emph{{{escape_latex(block.title)}}}}} \\")
        lines += [" & ".join(_latex_cell(as_cell(cell)) for cell in row) + r" \\" for row in block.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        notes = " ".join(map(escape_latex, table.notes))
        lines.append(rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _escape(text: str, replacements: dict[str, str]) -> str:
    return "".join(replacements.get(character, character) for character in plain(" ".join(text.split())))


def _pipe_table(headers: Sequence[str], rows: Sequence[Row]) -> str:
    rule = ["---", *["---:"] * (len(headers) - 1)]
    lines = [[escape_markdown(header) for header in headers], rule]
    lines += [[_markdown_cell(as_cell(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return f"{f'**{text}**' if cell.is_best else text} {cell.detail}".rstrip()


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    if cell.interval is None:
        return rf"\textbf{{{text}}}" if cell.is_best else text
    number = rf"\mathbf{{{text}}}" if cell.is_best else text
    low, high = map(escape_latex, cell.interval)
    return f"${number}_{{{low}}}^{{{high}}}$"
