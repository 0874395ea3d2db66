"""Tables of results inside a Markdown page: between two marks stands what a file of results/ says."""

from __future__ import annotations

import re
from pathlib import Path

from bench.errors import UsageError

_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def fill_tables(text: str, folder: Path) -> str:
    """Return a page with each table as its file has it now.

    Args:
        text: Markdown; a table stands between `<!-- table: PATH -->` and `<!-- end of table -->`, each on a line.
        folder: what the paths are relative to, and may not leave.

    Raises:
        UsageError: a file is not there, or lies outside the folder.
    """
    return _TABLE.sub(lambda mark: f"{mark[1]}{_content(mark[2], folder)}\n{mark[3]}", text)


def _content(name: str, folder: Path) -> str:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise UsageError(
            f"a table mark names {name}, which is no file below {folder}; make it, or mend the mark"
        )
    return path.read_text(encoding="utf-8").strip()
