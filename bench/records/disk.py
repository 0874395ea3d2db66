"""Files written at once or not at all; links are not followed, and what is no ordinary file is refused."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bench.errors import RecordsError


def replace_file(path: Path, content: bytes | str) -> None:
    """Write a whole file, text as UTF-8; see `replacing`."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of another when the block ends without an error.

    A reader sees the old content or the new one, whenever the computer stops.

    Args:
        path: in a folder that exists; a device or a pipe is written to as it is.

    Raises:
        RecordsError: a link stands in its place.
        OSError: it cannot be written; it is as it was.
    """
    check_no_link(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as file:
            yield file
        return
    temporary = path.with_name(f".bench-{_name_of_writer(path)}.tmp")
    temporary.unlink(missing_ok=True)  # of a process that was killed; or a link, whose target is left alone
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o666)
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _settle(path.parent)


def _name_of_writer(path: Path) -> str:
    """Return a name of this process for what it writes to a file; others that share the folder may have its number."""
    target = hashlib.blake2b(f"{platform.node()}/{path.name}".encode(), digest_size=6).hexdigest()
    return f"{target}-{os.getpid()}"


def check_no_link(path: Path) -> None:
    """Return nothing where no link stands at a path.

    Raises:
        RecordsError: one does: what is written there would change another file.
    """
    if path.is_symlink():
        raise RecordsError(
            f"{path} is a link, and nothing is written through a link: remove it, or give another --out"
        )


def open_to_write(path: Path, flags: int) -> int:
    """Return a descriptor of an ordinary file, opened with these flags of `os.open`.

    Raises:
        RecordsError: a link stands in its place, or something else that is no file.
        OSError: it cannot be opened.
    """
    check_no_link(path)
    descriptor = os.open(path, flags | _NO_LINKS | _NO_WAIT, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RecordsError(f"{path} is no ordinary file: remove it, or give another --out")
    return descriptor


def append_whole(descriptor: int, lines: bytes) -> None:
    """Add lines to the end of a file that is open for appending, and wait until they are on the disk.

    Raises:
        OSError: they cannot be written whole; the file is as it was, as far as that can be written.
    """
    start = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, lines)
        if written != len(lines):
            raise OSError(f"only {written} of {len(lines)} bytes were written")
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):  # a cut line that stays is removed when the file is read again
            os.ftruncate(descriptor, start)
        raise


_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def _settle(folder: Path) -> None:
    """Wait until a folder's entries are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
