"""A lock on an open file, which the system releases when the file is closed, also by a crash."""

from __future__ import annotations

import fcntl
from pathlib import Path

from bench.errors import RecordsError


def lock(descriptor: int, path: Path, remedy: str) -> None:
    """Return holding the only lock on an open file.

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
