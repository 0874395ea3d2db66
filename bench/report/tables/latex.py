"""One table structure -> LaTeX for a paper, at most as wide as the text and as tall as a page."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.errors import plain
from bench.report.markup import BRACKETS, Block, Cell, Row, Table, as_cell

_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    '"': "''",
    "σ": r"$\sigma$",
    "α": r"$\alpha$",
    "Φ": r"$\Phi$",
    "Δ": r"$\Delta$",
    "≥": r"$\ge$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "∈": r"$\in$",
    "ℓ": r"$\ell$",
    "–": r"\textendash{}",
    "…": r"\dots{}",
} | {character: "\\" + character for character in "{}$&#_%"}
_PHRASES = (
    (r"\bL2\b", r"$\\ell_2$"),
    (r"\{\[\}0,1\{\]\}", "$[0,1]$"),
    (r"\bp\\_A\b", "$p_A$"),
    (r"\bR\\_max\b", r"$R_{\\max}$"),
    (r"-(?=-)", "-{}"),
)
_NUMBER = re.compile(r"[+-]?[\d.,]*\d")

NARROW, WIDE = 194.0, 332.0
"""Points that a table may take: a column of a two-column article, and the text of a one-column article."""

TALL = 470.0
"""Points that rows, rules and notes of one table may take of a page, which also holds a caption."""

_ROW, _TITLE, _NOTE, _NOTE_LETTERS = 13.2, 21.0, 9.6, 72
"""Points of a row, of a block's rule and title, and of a line of notes, which holds that many letters."""

_GAP, _SMALL, _BOLD = 6.0, 0.72, 1.12
"""Points between columns, and how wide sub- and superscripts and bold text are beside plain text."""


