"""Text files as a whole: only ordinary ones, none without an end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MOST = 2**28
"""Bytes of a text file, at most."""


def read_text(path: Path, most: int = MOST) -> str:
    """Return the content of a file in UTF-8, with or without a byte order mark.

    Raises:
        OSError: it is no ordinary file, such as a device without an end; is larger than `most` bytes; is no text in
            UTF-8; or cannot be read.
    """
    check_ordinary(path)
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(f"it is larger than {most:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OSError(f"it is no text in UTF-8: {error}") from error


def check_ordinary(path: Path) -> None:
    """Return nothing where an ordinary file stands at a path; a link to one counts.

    Raises:
        OSError: nothing, a folder, a device or a pipe stands there.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a byte of 0 in its name
        raise OSError("its name is none that a file can have") from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError("it is a folder")
    if not stat.S_ISREG(mode):
        raise OSError("it is no ordinary file")
