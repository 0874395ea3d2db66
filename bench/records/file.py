"""Records of one run: `<folder>/records.jsonl`, a header line and then one line per certificate or cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.config.levels import alike, shortest
from bench.config.radii import chosen_radii
from bench.errors import ProtocolError, RecordsError, UsageError, clipped, typed
from bench.records.codec import RUN, RunLines
from bench.records.columns import columns_of
from bench.records.lines import (
    FILE_NAME,
    Lines,
    difference,
    differing,
    read_lines,
    require_alike,
    write_lines,
)
from bench.records.meaning import cost_fault, header_fault, record_fault
from bench.records.screening import proven, strangers, two_labels
from bench.types import NOISE_VERSION, CostRecord, Record, Run, RunHeader


class RecordsFile(Lines[RunHeader, Record | CostRecord]):
    """A records file open for appending.

    Attributes:
        run: what the file held when it was opened; its header is the one to follow, batch sizes included.
    """

    run: Run

    @classmethod
    def create_or_resume(cls, folder: Path, header: RunHeader, name: str = FILE_NAME) -> RecordsFile:
        """Return the folder's records file, begun with `header` or continued where it stopped.

        Args:
            folder: folder of the run; made if missing.
            header: header of this command. A file with certificates or costs keeps its own, which must agree in every
                field that they rest on; methods and sigmas that have neither are dropped, methods, sigmas and images
                that are new to it are added, and the radii of tables are replaced unless they are those that nobody
                named.
            name: of the file; every file has a lock of its own.

        Raises:
            ProtocolError: the folder holds a run under another protocol; the message names the first field.
            RecordsError: another process writes to the file, or it cannot be read or written.
        """
        return cls(folder / name, RUN, header)

    def _resume(self, header: RunHeader) -> None:
        run = _run(self.path, self.header, self.items)
        old = in_use(run) if self.items else run.header
        _require_extendable(self.path, run.header, old, header)
        if (extended := _extended(run.header, old, header)) != run.header:
            self.replace_header(extended)
        self.run = dataclasses.replace(run, header=extended)
        columns = columns_of(run.records)
        self._seen = set(columns.identities())
        self._labels = dict(zip(columns.indices.tolist(), columns.label.tolist(), strict=True))

    def append(self, *items: Record | CostRecord) -> None:
        """Write one line per item and wait until they are on the disk.

        Raises:
            RecordsError: the image was already certified by this method at this sigma, a number is NaN or
                infinite, or the lines could not be written; the lines before them are kept.
        """
        new = [item for item in items if isinstance(item, Record)]
        for record in new:
            if _identity(record) in self._seen:
                raise RecordsError(f"{self.path} already holds {_describe(record)}: certify each image once")
            if (label := self._labels.get(record.index, record.label)) != record.label:
                raise RecordsError(f"{self.path}: {_unlike(record, label)}: give another --out")
        super().append(*items)
        self._seen.update(map(_identity, new))
        self._labels.update((record.index, record.label) for record in new)


def check_extendable(path: Path, header: RunHeader) -> None:
    """Return nothing for a records file that a command can begin or continue.

    Args:
        path: of the file, which may be missing.
        header: of the command; it may lack what is not known yet, such as checkpoints and weights.

    Raises:
        ProtocolError, RecordsError: as `RecordsFile.create_or_resume`.
    """
    if path.is_file() and (run := read_run(path)) and (run.records or run.costs):
        _require_extendable(path, run.header, in_use(run), header)


def _require_extendable(path: Path, whole: RunHeader, old: RunHeader, new: RunHeader) -> None:
    """Raise ProtocolError where a run under one header, of which `old` is in use, cannot have another."""
    if whole.noise_version != new.noise_version:
        require_noise(whole, path)
    if old.estimation == "confidence-sequence":
        raise ProtocolError(
            f"{path} has {old.estimation} estimation, which is read and reported but not run: give another --out"
        )
    before, now = _rested_on(old, new), _rested_on(new, old)
    if set(old.indices) <= set(new.indices):  # more images may be added
        now["indices"] = old.indices
    elif set(new.indices) < set(old.indices):
        raise ProtocolError(
            f"{path} was made under another indices (then and now: {difference(old.indices, new.indices)}): give "
            f"another --out, or raise --limit, so that the run's {len(old.indices)} images are among this command's"
        )
    require_alike(path, RUN.remedy, *known_images(before, now))
    if twice := alike({*old.sigmas, *new.sigmas}):
        raise ProtocolError(
            f"{path} and this command have noise levels that are written alike, {twice[0]!r} and {twice[1]!r}: give "
            "the run's, or another --out"
        )
    for key in sorted(old.weights.keys() & new.weights.keys()):
        if old.weights[key] != new.weights[key]:
            method, _, sigma = key.rpartition("/")
            raise ProtocolError(
                f"{path} holds certificates of {method} at sigma {sigma} with other weights (SHA-256 then "
                f"{old.weights[key]}, now {new.weights[key]}): bring those weights back, or give another --out"
            )


def check_addable(folder: Path, records: Iterable[Record]) -> None:
    """Return nothing for records that a folder's file holds already, or can take beside its own.

    Raises:
        RecordsError: it holds another of the same image, method and sigma, or another label of an image; or it cannot
            be read.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return
    held = read_run(path).records
    known, labels = {_identity(one): one for one in held}, {one.index: one.label for one in held}
    for record in records:
        if known.get(_identity(record), record) != record:
            raise RecordsError(f"{path} already holds {_describe(record)}: certify each image once")
        if (label := labels.get(record.index, record.label)) != record.label:
            raise RecordsError(f"{path}: {_unlike(record, label)}: give another --out")


