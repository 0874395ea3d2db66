"""Files that grow line by line: a lock on the open file, and lines that are on the disk when a call returns."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from bench.errors import RecordsError


def lock(descriptor: int, path: Path, remedy: str) -> None:
    """Return holding the only lock on an open file; the system releases it when the file is closed, also by a crash.

    Args:
        descriptor, path: of the file.
        remedy: what else than to wait may be done, for the message.

    Raises:
        RecordsError: another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RecordsError(f"another process writes to {path}: wait for it, or {remedy}") from error


def append(descriptor: int, path: Path, lines: bytes) -> None:
    """Write whole lines at the end of an open file, and wait until they are on the disk.

    Raises:
        RecordsError: they could not be written; the lines before them are kept.
    """
    start = os.fstat(descriptor).st_size
    try:
        _write(descriptor, lines)
    except OSError as error:
        with contextlib.suppress(OSError):  # a cut line that stays is removed when the file is opened again
            os.ftruncate(descriptor, start)
        raise RecordsError(
            f"{path} cannot be continued ({error}): its whole lines are kept, "
            "and repeating the command resumes after them"
        ) from error


def _write(descriptor: int, lines: bytes) -> None:
    written = os.write(descriptor, lines)
    if written != len(lines):
        raise OSError(f"only {written} of {len(lines)} bytes were written")
    os.fsync(descriptor)