def to_latex(table: Table, name: str = "") -> str:
    """Return the table as LaTeX for booktabs: intervals as sub- and superscript, asides raised before the number.

    It fits the column where it is narrow (`table`), else the text (`table*`); columns beyond that go below the others,
    and rows beyond a page into a table of their own.

    Args:
        table: what is shown.
        name: of its file, for the label "tab:NAME"; "": no label.
    """
    lines = [r"% needs \usepackage{booktabs}", *(f"% {plain(note)}" for note in table.details)]
    notes = [note for note in table.notes if note not in table.details]
    tall = sum(-(-len(note) // _NOTE_LETTERS) for note in notes) * _NOTE
    is_apart = tall > TALL / 2
    pages = list(_pages(table, TALL if is_apart else TALL - tall))
    for number, page in enumerate(pages):
        is_last = number == len(pages) - 1
        lines += _float(page, name, number, notes if is_last and not is_apart else ())
    if is_apart:
        lines.append(rf"\noindent{{\footnotesize {_written(notes)}\par}}")
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Return `text` on one line, with every character that LaTeX would interpret escaped, and formulas as such.

    A letter that pdflatex has no glyph for gives way to its plain form, or to a question mark.
    """
    text = "".join(map(_character, plain(" ".join(text.split()))))
    for pattern, written in _PHRASES:
        text = re.sub(pattern, written, text)
    return text


def _character(character: str) -> str:
    if character in _CHARACTERS:
        return _CHARACTERS[character]
    if character.isascii() or "À" <= character <= "ÿ":
        return character
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(_CHARACTERS.get(letter, letter) for letter in letters) or "?"


def _float(table: Table, name: str, number: int, notes: Sequence[str]) -> Iterator[str]:
    """Yield the lines of one float."""
    parts = _parts(table)
    star = "" if max(map(_width, parts)) <= NARROW else "*"
    label = f"tab:{re.sub('[^A-Za-z0-9]+', '-', name)}" if name else ""
    yield rf"\begin{{table{star}}}[t]"
    yield r"\centering\small\setlength{\tabcolsep}{3pt}\renewcommand{\arraystretch}{1.15}"
    continued = ", continued" if number else ""
    yield rf"\caption{{{escape_latex(table.caption)}{continued}}}"
    if label:
        yield rf"\label{{{label}{f'-part-{number + 1}' if number else ''}}}"
    for place, part in enumerate(parts):
        if place:
            yield r"\par\medskip"
        yield from _tabular(part)
    if notes:
        yield rf"\par\smallskip\parbox{{\linewidth}}{{\raggedright\footnotesize {_written(notes)}}}"
    yield rf"\end{{table{star}}}"


def _tabular(table: Table) -> Iterator[str]:
    columns = len(table.headers)
    yield rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}"
    yield r"\toprule"
    yield " & ".join(map(_header, table.headers)) + r" \\"
    for block in table.blocks:
        yield r"\midrule"
        if block.title:
            yield rf"\multicolumn{{{columns}}}{{l}}{{\emph{{{escape_latex(block.title)}}}}} \\"
        yield from (" & ".join(_cell(as_cell(cell)) for cell in row) + r" \\" for row in block.rows)
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _header(text: str) -> str:
    """Return a column's header, folded where it is long."""
    lines = _folded(text)
    if len(lines) == 1:
        return escape_latex(text)
    stacked = r" \\ ".join(map(escape_latex, lines))
    return rf"\shortstack[r]{{{stacked}}}"


def _folded(text: str) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + len(word) < 10:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _written(notes: Sequence[str]) -> str:
    """Return the notes as one paragraph; those on intervals name what stands for brackets."""
    return " ".join(escape_latex(note.replace(BRACKETS, "Sub- and superscripts: ")) for note in notes)


def _cell(cell: Cell) -> str:
    raised = f"^{{({_in_formula(cell.aside)})}}" if cell.aside else ""
    is_number = _NUMBER.fullmatch(cell.text) is not None
    if not is_number or not (raised or cell.interval or cell.text[0] in "+-"):
        text = escape_latex(cell.text)
        return rf"\textbf{{{text}}}" if cell.is_best else text
    number = _in_formula(cell.text)
    number = rf"\mathbf{{{number}}}" if cell.is_best else number
    ends = ""
    if cell.interval is not None:
        low, high = map(_in_formula, cell.interval)
        ends = f"_{{{low}}}^{{{high}}}"
    return f"${raised}{number}{ends}$"


def _in_formula(text: str) -> str:
    """Return text for a formula, where a comma alone is punctuation and parts thousands by a space."""
    return escape_latex(text).replace(",", "{,}")


def _width(table: Table) -> float:
    """Return about how many points the table takes, rather more than less."""
    cells = [[as_cell(cell) for cell in row] for block in table.blocks for row in block.rows]
    columns = [
        max([_header_width(header), *(_cell_width(row[place]) for row in cells)])
        for place, header in enumerate(table.headers)
    ]
    return sum(columns) + _GAP * len(columns)


def _header_width(text: str) -> float:
    return max(map(_points, _folded(text)))


def _cell_width(cell: Cell) -> float:
    small = max(map(_points, cell.interval)) if cell.interval else 0.0
    small += _points(f"({cell.aside})") if cell.aside else 0.0
    return _points(cell.text) * (_BOLD if cell.is_best else 1) + small * _SMALL


def _points(text: str) -> float:
    """Return about how wide a text is at the size of the tables."""
    return sum(
        2.6 if one in ".,:;' il|" else 7.6 if one.isupper() or one in "mw+<>≥×%" else 4.65 for one in text
    )


def _parts(table: Table) -> list[Table]:
    """Return the table with its columns divided so that each part fits the text, the first column in each."""
    parts: list[list[int]] = [[0]]
    for place in range(1, len(table.headers)):
        if len(parts[-1]) > 1 and _width(table.columns([*parts[-1], place])) > WIDE:
            parts.append([0])
        parts[-1].append(place)
    return [table.columns(places) for places in parts]


def _pages(table: Table, room: float) -> Iterator[Table]:
    """Yield the table in parts of at most that many points, whatever its columns take; a block goes on in the next."""
    parts = len(_parts(table))
    row, title = _ROW * parts, _TITLE * parts
    blocks: list[Block] = []
    left = room - 2 * title
    for block in table.blocks:
        rows: list[Row] = list(block.rows)
        while rows:
            if blocks and left < title + 2 * row:
                yield replace(table, blocks=tuple(blocks))
                blocks, left = [], room - 2 * title
            count = max(1, int((left - title) // row))
            blocks.append(replace(block, rows=tuple(rows[:count])))
            left -= title + len(rows[:count]) * row
            rows = rows[count:]
    if blocks or not table.blocks:
        yield replace(table, blocks=tuple(blocks))