def read_run(path: Path, *, repairs: bool = False) -> Run:
    """Return a run for reporting; a cut last line is left out and the file stays as it is.

    Args:
        path: folder of the run, or its records file.
        repairs: take classes and radii as they are, since they are computed anew from the counts.

    Returns:
        The run; of a cost measured twice, the later measurement.

    Raises:
        RecordsError: there is no such file, a newer version wrote it, or a line is not valid or cannot be true: the
            message names the line and the field.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if path.is_dir() and not file.exists() and any(path.glob("records-*-of-*.jsonl")):
        raise RecordsError(f"{path} holds shards of a run: join them with `bench merge {typed(path)}`")
    contents = read_lines(file, RUN)
    return _run(file, contents.header, contents.items, repairs=repairs)


def write_run(folder: Path, run: Run) -> None:
    """Write a whole run to a new folder, at once.

    Raises:
        RecordsError: the folder holds records already, or cannot be written.
    """
    path = folder / FILE_NAME
    if path.exists():
        raise RecordsError(f"{path} exists: give another --out, or delete it")
    items: tuple[Record | CostRecord, ...] = (*run.records, *run.costs)
    write_lines(path, RUN, run.header, items)


def require_noise(header: RunHeader, of: Path) -> None:
    """Return nothing where records can be computed again with the noise that they were made with.

    Args:
        header: of the records.
        of: their file or folder, for the message.

    Raises:
        ProtocolError: it is another noise than this program draws.
    """
    if header.noise_version != NOISE_VERSION:
        raise ProtocolError(
            f"{of} was made with version {header.noise_version} of the noise, and this program draws version "
            f"{NOISE_VERSION}: its records can be reported, but neither extended nor replayed; certify again with "
            "another --out"
        )


def check_comparable(runs: Sequence[Run], allow: Collection[str] = ()) -> None:
    """Return nothing for runs whose numbers may stand in one table.

    Args:
        runs: any number of runs.
        allow: header fields in which they may differ.

    Raises:
        ProtocolError: two runs differ in another checked field; the message names it and both values.
        UsageError: `allow` names no checked field.
    """
    checked = [
        one.name for one in dataclasses.fields(RunHeader) if one.metadata["role"] in ("identity", "protocol")
    ]
    if unknown := sorted({*allow} - {*checked}):
        raise UsageError(f"{unknown[0]!r} is no checked field; those are {', '.join(checked)}")
    headers = [run.header.values("identity", "protocol") for run in runs]
    known = next((number for number, one in enumerate(headers) if one["image_digest"]), 0)
    pairs = [(0, number) for number in range(1, len(runs))] + [
        (known, number) for number in range(1, len(runs))
    ]
    for one, other in pairs:
        for name, both in differing(*known_images(headers[one], headers[other])):
            if name not in allow:
                raise ProtocolError(
                    f"{runs[one].folder} and {runs[other].folder} differ in {name} ({both}): "
                    f"compare runs of one protocol, or allow {name} to differ (--allow {name})"
                )


def known_images(first: dict[str, Any], second: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of two headers, without the digest of their images where one of them has none."""
    if first["image_digest"] and second["image_digest"]:
        return first, second
    return first | {"image_digest": ""}, second | {"image_digest": ""}


