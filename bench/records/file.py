"""Records of one run: `<folder>/records.jsonl`, a header line and then one line per certificate or cost.

Each line is written at once, so that a run which is stopped at any time continues after its last whole line.
Numbers are stored at full precision: reading gives back the same float64.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gc
import io
import itertools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from bench.errors import ProtocolError, RecordsError, UsageError
from bench.records.codec import decode, decode_header, encode, loads
from bench.records.lines import append
from bench.records.quick_reading import QuickReader
from bench.types import CostRecord, Record, Run, RunHeader

FILE_NAME = "records.jsonl"

BLOCK = 2**18
"""Bytes that are read at once, up to the end of a line."""


class RecordsFile:
    """A records file open for appending, locked against other writers; use it in a `with` statement.

    Attributes:
        run: what the file held when it was opened; its header is the one to follow, batch sizes included.
        repaired: one sentence on the cut last line that was removed, or None.
    """

    run: Run
    repaired: str | None

    def __init__(self, path: Path, lock: int, header: RunHeader) -> None:
        """Open `path` under the lock's file descriptor; call `create_or_resume` instead."""
        self._path = path
        self._lock = lock
        if not path.exists():
            _write_atomically(path, encode(header))
        self.run, self.repaired = _read_repairing(path)
        if not self.run.records and not self.run.costs:  # nothing rests on its header
            _write_atomically(path, encode(header))
            self.run = dataclasses.replace(self.run, header=header)
        _check_resumable(path, self.run.header, header)
        self._extend(header)
        self._seen = {_identity(record) for record in self.run.records}
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)

    @classmethod
    def create_or_resume(cls, folder: Path, header: RunHeader, name: str = FILE_NAME) -> RecordsFile:
        """Return the folder's records file, begun with `header` or continued where it stopped.

        Args:
            folder: folder of the run; made if missing.
            header: header of this command. A file with certificates or costs keeps its own, which must agree in every
                field that they rest on; methods, sigmas and images that are new to it are added, and the
                radii of tables are replaced.
            name: of the file; every file has a lock of its own.

        Raises:
            ProtocolError: the folder holds a run under another protocol; the message names the first field.
            RecordsError: another process writes to the folder, or the file cannot be read or written.
        """
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as on_failure:
                lock = _lock(path)
                on_failure.callback(os.close, lock)
                opened = cls(path, lock, header)
                on_failure.pop_all()
                return opened
        except OSError as error:
            raise RecordsError(f"{path} cannot be written ({error}): give another --out") from error

    def _extend(self, header: RunHeader) -> None:
        """Rewrite the header line, the rest being kept, where this command adds to what the file holds."""
        extended = _extended(self.run.header, header)
        if extended != self.run.header:
            lines = self._path.read_bytes().split(b"\n", 1)[1]
            _write_atomically(self._path, encode(extended) + lines)
            self.run = dataclasses.replace(self.run, header=extended)

    def append(self, *items: Record | CostRecord) -> None:
        """Write one line per item and wait until they are on the disk.

        Raises:
            RecordsError: the image was already certified by this method at this sigma, a number is NaN or
                infinite, or the lines could not be written; the lines before them are kept.
        """
        lines = b"".join(map(encode, items))
        new = [item for item in items if isinstance(item, Record)]
        for record in new:
            if _identity(record) in self._seen:
                raise RecordsError(f"{self._path} already holds {_describe(record)}: certify each image once")
        append(self._descriptor, self._path, lines)
        self._seen.update(map(_identity, new))

    def close(self) -> None:
        """Close the file and release the lock."""
        os.close(self._descriptor)
        os.close(self._lock)

    def __enter__(self) -> RecordsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_run(path: Path) -> Run:
    """Return a run for reporting; a cut last line is left out and the file stays as it is.

    Args:
        path: folder of the run, or its records file.

    Returns:
        The run; of a cost measured twice, the later measurement.

    Raises:
        RecordsError: there is no such file, a newer version wrote it, or a line is not valid.
    """
    file = path / FILE_NAME if path.is_dir() else path
    return _read(file)[0]


