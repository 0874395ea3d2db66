"""Records of `bench cost`: `<folder>/records.jsonl`, a header line and then one line per measurement, as it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from bench.errors import RecordsError, clipped, shown
from bench.records.codec import Codec
from bench.records.lines import FILE_NAME, Lines, read_lines
from bench.types import Layout

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


Turn = tuple[str, int, str, str]
"""Session, round, duel and group."""


@dataclass(frozen=True, kw_only=True)
class Repetition(OfPair):
    """One timing of one method.

    Repetitions of one turn were made one after another, so that they can be paired.

    Attributes:
        round: counts the repetitions of a method, setting and batch size from 0, through all sessions.
        samples: classified in `seconds`, wall time from an idle device to an idle device; at batch size 1 the device
            was waited for after every sample.
        peak_memory_bytes: of the method's weights and of what a batch needs beside them; None where not told.
        session: `created` of the command that made it; empty in files of FIRST_SCHEMA_VERSION.
        watts, temperature, clock_mhz, throttling, other_processes: while it lasted; None and empty without NVML.
        duel: the method whose repetition and the reference's, of this round, were made for each other, one right after
            the other, whatever their settings; empty: all methods of its group took turns.
        group: the method, where it took turns with no other one; empty: with all that have none.
        warming: seconds that its pair took to be ready for the first time in its session, compiling included; else 0.
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
    duel: str = ""
    group: str = ""
    warming: float = 0.0

    @property
    def turn(self) -> Turn:
        """Session, round, duel and group: repetitions of one turn were made side by side."""
        return self.session, self.round, self.duel, self.group


OUT_OF_MEMORY, NOT_COMPILED = "out of memory", "torch.compile failed"

CROWDED_BYTES = 2 * 2**30
"""Memory of a device that others hold, this process's own libraries among them, from which they may be the reason why
something does not fit."""


@dataclass(frozen=True, kw_only=True)
class Failure(OfPair):
    """Why a method cannot be measured at a batch size.

    Attributes:
        session: `created` of the command that found it; empty in older files.
        memory_of_others: bytes of the device's memory that others held then, None where not told.
    """

    reason: str
    session: str = ""
    memory_of_others: int | None = None

    @property
    def may_pass(self) -> bool:
        """True where another call tries again: others held the memory, or the compiler lacked something."""
        is_crowded = self.reason == OUT_OF_MEMORY and (self.memory_of_others or 0) > CROWDED_BYTES
        return is_crowded or self.reason.startswith(NOT_COMPILED)


@dataclass(frozen=True, kw_only=True)
class StageSplit(OfPair):
    """Seconds of one batch by stage: noise, those that the method names, counting, and host for the rest."""

    stages: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class LayoutTrial(OfPair):
    """How a method's networks were tried to be laid out, in its first call on a GPU.

    Attributes:
        batch: layout, as in `bench.types.Layout`, -> shortest seconds of a batch; without those that did not
            fit into memory.
    """

    batch: dict[str, float]

    @property
    def fastest(self) -> Layout:
        """The layout that all that was measured afterwards of the method in the setting had."""
        return cast(Layout, min(self.batch, key=lambda name: self.batch[name]))


@dataclass(frozen=True, kw_only=True)
class EnergyUse(OfPair):
    """Energy of some seconds of nothing but one method."""

    samples: int
    seconds: float
    joules: float


@dataclass(frozen=True, kw_only=True)
class WholeImage(OfPair):
    """The time in which the certifier really certified some images together, of `samples` samples in all."""

    samples: int
    seconds: float
    images: int = 1


Item = CostSession | MethodSize | LayoutTrial | Repetition | Failure | StageSplit | EnergyUse | WholeImage

KINDS: dict[str, type] = {
    "session": CostSession,
    "size": MethodSize,
    "layouts": LayoutTrial,
    "repetition": Repetition,
    "failure": Failure,
    "stages": StageSplit,
    "energy": EnergyUse,
    "image": WholeImage,
}
"""Kind of a line after the first -> what it holds."""

CODEC = Codec[CostHeader, Item](
    header=("cost-header", CostHeader),
    items=KINDS,
    versions=(FIRST_SCHEMA_VERSION, COST_SCHEMA_VERSION),
)