def in_use(run: Run) -> RunHeader:
    """Return a run's header without each method and sigma that has neither certificate nor cost."""
    header = run.header
    used = {*columns_of(run.records).groups} | {(cost.method, cost.sigma) for cost in run.costs}
    idle = [
        f"{name}/{sigma:g}/"
        for name in header.methods
        for sigma in header.sigmas
        if (name, sigma) not in used
    ]
    if not idle:
        return header

    def kept(values: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if not f"{key}/".startswith(tuple(idle))}

    methods = tuple(name for name in header.methods if any(name == method for method, _ in used))
    sigmas = tuple(sigma for sigma in header.sigmas if any(sigma == at for _, at in used))
    gone = {*header.methods} - {*methods}
    options = {name: values for name, values in header.options.items() if name not in gone}
    return dataclasses.replace(
        header,
        methods=methods,
        sigmas=sigmas,
        checkpoints=kept(header.checkpoints),
        weights=kept(header.weights),
        unfinished=kept(header.unfinished),
        training=kept(header.training),
        batch_sizes={name: size for name, size in header.batch_sizes.items() if name not in gone},
        config=header.config | {"methods": list(methods), "sigmas": list(sigmas), "options": options},
    )


def _extended(whole: RunHeader, old: RunHeader, new: RunHeader) -> RunHeader:
    """Return the old header with the methods, sigmas and images that the new one adds, and the radii of `_radii`.

    Args:
        whole, old, new: the header in the file, what of it is in use, and that of this command.
    """
    methods = (*new.methods, *(name for name in old.methods if name not in new.methods))
    sigmas = tuple(sorted({*old.sigmas, *new.sigmas}))
    radii = _radii(whole, new, sigmas)
    # A file that was trained again to the same weights may differ in all else.
    of_files = {name: getattr(old, name) | getattr(new, name) for name in ("checkpoints", "training")}
    same = (set(methods), sigmas, new.indices) == (set(whole.methods), whole.sigmas, whole.indices)
    if same and old == whole and radii == old.radii:
        measured = {name: new.config[name] for name in ("cost_repetitions",) if name in new.config}
        of_files = {name: {key: of[key] for key in getattr(old, name)} for name, of in of_files.items()}
        return dataclasses.replace(old, **of_files, config=old.config | measured)
    lacking = [name for name in methods if name not in new.methods]
    of_all = f" --methods {typed(','.join(methods))}" if lacking else ""
    of_all += f" --sigmas {','.join(map(shortest, sigmas))}" if {*sigmas} - {*new.sigmas} else ""
    if not new.command.startswith("bench run") or any(map(old.options.get, lacking)):
        of_all = ""
    of_others = {**old.options, **new.options}
    options = {name: value for name, value in of_others.items() if name not in old.methods}
    options |= {name: value for name, value in old.options.items() if name in old.methods}
    return dataclasses.replace(
        old,
        command=new.command + of_all,
        methods=methods,
        sigmas=sigmas,
        radii=radii,
        indices=new.indices,
        **of_files,
        weights=new.weights | old.weights,
        unfinished=new.unfinished | old.unfinished,
        batch_sizes=new.batch_sizes | old.batch_sizes,
        config=new.config | {"methods": list(methods), "sigmas": list(sigmas), "options": options},
        logs=old.logs | new.logs,
    )