def write_run(folder: Path, run: Run) -> None:
    """Write a whole run to a new folder, at once.

    Raises:
        RecordsError: the folder holds records already, or cannot be written.
    """
    path = folder / FILE_NAME
    if path.exists():
        raise RecordsError(f"{path} exists: give another --out, or delete it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [encode(run.header), *map(encode, run.records), *map(encode, run.costs)]
        _write_atomically(path, b"".join(lines))
    except OSError as error:
        raise RecordsError(f"{path} cannot be written ({error}): give another --out") from error


def check_comparable(runs: Sequence[Run], allow: Collection[str] = ()) -> None:
    """Return nothing for runs whose numbers may stand in one table.

    Args:
        runs: any number of runs.
        allow: header fields in which they may differ.

    Raises:
        ProtocolError: two runs differ in another checked field; the message names it and both values.
        UsageError: `allow` names no checked field.
    """
    headers = [run.header.values("identity", "protocol") for run in runs]
    if unknown := sorted(set(allow).difference(*headers)):
        raise UsageError(f"{unknown[0]!r} is no checked field; those are {', '.join(headers[0])}")
    for run, header in zip(runs[1:], headers[1:], strict=True):
        for name, both in differing(headers[0], header):
            if name not in allow:
                raise ProtocolError(
                    f"{runs[0].folder} and {run.folder} differ in {name} ({both}): "
                    f"compare runs of one protocol, or allow {name} to differ"
                )


def _extended(old: RunHeader, new: RunHeader) -> RunHeader:
    """Return the old header with the methods, sigmas and images that the new one adds, and its radii."""
    methods = (*new.methods, *(name for name in old.methods if name not in new.methods))
    sigmas = tuple(sorted({*old.sigmas, *new.sigmas}))
    same = (set(methods), sigmas, new.indices) == (set(old.methods), old.sigmas, old.indices)
    if same and new.radii == old.radii:
        return old
    options = {**old.options, **new.options}
    return dataclasses.replace(
        old,
        command=new.command,
        methods=methods,
        sigmas=sigmas,
        radii=new.radii,
        indices=new.indices,
        checkpoints=new.checkpoints | old.checkpoints,
        batch_sizes=new.batch_sizes | old.batch_sizes,
        config=new.config | {"methods": list(methods), "sigmas": list(sigmas), "options": options},
        logs=old.logs | new.logs,
    )


def _check_resumable(path: Path, old: RunHeader, new: RunHeader) -> None:
    before, now = _rested_on(old, new), _rested_on(new, old)
    if set(old.indices) <= set(new.indices):  # more images may be added
        now["indices"] = old.indices
    for name, both in differing(before, now):
        raise ProtocolError(
            f"{path} was made under another {name} (then and now: {both}): "
            "give another --out, or repeat the command that made it"
        )


def _rested_on(header: RunHeader, other: RunHeader) -> dict[str, Any]:
    """Return what the certificates that two headers share rest on, as one of the headers has it."""
    found = header.values("identity", "protocol", "machine")
    if header.estimation == "sequential":
        found["radii"] = header.radii
    for method in sorted({*header.methods} & {*other.methods}):
        found[f"configuration of {method}"] = header.options.get(method, {})
    for key in sorted(header.checkpoints.keys() & other.checkpoints.keys()):
        found[f"the checkpoint of {key}"] = header.checkpoints[key]
    return found


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


def _identity(record: Record) -> tuple[str, float, int]:
    return record.method, record.sigma, record.index


def _describe(record: Record) -> str:
    return f"image {record.index} of {record.method} at sigma {record.sigma:g}"


def _lock(path: Path) -> int:
    """Return a descriptor that holds a records file's lock until it is closed, also by a crash."""
    folder, name = path.parent, ".lock" if path.name == FILE_NAME else f".lock-{path.stem}"
    with contextlib.ExitStack() as on_failure:
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        on_failure.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 20).decode().strip()
            raise RecordsError(
                f"another process (pid {holder}) writes to {folder}: wait for it, or give another --out"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        on_failure.pop_all()
        return descriptor


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_repairing(path: Path) -> tuple[Run, str | None]:
    run, whole = _read(path)
    excess = path.stat().st_size - whole
    if excess == 0:
        return run, None
    os.truncate(path, whole)
    return run, f"removed a cut last line of {excess} bytes from {path}; its work is done again"


def _read(path: Path) -> tuple[Run, int]:
    """Return the run and how many bytes of the file are whole lines."""
    try:
        with open(path, "rb") as file, _collector_paused():
            return _parse(path, file)
    except OSError as error:
        raise RecordsError(
            f"no records at {path} ({error.strerror}): give the folder that a run was written to"
        ) from error


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the cycle collector from walking through a million records, which hold no cycles, again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _parse(path: Path, file: BinaryIO) -> tuple[Run, int]:
    blocks = _whole_lines(file)
    first = next(blocks, b"")
    if not first:
        raise RecordsError(f"{path} has no header line: delete it, or give another folder")
    header, whole = decode_header(first, f"{path}, line 1"), len(first)
    records: list[Record] = []
    # A stop between the costs of two methods has them all measured again, in the same rounds.
    costs: dict[tuple[str, float], CostRecord] = {}
    curves = itertools.product(header.methods, header.sigmas)
    left = {curve: set(header.indices) for curve in curves}
    quick, number = QuickReader(), 1
    for block in blocks:
        whole += len(block)
        for item in quick.records(block) or _items(quick, block, f"{path}, line", number):
            number += 1
            if isinstance(item, CostRecord):
                costs[item.method, item.sigma] = item
                continue
            try:
                left[item.method, item.sigma].remove(item.index)
            except KeyError as error:
                raise RecordsError(_refusal(path, header, item, number)) from error
            if item.n != header.n or item.n0 != header.n0:
                raise RecordsError(_refusal(path, header, item, number))
            records.append(item)
    return Run(folder=path.parent, header=header, records=tuple(records), costs=tuple(costs.values())), whole


def _items(quick: QuickReader, block: bytes, where: str, before: int) -> Iterator[Record | CostRecord]:
    """Yield what each line of a block says; `before` lines precede it."""
    for number, line in enumerate(io.BytesIO(block), before + 1):
        found: Sequence[Record | CostRecord] | None = quick.records(line)
        yield from found or (decode(line, f"{where} {number}"),)


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the first line, then blocks of lines up to the file's end, but for a last line that was cut."""
    block = file.readline()
    while block:
        following = _block(file)
        start = 0 if following else block.rfind(b"\n", 0, -1) + 1
        yield block if following or _is_whole(block[start:]) else block[:start]
        block = following


def _block(file: BinaryIO) -> bytes:
    return file.read(BLOCK) + file.readline()


def _is_whole(line: bytes) -> bool:
    try:
        loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n")


def _refusal(path: Path, header: RunHeader, record: Record, number: int) -> str:
    """Return why a record may not stand in this line."""
    is_named = record.method in header.methods and record.sigma in header.sigmas
    if not is_named or record.index not in header.indices:
        return f"{path}, line {number}: {_describe(record)} is not part of this run: remove the line"
    if (record.n0, record.n) != (header.n0, header.n):
        return (
            f"{path}, line {number}: {_describe(record)} was made with n0 = {record.n0} and n = {record.n}, "
            f"the header says {header.n0} and {header.n}: undo the change to the header, or remove the line"
        )
    return f"{path} holds {_describe(record)} twice: delete one of the two lines"