@dataclass(frozen=True, kw_only=True)
class CostRun:
    """A file read back, each kind in the order of its lines."""

    folder: Path
    header: CostHeader
    sessions: tuple[CostSession, ...] = ()
    sizes: tuple[MethodSize, ...] = ()
    layouts: tuple[LayoutTrial, ...] = ()
    repetitions: tuple[Repetition, ...] = ()
    failures: tuple[Failure, ...] = ()
    splits: tuple[StageSplit, ...] = ()
    energies: tuple[EnergyUse, ...] = ()
    images: tuple[WholeImage, ...] = ()

    @property
    def standing_failures(self) -> tuple[Failure, ...]:
        """The last failure of each method, setting and batch size, unless it has passed: it was timed later."""
        order = {session.created: number for number, session in enumerate(self.sessions)}
        timed = {one.pair: order.get(one.session, -1) for one in self.repetitions}  # the last of a pair stays
        last = {one.pair: one for one in self.failures}
        return tuple(
            one
            for pair, one in last.items()
            if not (one.may_pass and timed.get(pair, -1) > order.get(one.session, -1))
        )

    def with_item(self, item: Item) -> CostRun:
        """Return the run with one item more."""
        name = _FIELDS[type(item)]
        return dataclasses.replace(self, **{name: (*getattr(self, name), item)})  # type: ignore[arg-type]


_FIELDS: dict[type, str] = {
    CostSession: "sessions",
    MethodSize: "sizes",
    LayoutTrial: "layouts",
    Repetition: "repetitions",
    Failure: "failures",
    StageSplit: "splits",
    EnergyUse: "energies",
    WholeImage: "images",
}


class CostFile(Lines[CostHeader, Item]):
    """A records file open for appending; `run` is what it holds."""

    run: CostRun

    def _resume(self, header: CostHeader) -> None:
        super()._resume(header)
        self.run = _run(self.path, self.header, self.items)

    def append(self, *items: Item) -> None:
        """Write a line per item and wait until they are on the disk; see `Lines.append`."""
        super().append(*items)
        for item in items:
            self.run = self.run.with_item(item)


def open_cost_file(folder: Path, header: CostHeader) -> CostFile:
    """Return the folder's file, begun with `header` or continued; see `Lines` for its lock and its errors."""
    return CostFile(folder / FILE_NAME, CODEC, header)


def read_cost_run(folder: Path) -> CostRun:
    """Return what a folder's file holds.

    Raises:
        RecordsError: there is none, or a line is not valid.
    """
    held = read_lines(folder / FILE_NAME, CODEC)
    return _run(folder / FILE_NAME, held.header, held.items)


def check_reportable(run: CostRun) -> None:
    """Return nothing for a run whose tables can be made.

    Raises:
        RecordsError: it holds no session, no timing, or a timed method whose size it does not hold.
    """
    if not run.sessions or not run.sessions[-1].n or not run.repetitions:
        raise RecordsError(f"{run.folder} holds no timings to report: repeat the `bench cost` that began it")
    sized = {size.method for size in run.sizes}
    timed = (*run.repetitions, *run.splits, *run.energies, *run.images)
    for one in timed:
        if one.method not in sized:
            raise RecordsError(
                f"{run.folder} lacks the size of {clipped(one.method)}: repeat its `bench cost`"
            )


_POSITIVE = (
    "sigma",
    "steps",
    "votes",
    "n0",
    "parameters",
    "flops",
    "calls",
    "batch_size",
    "samples",
    "seconds",
    "joules",
)
_NOT_NEGATIVE = ("round", "peak_memory_bytes", "watts", "other_processes")
"""Fields of all lines that are above 0, and those that are 0 or more where they are told."""


def _fault(item: CostHeader | Item) -> str | None:
    """Return which field of a line has a value that no measurement gives, and why; None where all are right."""
    for name in _POSITIVE:
        if not getattr(item, name, 1) > 0:
            return f"{name} is {getattr(item, name)}, expected a number above 0"
    for name in _NOT_NEGATIVE:
        if (getattr(item, name, None) or 0) < 0:
            return f"{name} is {getattr(item, name)}, expected 0 or more"
    several = (*getattr(item, "n", ()), *getattr(item, "image", ()))
    if not all(value > 0 for value in several):
        return f"n or image is {shown(several)}, expected numbers above 0"
    stages = getattr(item, "stages", {"host": 1.0}).values()
    if not all(value >= 0 for value in stages) or not sum(stages) > 0:
        return "stages holds a time below 0, or none above"
    batch = getattr(item, "batch", {"contiguous": 1.0})
    if (
        not batch
        or not batch.keys() <= set(get_args(Layout))
        or not all(value > 0 for value in batch.values())
    ):
        return f"batch is {shown(batch)}, expected seconds above 0 of {' or '.join(get_args(Layout))}"
    return None


def _run(path: Path, header: CostHeader, items: Sequence[Item]) -> CostRun:
    found: dict[str, list[Any]] = {name: [] for name in _FIELDS.values()}
    for number, item in enumerate((header, *items), 1):
        if (fault := _fault(item)) is not None:
            raise RecordsError(f"{path}, line {number}: {fault}: undo the change, or remove the line")
    for item in items:
        found[_FIELDS[type(item)]].append(item)
    values = {name: tuple(some) for name, some in found.items()}
    return CostRun(folder=path.parent, header=header, **values)
