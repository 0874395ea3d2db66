"""Records in columns: a million certificates as arrays, which give a `Record` only where one is asked for."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from bench.types import ABSTAIN, Record

BLOCK = 4096
"""Records that are made at once where all are asked for."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Rows = slice | Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """Counts of classes of I records: those of record i are pairs starts[i] to starts[i] + lengths[i].

    Attributes:
        classes, numbers: (P,) of all pairs, some of which may belong to records that are left out.
        starts, lengths: (I,).
    """

    classes: Ints
    numbers: Ints
    starts: Ints
    lengths: Ints

    def take(self, rows: Rows) -> Counts:
        """Return the counts of some of the records, which share the pairs."""
        return Counts(
            classes=self.classes,
            numbers=self.numbers,
            starts=self.starts[rows],
            lengths=self.lengths[rows],
        )

    @cached_property
    def sums(self) -> Ints:
        """(I,) all samples of each record; exact below 2**63."""
        sums = np.concatenate([[0], np.cumsum(self.numbers[self._places()])])
        ends = np.cumsum(self.lengths)
        return np.asarray(sums[ends] - sums[ends - self.lengths])

    def of(self, wanted: Ints) -> Ints:
        """Return (I,) how many samples of each record have the class wanted (I,) of it."""
        found = np.zeros(len(self.starts), np.int64)
        for rows, pairs in self._by_place():
            is_wanted = self.classes[pairs] == wanted[rows]
            found[rows[is_wanted]] = self.numbers[pairs[is_wanted]]
        return found

    @cached_property
    def most_frequent(self) -> Ints:
        """(I,) the class with most samples, the lowest on a tie; ABSTAIN where there are no counts."""
        found = np.full(len(self.starts), ABSTAIN, np.int64)
        most = np.full(len(self.starts), np.iinfo(np.int64).min)
        for rows, pairs in self._by_place():
            classes, numbers = self.classes[pairs], self.numbers[pairs]
            is_first = self.starts[rows] == pairs
            is_more = (numbers > most[rows]) | ((numbers == most[rows]) & (classes < found[rows])) | is_first
            found[rows[is_more]], most[rows[is_more]] = classes[is_more], numbers[is_more]
        return found

    def have(self, holds: Flags) -> Flags:
        """Return (I,) whether a property (P,) holds for all pairs of each record."""
        fails = np.concatenate([[0], np.cumsum(~holds)])
        return np.asarray(fails[self.starts + self.lengths] == fails[self.starts])

    @property
    def content(self) -> bytes:
        """What equal counts of equally many records have in common, and no others."""
        places = self._places()
        parts = (self.lengths, self.classes[places], self.numbers[places])
        return b"".join(part.tobytes() for part in parts)

    def tuples(self) -> list[tuple[tuple[int, int], ...]]:
        """Return the counts as `Record` holds them."""
        places, ends = self._places(), np.cumsum(self.lengths).tolist()
        pairs = list(zip(self.classes[places].tolist(), self.numbers[places].tolist(), strict=True))
        return [tuple(pairs[start:end]) for start, end in pairwise([0, *ends])]

    def _places(self) -> Ints:
        """Return where the pairs of these records are, those of the first record first."""
        before = np.cumsum(self.lengths) - self.lengths
        return np.repeat(self.starts - before, self.lengths) + np.arange(self.lengths.sum())

    def _by_place(self) -> Iterator[tuple[Ints, Ints]]:
        """Yield, for the first pair of each record, the second, ...: the rows that have one, and the pair of each."""
        rows, place = np.flatnonzero(self.lengths), 0
        while len(rows):
            yield rows, self.starts[rows] + place
            place += 1
            rows = rows[self.lengths[rows] > place]


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns(Sequence[Record]):
    """Records as columns, in their order; indexing and iteration make a `Record`, whose fields these are.

    Attributes:
        names: of the methods; methods: (I,) positions among them.
        sigma, radius, seconds: (I,) float64; uniform and certified_sigma too, NaN standing for None.
        indices, label, predict, n0, n, samples, clean: (I,) int64; has_clean: (I,) False where clean is None.
        selection, estimation: counts of both stages.
        bounds: (I,) of tuples.
    """

    names: tuple[str, ...]
    methods: Ints
    sigma: Floats
    indices: Ints
    label: Ints
    predict: Ints
    radius: Floats
    selection: Counts
    estimation: Counts
    n0: Ints
    n: Ints
    samples: Ints
    seconds: Floats
    uniform: Floats
    clean: Ints
    has_clean: Flags
    certified_sigma: Floats
    bounds: NDArray[np.object_]

    def take(self, rows: Rows) -> Columns:
        """Return some of the records, which share memory where their positions, or the slice, are a range."""
        if not isinstance(rows, slice) and len(rows) and np.all(np.diff(rows) == 1):
            rows = slice(int(rows[0]), int(rows[-1]) + 1)
        parts: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        taken: dict[str, Any] = {
            name: part.take(rows) if isinstance(part, Counts) else part[rows]
            for name, part in parts.items()
            if name != "names"
        }
        return Columns(names=self.names, **taken)

    def of_images(self, indices: Ints) -> Columns:
        """Return the records of some images, in their order here."""
        return self.take(np.flatnonzero(np.isin(self.indices, indices)))

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, place: int) -> Record: ...

    @overload
    def __getitem__(self, place: slice) -> Columns: ...

    def __getitem__(self, place: int | slice) -> Record | Columns:
        if isinstance(place, slice):
            return self.take(place)
        row = range(len(self))[operator.index(place)]
        return self.take(slice(row, row + 1))._records()[0]

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), BLOCK):
            yield from self.take(slice(start, start + BLOCK))._records()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Columns | tuple):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{len(self):,} records in columns"

    @cached_property
    def groups(self) -> dict[tuple[str, float], Ints]:
        """(method, sigma) -> the positions (J,) of its records, in the order in which the first ones come."""
        sigmas, levels = np.unique(self.sigma, return_inverse=True)
        codes = self.methods * len(sigmas) + levels
        order = np.argsort(codes, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(order) else []
        parts.sort(key=lambda rows: int(rows[0]))
        return {(self.names[self.methods[rows[0]]], float(self.sigma[rows[0]])): rows for rows in parts}

    def identities(self) -> Iterator[tuple[str, float, int]]:
        """Yield method, sigma and image of each record."""
        names = map(self.names.__getitem__, self.methods.tolist())
        return zip(names, self.sigma.tolist(), self.indices.tolist(), strict=True)

    @cached_property
    def is_composed(self) -> Flags:
        """(I,) whether several bounds make the certificate."""
        return np.fromiter(map(bool, self.bounds), np.bool_, len(self))

    @property
    def samples_asked(self) -> Ints:
        """(I,) `Record.samples_asked`."""
        bounds = np.fromiter(map(len, self.bounds), np.int64, len(self))
        return np.asarray((self.n0 + self.n) * np.maximum(1, bounds))

    @cached_property
    def has_counts(self) -> Flags:
        """(I,) `Record.has_counts`."""
        return (self.selection.lengths > 0) | (self.estimation.lengths > 0)

    @cached_property
    def is_skipped(self) -> Flags:
        """(I,) `Record.is_skipped`."""
        return self.has_counts & (self.estimation.lengths == 0)

    @cached_property
    def is_correct(self) -> Flags:
        """(I,) `Record.is_correct`."""
        return (self.predict == self.label) & (self.label != ABSTAIN) & ~self.is_skipped

    @property
    def selected(self) -> Ints:
        """(I,) `Record.selected`; ABSTAIN where there are no counts."""
        return self.selection.most_frequent

    @cached_property
    def hits(self) -> Ints:
        """(I,) estimation samples that have the label."""
        return self.estimation.of(self.label)

    def _records(self) -> list[Record]:
        values: list[list[Any]] = [
            [self.names[place] for place in self.methods.tolist()],
            *(getattr(self, name).tolist() for name in ("sigma", "indices", "label", "predict", "radius")),
            self.selection.tuples(),
            self.estimation.tuples(),
            *(getattr(self, name).tolist() for name in ("n0", "n", "samples", "seconds")),
            _with_none(self.uniform, ~np.isnan(self.uniform)),
            _with_none(self.clean, self.has_clean),
            _with_none(self.certified_sigma, ~np.isnan(self.certified_sigma)),
            list(self.bounds),
        ]
        return [Record(**dict(zip(_FIELDS, one, strict=True))) for one in zip(*values, strict=True)]


_FIELDS = tuple(one.name for one in fields(Record))

_NUMBERS = {
    "sigma": np.float64,
    "index": np.int64,
    "label": np.int64,
    "predict": np.int64,
    "radius": np.float64,
    "n0": np.int64,
    "n": np.int64,
    "samples": np.int64,
    "seconds": np.float64,
}
"""Numbers that every record has."""


def _with_none(values: NDArray[Any], are_there: Flags) -> list[Any]:
    return [value if is_there else None for value, is_there in zip(values.tolist(), are_there, strict=True)]


def columns_of(records: Iterable[Record]) -> Columns:
    """Return records as columns; columns as they are."""
    if isinstance(records, Columns):
        return records
    gathered = Gathered()
    gathered.add(map(operator.attrgetter(*_FIELDS), records))
    return gathered.columns()


class Gathered:
    """Columns in the making, to which records are added block by block."""

    def __init__(self) -> None:
        """Begin without records."""
        self._names: dict[str, int] = {}
        self._parts: list[dict[str, NDArray[Any]]] = []

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add records, of each the values of its fields."""
        values = dict(zip(_FIELDS, zip(*rows, strict=True), strict=False)) or dict.fromkeys(_FIELDS, ())
        count = len(values["index"])
        for name in dict.fromkeys(values["method"]):
            self._names.setdefault(name, len(self._names))
        part: dict[str, NDArray[Any]] = {
            name: np.fromiter(values[name], kind, count) for name, kind in _NUMBERS.items()
        }
        part["indices"] = part.pop("index")
        part["methods"] = np.fromiter(map(self._names.__getitem__, values["method"]), np.int64, count)
        for name in ("uniform", "certified_sigma"):
            part[name], _ = _optional(values[name], np.nan, np.float64)
        part["clean"], part["has_clean"] = _optional(values["clean"], 0, np.int64)
        part["bounds"] = np.fromiter(values["bounds"], np.object_, count)
        for stage in ("selection", "estimation"):
            counts = values[f"counts_{stage}"]
            flat = np.fromiter(chain.from_iterable(chain.from_iterable(counts)), np.int64)
            part[f"{stage}.lengths"] = np.fromiter(map(len, counts), np.int64, count)
            part[f"{stage}.classes"], part[f"{stage}.numbers"] = flat[::2].copy(), flat[1::2].copy()
        self._parts.append(part)

    def columns(self) -> Columns:
        """Return all that was added, and keep none of it."""
        if not self._parts:
            self.add(())
        joined: dict[str, Any] = {
            name: np.concatenate([part.pop(name) for part in self._parts]) for name in list(self._parts[0])
        }
        stages: dict[str, Any] = {
            stage: Counts(
                classes=joined.pop(f"{stage}.classes"),
                numbers=joined.pop(f"{stage}.numbers"),
                starts=np.cumsum(joined[f"{stage}.lengths"]) - joined[f"{stage}.lengths"],
                lengths=joined.pop(f"{stage}.lengths"),
            )
            for stage in ("selection", "estimation")
        }
        return Columns(names=tuple(self._names), **stages, **joined)


def _optional(values: Sequence[Any], instead: float, kind: type) -> tuple[NDArray[Any], Flags]:
    """Return (I,) the values, another one instead of None, and (I,) where they are not None."""
    missing = values.count(None)
    if missing == len(values):  # as of most fields
        return np.full(missing, instead, kind), np.zeros(missing, np.bool_)
    are_there = np.fromiter((value is not None for value in values), np.bool_, len(values))
    given = (instead if value is None else value for value in values) if missing else values
    return np.fromiter(given, kind, len(values)), are_there