def _radii(old: RunHeader, new: RunHeader, sigmas: Sequence[float]) -> tuple[float, ...]:
    """Return the new header's radii; where nobody named them, the old ones, or those chosen for all sigmas."""
    if old.estimation == "sequential" or new.radii != chosen_radii(new, new.sigmas):
        return new.radii
    return chosen_radii(old, sigmas) if old.radii == chosen_radii(old, old.sigmas) else old.radii


def _rested_on(header: RunHeader, other: RunHeader) -> dict[str, Any]:
    """Return what the certificates that two headers share rest on, as one of the headers has it."""
    found = header.values("identity", "protocol", "machine")
    if header.estimation == "sequential":
        found["radii"] = header.radii
    for method in sorted({*header.methods} & {*other.methods}):
        found[f"configuration of {method}"] = header.options.get(method, {})
    for key in sorted(header.checkpoints.keys() & other.checkpoints.keys()):
        weights = header.weights.get(key, "")
        if (
            weights != other.weights.get(key) or len(weights) != 64
        ):  # the same ones, trained again, are no others
            found[f"the checkpoint of {key}"] = header.checkpoints[key]
    return found


def _identity(record: Record) -> tuple[str, float, int]:
    return record.method, record.sigma, record.index


def _describe(record: Record) -> str:
    return f"image {record.index} of {clipped(record.method)} at sigma {record.sigma:g}"


def _run(
    path: Path, header: RunHeader, items: Sequence[Record | CostRecord], *, repairs: bool = False
) -> Run:
    """Return the run that a file's lines make."""
    if (fault := header_fault(header)) is not None:
        raise RecordsError(f"{path}, line 1: {fault}: undo the change to the header, or start anew")
    lines = (
        items if isinstance(items, RunLines) else RunLines(records=columns_of(()))
    )  # of a file that begins
    fault_of = record_fault(header, repairs=repairs)
    # A stop between the costs of two methods has them all measured again, in the same rounds.
    costs: dict[tuple[str, float], CostRecord] = {}
    records = lines.records
    composed = {records.names[code] for code in np.unique(records.methods[records.is_composed]).tolist()}
    is_strange = strangers(records, header)
    doubtful = np.flatnonzero(is_strange | ~proven(records, header, repairs=repairs))
    for place, row, item in lines.some(doubtful):
        where = f"{path}, line {place + 2}"
        if isinstance(item, CostRecord):
            if (fault := cost_fault(item, header, is_composed=item.method in composed)) is not None:
                raise RecordsError(f"{where}: {fault}: remove the line to measure it again")
            costs[item.method, item.sigma] = item
        elif is_strange[row]:
            raise RecordsError(_refusal(path, header, item, place + 2))
        elif (fault := fault_of(item)) is not None:
            raise RecordsError(
                f"{where}: {fault} ({_describe(item)}): undo the change, or remove the line to certify that image again"
            )
    if (rows := two_labels(lines.records)) is not None:
        (first, _, one), (second, _, other) = (
            found for found in lines.some(rows) if isinstance(found[2], Record)
        )
        assert isinstance(one, Record)
        assert isinstance(other, Record)
        raise RecordsError(
            f"{path}, lines {first + 2} and {second + 2}: {_unlike(one, other.label)}: undo the change, or remove the "
            "lines of one method"
        )
    return Run(folder=path.parent, header=header, records=lines.records, costs=tuple(costs.values()))


def _unlike(record: Record, label: int) -> str:
    return f"{_describe(record)} has label {record.label}, and elsewhere {label}, so that its classes have no one order"


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
