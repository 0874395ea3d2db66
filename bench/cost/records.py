"""Records of `bench cost`: `<folder>/records.jsonl`, a header line and then one line per measurement, as it is made.

A line that a stop has cut is left out when read, and removed when the file is continued.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import ProtocolError, RecordsError
from bench.records.codec import decode_item, encode_item
from bench.records.lines import append, lock

FILE_NAME = "records.jsonl"

COST_SCHEMA_VERSION = 2
"""Version of this format; raised whenever a field changes its meaning."""

FIRST_SCHEMA_VERSION = 1
"""Still read: its repetitions name no session, and in batches smaller than a block they lack most drawing of noise."""


@dataclass(frozen=True, kw_only=True)
class CostHeader:
    """What all lines of a file share; another value of any of these needs another folder.

    Attributes:
        preset: a name in COST_PRESETS, or a preset of `bench run`.
        dataset: whose published numbers stand beside the seconds.
        device: product name; device_type: "cpu", "cuda" or "mps".
        sigma: of the noise, pixel units.
        steps, votes: of the iterated purifiers.
    """

    schema_version: int
    preset: str
    dataset: str
    device: str
    device_type: str
    sigma: float
    steps: int
    votes: int


@dataclass(frozen=True, kw_only=True)
class CostSession:
    """One command that added to the file; n0 and n are those that its tables state."""

    command: str
    created: str
    git_revision: str
    hardware: dict[str, Any]
    libraries: dict[str, str]
    n0: int
    n: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class MethodSize:
    """What a method is, whatever the device.

    Attributes:
        image: (channels, height, width) of its input.
        flops: operations of one sample, a multiplication and an addition counting as two.
        calls: network calls of its denoiser for one sample.
        batch_size: samples per call in the comparison as published.
        published, source: see `bench.training.architectures.Architecture`.
    """

    method: str
    image: tuple[int, int, int]
    parameters: int
    flops: int
    calls: int
    batch_size: int
    published: str
    source: str


@dataclass(frozen=True, kw_only=True)
class OfPair:
    """What belongs to a method in a setting at a batch size.

    Attributes:
        setting: arithmetic, with "-compiled" behind it where networks ran under torch.compile.
        batch_size: samples per call.
    """

    method: str
    setting: str
    batch_size: int

    @property
    def pair(self) -> tuple[str, str, int]:
        """Method, setting and batch size."""
        return self.method, self.setting, self.batch_size


@dataclass(frozen=True, kw_only=True)
class Repetition(OfPair):
    """One timing of one method.

    Repetitions of one session, setting and round were made one after another, so that they can be paired.

    Attributes:
        round: counts the repetitions of a method, setting and batch size from 0, through all sessions.
        samples: classified in `seconds`, wall time from an idle device to an idle device; at batch size 1 the device
            was waited for after every sample.
        peak_memory_bytes: of the method's weights and of what a batch needs beside them; None where not told.
        session: `created` of the command that made it; empty in files of FIRST_SCHEMA_VERSION.
        watts, temperature, clock_mhz, throttling, other_processes: right after it; None and empty without NVML.
    """

    round: int
    samples: int
    seconds: float
    peak_memory_bytes: int | None
    session: str = ""
    watts: float | None = None
    temperature: float | None = None
    clock_mhz: float | None = None
    throttling: tuple[str, ...] = ()
    other_processes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Failure(OfPair):
    """Why a method cannot be measured at a batch size."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class StageSplit(OfPair):
    """Seconds of one batch by stage: noise, those that the method names, counting, and host for the rest."""

    stages: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class EnergyUse(OfPair):
    """Energy of some seconds of nothing but one method."""

    samples: int
    seconds: float
    joules: float


@dataclass(frozen=True, kw_only=True)
class WholeImage(OfPair):
    """The time in which the certifier really certified one image of `samples` samples."""

    samples: int
    seconds: float


Item = CostSession | MethodSize | Repetition | Failure | StageSplit | EnergyUse | WholeImage

