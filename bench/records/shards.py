"""A run split over processes that know nothing of each other: shard i of k, and the joining of all k.

Shard i certifies every k-th image, from the i-th on, with every method at every sigma. It writes
`records-<i>-of-<k>.jsonl` in the run's folder; `merge` makes `records.jsonl` of them.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import ProtocolError, RecordsError, UsageError, typed
from bench.records.file import FILE_NAME, read_run, write_run
from bench.records.lines import differing
from bench.types import Record, Run, RunHeader

NAMED = 8
"""Unfinished shards that are named, at most."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Part `number` of `count`, 1 <= number <= count."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def file_name(self) -> str:
        """The records file of this shard."""
        return f"records-{self.number}-of-{self.count}.jsonl"

    def part(self, indices: Sequence[int]) -> tuple[int, ...]:
        """Return this shard's images: together the shards hold each image once."""
        return tuple(indices[self.number - 1 :: self.count])


def parse_shard(text: str) -> Shard:
    """Return the shard that "i/k" names.

    Raises:
        UsageError: it is not two whole numbers with 1 <= i <= k.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard is {text!r}, expected i/k with 1 <= i <= k, such as 1/4")
    return Shard(number=int(match[1]), count=int(match[2]))


def shards_in(folder: Path) -> list[Shard]:
    """Return the shards whose files lie in a folder, in order."""
    matches = [
        re.fullmatch(r"records-([1-9][0-9]{0,5})-of-([1-9][0-9]{0,5})\.jsonl", path.name)
        for path in folder.glob("*")
    ]
    found = [Shard(number=int(match[1]), count=int(match[2])) for match in matches if match]
    found = [shard for shard in found if shard.number <= shard.count]
    return sorted(found, key=lambda shard: (shard.count, shard.number))


def check_folder(folder: Path, shard: Shard | None) -> None:
    """Return nothing for a folder in which a whole run (None) or this shard may be begun or continued.

    Raises:
        RecordsError: it holds a whole run and a shard is asked for, or shards of another number.
    """
    is_whole, shards = (folder / FILE_NAME).exists(), shards_in(folder)
    if shard is not None and is_whole:
        raise RecordsError(f"{folder} holds a whole run: leave --shard out, or give another --out")
    if shard is None and shards and not is_whole:
        raise RecordsError(
            f"{folder} holds shards of a run: join them with `bench merge {typed(folder)}`, or give another --out"
        )
    for other in shards:
        if shard is not None and other.count != shard.count:
            raise RecordsError(
                f"{folder} holds {other.file_name}, so --shard {shard} does not fit: split the run into "
                f"{other.count} shards, or give another --out"
            )


def read_status(path: Path) -> tuple[Run, dict[Shard, int]]:
    """Return a run as far as it is done, and how many certificates each shard lacks; none where it is whole or merged.

    Args:
        path: folder of the run, or its records file.

    Raises:
        RecordsError: there is no run, its shards are of several numbers, or a file cannot be read.
        ProtocolError: the headers of two shards differ; the message names the field.
    """
    if not path.is_dir() or (path / FILE_NAME).exists() or not shards_in(path):
        return read_run(path), {}
    shards = _shards_of_one_run(path)
    runs = [read_run(path / shard.file_name) for shard in shards]
    _check_headers(runs, shards)
    _check_images(runs, shards)
    header, count = _header(runs), shards[0].count
    records = tuple(record for run in runs for record in run.records)
    done = Counter(record.index for record in records)
    curves = len(header.methods) * len(header.sigmas)
    lacks = {}
    for number in range(1, count + 1):
        shard = Shard(number=number, count=count)
        lacks[shard] = sum(curves - done[index] for index in shard.part(header.indices))
    costs = tuple(measured for run in runs for measured in run.costs)
    return Run(folder=path, header=header, records=records, costs=costs), lacks


def what_to_do(run: Run, lacks: Mapping[Shard, int]) -> str:
    """Return how a run in shards is finished, given how many certificates each lacks; "" for a run in one piece."""
    if not lacks:
        return ""
    has_costs = not unmeasured(run)
    unfinished = [
        f"{shard} ({f'{count} left' if count else 'costs left'})"
        for shard, count in lacks.items()
        if count or (shard.number == 1 and not has_costs)
    ]
    if not unfinished:
        return f"join the shards with `bench merge {typed(run.folder)}`"
    more = f" and {len(unfinished) - NAMED} more" if len(unfinished) > NAMED else ""
    return f"repeat the commands of shards {', '.join(unfinished[:NAMED])}{more}"


def unmeasured(run: Run) -> list[str]:
    """Return the methods of a run whose cost is still to be measured, in the order of its header."""
    measured = {cost.method for cost in run.costs}
    asked = run.header.config.get("cost_repetitions")
    return [name for name in run.header.methods if name not in measured] if asked else []


def merge(folder: Path) -> Run:
    """Write a folder's shards as one run, in the order of an unsharded one, and return it.

    Raises:
        RecordsError: a shard, a certificate or the costs are missing; the folder is merged already; a file
            cannot be read or written.
        ProtocolError: two headers differ; the message names the field.
    """
    if (folder / FILE_NAME).exists():
        raise RecordsError(
            f"{folder} is merged already: make its tables again with `bench report {typed(folder)}`"
        )
    shards = _all_shards(folder)
    runs = [read_run(folder / shard.file_name) for shard in shards]
    _check_headers(runs, shards)
    records = _joined(runs, shards)
    costs = tuple(measured for run in runs for measured in run.costs)
    run = Run(folder=folder, header=_header(runs), records=records, costs=costs)
    if lacking := unmeasured(run):
        raise RecordsError(
            f"{folder} lacks the cost of {', '.join(lacking)}: repeat the command of shard 1/{len(runs)}"
        )
    write_run(folder, run)
    return run


def _shards_of_one_run(folder: Path) -> list[Shard]:
    shards = shards_in(folder)
    counts = sorted({shard.count for shard in shards})
    if not shards:
        raise RecordsError(f"{folder} holds no shards: make them with `bench run --shard i/k`")
    if len(counts) > 1:
        raise RecordsError(
            f"{folder} holds shards of {counts[0]} and of {counts[1]}: keep the files of one of them only"
        )
    return shards


def _all_shards(folder: Path) -> list[Shard]:
    shards = _shards_of_one_run(folder)
    count, present = shards[0].count, {shard.number for shard in shards}
    missing = [str(number) for number in range(1, count + 1) if number not in present]
    if missing:
        raise RecordsError(
            f"{folder} lacks {_plural(len(missing), 'shard')} of {count}, such as {missing[0]}: "
            f"repeat the command with --shard {missing[0]}/{count}"
        )
    return shards


def _check_headers(runs: Sequence[Run], shards: Sequence[Shard]) -> None:
    first, *others = (
        run.header.values("identity", "protocol", "machine", "contents")
        | {"options of the methods": run.header.options}
        for run in runs
    )
    for shard, run, header in zip(shards[1:], runs[1:], others, strict=True):
        for name, both in differing(first, header):
            raise ProtocolError(
                f"shards {shards[0].number} and {shard.number} of {run.folder} differ in {name} ({both}): "
                "make them with the same command but for --shard"
            )


def _joined(runs: Sequence[Run], shards: Sequence[Shard]) -> tuple[Record, ...]:
    """Return all records in the order of an unsharded run."""
    header = runs[0].header
    _check_images(runs, shards)
    found = {(record.sigma, record.method, record.index): record for run in runs for record in run.records}
    wanted = [
        (sigma, name, index) for sigma in header.sigmas for name in header.methods for index in header.indices
    ]
    missing = [key for key in wanted if key not in found]
    if missing:
        sigma, name, index = missing[0]
        shard = next(shard for shard in shards if index in shard.part(header.indices))
        raise RecordsError(
            f"{runs[0].folder} lacks {_plural(len(missing), 'certificate')}, the first being image {index} of "
            f"{name} at sigma {sigma:g}: repeat the command of shard {shard}"
        )
    return tuple(found[key] for key in wanted)


def _check_images(runs: Sequence[Run], shards: Sequence[Shard]) -> None:
    for run, shard in zip(runs, shards, strict=True):
        mine = set(shard.part(run.header.indices))
        other = next((record.index for record in run.records if record.index not in mine), None)
        if other is not None:
            raise RecordsError(
                f"{run.folder / shard.file_name} holds image {other}, which belongs to another shard: remove its line"
            )


def _header(runs: Sequence[Run]) -> RunHeader:
    """Return the first shard's header; its hardware lists the other shards' where they ran elsewhere."""
    first = runs[0].header
    others = [run.header.hardware for run in runs[1:] if run.header.hardware != first.hardware]
    hardware = first.hardware | ({"other_shards": others} if others else {})
    command = re.sub(r" --shard[ =]\S+", "", first.command)
    return dataclasses.replace(first, command=command, hardware=hardware)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count > 1)}"
