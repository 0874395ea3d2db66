"""Files that grow line by line: a header, then items, each on the disk when the call that adds it returns.

A run that is stopped at any time continues after the last whole line of its file. One writer at a time holds the lock
beside the file, since the file itself is replaced whenever its header is rewritten.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, Self

from bench.config.texts import check_ordinary
from bench.errors import BusyError, ProtocolError, RecordsError
from bench.records.codec import Codec, HeaderT, ItemT, is_json
from bench.records.disk import append_whole, check_no_link, open_to_write, replace_file

BLOCK = 2**21
"""Bytes that are read at once, and decoded as far as they are whole lines."""

LONGEST = 2**26
"""Bytes of a line, at most: a header of a million images has a tenth of them."""

FILE_NAME = "records.jsonl"
"""Of the one file that most folders have; its lock is `.lock`, that of another file has the file's name in it."""


@dataclass(frozen=True, kw_only=True)
class Contents(Generic[HeaderT, ItemT]):
    """What a file holds: its header, the items of lines 2, 3, ..., and how many bytes are whole lines."""

    header: HeaderT
    items: Sequence[ItemT]
    size: int


class Lines(Generic[HeaderT, ItemT]):
    """A file open for appending, locked against other writers; use it in a `with` statement.

    Attributes:
        header: the file's; the given one for a new file, and where nothing rests on the old one.
        items: what the file held when it was opened.
        repaired: one sentence on the cut last line that was removed, or None.
    """

    header: HeaderT
    items: Sequence[ItemT]
    repaired: str | None = None

    def __init__(self, path: Path, codec: Codec[HeaderT, ItemT], header: HeaderT) -> None:
        """Begin the file with `header`, or continue it; its folder is made if missing.

        Raises:
            ProtocolError: it was begun under another header; the message names the first field.
            RecordsError: another process writes to the file, or it cannot be read or written.
        """
        self.path, self._codec = path, codec
        with _writing(path, codec), contextlib.ExitStack() as on_failure:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path, codec.instead)
            on_failure.callback(self.close)
            self._open(header)
            self._file = _identity(os.stat(path))
            self._resume(header)
            on_failure.pop_all()

    def _open(self, header: HeaderT) -> None:
        check_no_link(self.path)
        held = read_lines(self.path, self._codec) if self.path.exists() else None
        if held and (excess := self.path.stat().st_size - held.size):
            os.truncate(self.path, held.size)
            self.repaired = (
                f"removed a cut last line of {excess} bytes from {self.path}; its work is done again"
            )
        if held is not None:
            _end_last_line(self.path)
        if held and held.items:
            self.header, self.items = held.header, held.items
        else:  # nothing rests on a header alone
            write_lines(self.path, self._codec, header, ())
            self.header, self.items = header, []

    def _resume(self, header: HeaderT) -> None:
        """Continue the file under the header of this command, which must be the file's own."""
        self.require(vars(self.header), vars(header))

    def require(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Return nothing where what the file's items rest on is now as it was before; see `require_alike`."""
        require_alike(self.path, self._codec.remedy, before, now)

    def replace_header(self, header: HeaderT) -> None:
        """Rewrite the first line at once, the rest being kept.

        Raises:
            RecordsError: the file cannot be written; it is as it was.
        """
        with _writing(self.path, self._codec):
            lines = self.path.read_bytes().split(b"\n", 1)[1]
            replace_file(self.path, self._codec.encode(header) + lines)
            self._file = _identity(os.stat(self.path))
        self.header = header

    def append(self, *items: ItemT) -> None:
        """Write one line per item and wait until they are on the disk.

        Raises:
            RecordsError: a number is NaN or infinite, or the lines could not be written; those before them are kept.
        """
        lines = b"".join(map(self._codec.encode, items))
        try:
            descriptor = open_to_write(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                if _identity(os.fstat(descriptor)) != self._file:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                append_whole(descriptor, lines)
            finally:
                os.close(descriptor)
        except FileNotFoundError as error:
            raise RecordsError(
                f"{self.path} was removed, moved or replaced while this command wrote to it: nothing more is computed; "
                "bring it back to continue it, or begin anew"
            ) from error
        except OSError as error:
            raise RecordsError(
                f"{self.path} cannot be continued ({error}): its whole lines are kept, "
                "and repeating the command resumes after them"
            ) from error

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_alike(path: Path, remedy: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Return nothing where what a file's items rest on is now as it was before.

    Raises:
        ProtocolError: it is not; the message has the first name under which the two hold unlike values.
    """
    for name, both in differing(before, now):
        raise ProtocolError(
            f"{path} was made under another {name} (then and now: {both}): {remedy}, or repeat the command that made it"
        )


def read_lines(path: Path, codec: Codec[HeaderT, ItemT]) -> Contents[HeaderT, ItemT]:
    """Return what a file holds; a last line that was cut, or is no JSON, is left out and the file stays as it is.

    Raises:
        RecordsError: there is no such file, a newer version wrote it, or a line is not valid.
    """
    try:
        check_ordinary(path)
        with open(path, "rb") as file, collector_paused():
            lines = _WholeLines(file)
            blocks = iter(lines)
            first = next(blocks, [])
            if path.suffix != ".jsonl" and not (first and b'"kind"' in first[0]):
                raise RecordsError(f"{path} is no file of records: give the folder of a run")
            if not first:
                raise RecordsError(f"{path} has no header line: delete it, or give another folder")
            header = codec.decode_header(first[0], path)
            items = codec.decode_all(itertools.chain([first[1:]], blocks), path)
    except OSError as error:
        raise RecordsError(
            f"no records at {path} ({error.strerror or error}): give the folder that holds them"
        ) from error
    return Contents(header=header, items=items, size=lines.size)


def write_lines(path: Path, codec: Codec[HeaderT, ItemT], header: HeaderT, items: Iterable[ItemT]) -> None:
    """Write a whole file at once.

    Raises:
        RecordsError: it cannot be written.
    """
    with _writing(path, codec):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, b"".join([codec.encode(header), *map(codec.encode, items)]))


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each name under which two mappings hold unlike values, and a text of both; see `difference`."""
    for name, value in old.items():
        if value != new[name]:
            yield name, difference(value, new[name])


def difference(old: Any, new: Any) -> str:
    """Return both of two unlike values, or of long sequences the first place in which they differ."""
    if isinstance(old, tuple) and len(old) == len(new) > 8:
        place = next(i for i in range(len(old)) if old[i] != new[i])
        return f"at position {place}: {old[place]!r} and {new[place]!r}"
    if isinstance(old, tuple) and max(len(old), len(new)) > 8:
        return f"{len(old)} values and {len(new)} values"
    return f"{old!r} and {new!r}"


@contextlib.contextmanager
def _writing(path: Path, codec: Codec[HeaderT, ItemT]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecordsError(f"{path} cannot be written ({error}): mend that, or {codec.remedy}") from error


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the cycle collector from walking through all that is held, again and again, while much is made at once."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _end_last_line(path: Path) -> None:
    """Add the end of line that a whole last line lacks."""
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
    descriptor = open_to_write(path, os.O_WRONLY | os.O_APPEND)
    try:
        append_whole(descriptor, b"\n")
    finally:
        os.close(descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    """Return what tells a file from all others, whatever its name."""
    return status.st_dev, status.st_ino


class _WholeLines:
    """The whole lines of a file, block by block; `size`: their bytes, once all were yielded."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size = file, 0

    def __iter__(self) -> Iterator[list[bytes]]:
        block, rest = list[bytes](), b""
        while more := self._file.read(BLOCK):
            end = more.rfind(b"\n") + 1
            if not end:
                rest += more
                _check_length(len(rest))
                continue
            if block:
                yield block
            block, rest = self._split(rest + more[:end]), more[end:]
        while block and not rest and not block[-1].strip():  # blank lines at the end
            self.size -= len(block.pop())
        if block and not rest and not is_json(block[-1]):
            self.size -= len(block.pop())
        # No part of an object is one, so that this is a whole line without its end.
        if rest.startswith(b"{") and is_json(rest):
            block.append(rest)
            self.size += len(rest)
        if block:
            yield block

    def _split(self, data: bytes) -> list[bytes]:
        lines = io.BytesIO(data).readlines()
        _check_length(len(lines[0]))  # the others came at one reading
        self.size += len(data)
        return lines


def _check_length(bytes_of_line: int) -> None:
    if bytes_of_line >= LONGEST:
        raise OSError(f"a line is longer than {LONGEST:,} bytes")


@contextlib.contextmanager
def alone(path: Path, instead: str) -> Iterator[None]:
    """Hold the lock of a file, of any kind, in the block; where the system or the folder has no locks, nothing is held.

    Raises:
        BusyError: another process holds it; the message tells to wait, or `instead`.
    """
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.callback(os.close, _lock(path, instead))
        except BusyError:
            raise
        except (RecordsError, OSError):
            pass
        yield


def _lock(path: Path, instead: str) -> int:
    """Return a descriptor that holds a file's lock until it is closed, also by a crash."""
    try:
        import fcntl
    except ImportError as error:  # Windows, which can read records all the same
        raise RecordsError(
            f"{path} cannot be locked on this system: write records on Linux or macOS"
        ) from error
    name = ".lock" if path.name == FILE_NAME else f".lock-{path.stem}"
    with contextlib.ExitStack() as on_failure:
        descriptor = open_to_write(path.parent / name, os.O_RDWR | os.O_CREAT)
        on_failure.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            held_by = os.read(descriptor, 20).strip()
            holder = held_by.decode() if held_by.isdigit() else "unknown"
            raise BusyError(
                f"another process (pid {holder}) writes to {path}: wait for it, or {instead}"
            ) from error
        except OSError as error:
            raise RecordsError(
                f"{path.parent / name} cannot be locked ({error.strerror}): this file system has no locks, "
                "so write to another one"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        on_failure.pop_all()
        return descriptor