KINDS: dict[str, type] = {
    "session": CostSession,
    "size": MethodSize,
    "repetition": Repetition,
    "failure": Failure,
    "stages": StageSplit,
    "energy": EnergyUse,
    "image": WholeImage,
}
"""Kind of a line after the first -> what it holds."""

_HEADER = {"cost-header": CostHeader}


@dataclass(frozen=True, kw_only=True)
class CostRun:
    """A file read back, each kind in the order of its lines."""

    folder: Path
    header: CostHeader
    sessions: tuple[CostSession, ...] = ()
    sizes: tuple[MethodSize, ...] = ()
    repetitions: tuple[Repetition, ...] = ()
    failures: tuple[Failure, ...] = ()
    splits: tuple[StageSplit, ...] = ()
    energies: tuple[EnergyUse, ...] = ()
    images: tuple[WholeImage, ...] = ()

    def with_item(self, item: Item) -> CostRun:
        """Return the run with one item more."""
        name = _FIELDS[type(item)]
        return dataclasses.replace(self, **{name: (*getattr(self, name), item)})  # type: ignore[arg-type]


_FIELDS: dict[type, str] = {
    CostSession: "sessions",
    MethodSize: "sizes",
    Repetition: "repetitions",
    Failure: "failures",
    StageSplit: "splits",
    EnergyUse: "energies",
    WholeImage: "images",
}


class CostFile:
    """A records file open for appending; `run` is what it holds. Made by `open_cost_file`."""

    def __init__(self, descriptor: int, path: Path, run: CostRun) -> None:
        self._descriptor, self._path, self.run = descriptor, path, run

    def append(self, item: Item) -> None:
        """Write the item's line and wait until it is on the disk.

        Raises:
            RecordsError: a number is NaN or infinite, or the line could not be written.
        """
        append(self._descriptor, self._path, encode_item(item, KINDS))
        self.run = self.run.with_item(item)


@contextlib.contextmanager
def open_cost_file(folder: Path, header: CostHeader) -> Iterator[CostFile]:
    """Yield the folder's file, begun with `header` or continued, locked against other writers.

    Raises:
        ProtocolError: it was begun under another header; the message names the first field.
        RecordsError: another process writes to it, or a line is not valid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        lock(descriptor, path, "give another --out")
        if os.fstat(descriptor).st_size == 0:
            append(descriptor, path, encode_item(header, _HEADER))
        run, whole = _parse(path)
        os.truncate(path, whole)
        for name, now in vars(header).items():
            if (before := getattr(run.header, name)) != now:
                raise ProtocolError(
                    f"{path} was made under another {name} (then and now: {before!r} and {now!r}): "
                    "give another --out, or repeat the command that made it"
                )
        yield CostFile(descriptor, path, run)
    finally:
        os.close(descriptor)


def read_cost_run(folder: Path) -> CostRun:
    """Return what a folder's file holds.

    Raises:
        RecordsError: there is none, or a line is not valid.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise RecordsError(f"no records at {path}: give the folder that `bench cost` wrote")
    return _parse(path)[0]


def _parse(path: Path) -> tuple[CostRun, int]:
    """Return the run and how many bytes of the file are whole lines."""
    lines = list(io.BytesIO(path.read_bytes()))
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    if not lines:
        raise RecordsError(f"{path} has no header line: delete it, or give another --out")
    header: CostHeader = decode_item(lines[0], _HEADER, f"{path}, line 1")
    if header.schema_version not in (FIRST_SCHEMA_VERSION, COST_SCHEMA_VERSION):
        raise RecordsError(
            f"{path}: schema version {header.schema_version}, but this version of bench reads "
            f"{FIRST_SCHEMA_VERSION} and {COST_SCHEMA_VERSION}: install the version that wrote it"
        )
    items: dict[str, list[Any]] = {name: [] for name in _FIELDS.values()}
    for number, line in enumerate(lines[1:], 2):
        item = decode_item(line, KINDS, f"{path}, line {number}")
        items[_FIELDS[type(item)]].append(item)
    values = {name: tuple(found) for name, found in items.items()}
    return CostRun(folder=path.parent, header=header, **values), sum(map(len, lines))
