"""Dataclasses <-> lines of JSON: every number at full precision, strict about fields and their types."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, get_type_hints

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.errors import RecordsError
from bench.records.columns import Columns, Gathered
from bench.types import SCHEMA_VERSION, CostRecord, Record, RunHeader

PROGRAM = "rrcm-bench"
"""Name of this program as installed, and of its version among a header's libraries."""

HeaderT = TypeVar("HeaderT")
ItemT = TypeVar("ItemT")

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True, kw_only=True)
class Codec(Generic[HeaderT, ItemT]):
    """What the lines of one sort of file hold.

    Attributes:
        header: kind and dataclass of the first line.
        items: kind -> dataclass of the others, whose fields with a default may be missing.
        versions: the header's `schema_version`s that are read, ascending.
        added: fields that the headers of older files lack; no other may be missing.
        renamed: field -> values in the headers of older versions -> what these are called now.
        in_config: fields of the header that are kept inside its `config` in the file, where they are not empty.
        left_out: fields of items that a line lacks where they have their default.
        remedy: how a file that cannot be written or continued is left alone, for messages.
        instead: what else than to wait may be done while another process writes to the file, for messages.
    """

    header: tuple[str, type[HeaderT]]
    items: Mapping[str, type[ItemT]]
    versions: tuple[int, ...]
    added: tuple[str, ...] = ()
    renamed: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    in_config: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    remedy: str = "give another --out"
    instead: str = "give another --out"

    def encode(self, item: HeaderT | ItemT) -> bytes:
        """Return the line of a header or an item.

        Raises:
            RecordsError: the line could not be read again: a number is NaN, infinite or an integer beyond 64 bits, a
                text holds half of a character, or a field is of another type.
        """
        kind = next(kind for kind, cls in (self.header, *self.items.items()) if cls is type(item))
        values: dict[str, Any] = {"kind": kind} | {name: getattr(item, name) for name in _names(type(item))}
        for name in self.left_out:
            if values.get(name) in (None, ()):
                values.pop(name, None)
        if (is_header := kind == self.header[0]) and self.in_config:
            inner = {name: values.pop(name) for name in self.in_config}
            values["config"] = values["config"] | {name: value for name, value in inner.items() if value}
        try:
            line = (
                json.dumps(values, allow_nan=False, separators=(",", ":"), default=dataclasses.asdict) + "\n"
            ).encode()
            if is_header:
                self._typed_header(msgspec.json.decode(line))
            else:
                self._decoder.decode(line)
        except (ValueError, *_REFUSALS) as error:
            shown = {name: values[name] for name in ("method", "sigma", "index") if name in values}
            raise RecordsError(
                f"a {kind} cannot be stored ({error}){f': {shown}' if shown else ''}; repeat the command, and report "
                "it if it fails again"
            ) from error
        return line

    def decode_header(self, line: bytes, path: Path) -> HeaderT:
        """Return the header of a file's first line.

        Raises:
            RecordsError: another version of bench wrote it, it is not valid JSON, or a field is missing, unknown or
                of another type.
        """
        where = f"{path}, line 1"
        try:
            values = msgspec.json.decode(line)
            if isinstance(values, dict):
                self._check_version(values, where)
                self._rename(values)
            found = self._typed_header(values)
        except _REFUSALS as error:
            raise _refusal(where, error, "delete it and start anew") from error
        return msgspec.convert(found, self.header[1], from_attributes=True)

    def decode_all(self, blocks: Iterable[Sequence[bytes]], path: Path) -> Sequence[ItemT]:
        """Return the items of all lines after the header, which come block by block.

        Raises:
            RecordsError: a line is not valid JSON, or a field is missing, unknown or of another type.
        """
        return list(itertools.chain.from_iterable(map(self._items, self._numbered(blocks, path))))

    def _numbered(self, blocks: Iterable[Sequence[bytes]], path: Path) -> Iterator[list[msgspec.Struct]]:
        first = 2
        for block in blocks:
            yield self._decoded(block, path, first)
            first += len(block)

    def _decoded(self, lines: Sequence[bytes], path: Path, first: int) -> list[msgspec.Struct]:
        found: list[msgspec.Struct] = []
        try:
            found.extend(map(self._decoder.decode, lines))
        except _REFUSALS as error:
            number = first + len(found)
            raise _refusal(f"{path}, line {number}", error, f"remove line {number} alone") from error
        return found

    def _items(self, found: Sequence[msgspec.Struct]) -> list[ItemT]:
        items: list[ItemT] = []
        for struct, alike in itertools.groupby(found, type):
            cls = self._classes[struct]
            items += msgspec.convert(list(alike), list[cls], from_attributes=True)  # type: ignore[valid-type]
        return items

    def _typed_header(self, values: Any) -> msgspec.Struct:
        if isinstance(values, dict) and isinstance(config := values.get("config"), dict):
            values |= {name: config.pop(name) for name in self.in_config if name in config}
        return msgspec.convert(values, self._header)

    def _check_version(self, values: Mapping[str, Any], where: str) -> None:
        version = values.get("schema_version")
        if version in self.versions or not isinstance(version, int):
            return
        libraries = values.get("libraries")
        writer = libraries.get(PROGRAM) if isinstance(libraries, dict) else None
        raise RecordsError(
            f"{where}: schema version {version} was written by "
            f"{'a newer' if version > self.versions[-1] else 'an older'} version of bench, and this one reads "
            f"{' and '.join(map(str, self.versions))}: install "
            f"{f'{PROGRAM} {writer}' if isinstance(writer, str) else 'that version'}"
        )

    def _rename(self, values: dict[str, Any]) -> None:
        if values.get("schema_version") != self.versions[-1]:
            for name, names in self.renamed.items():
                if isinstance(value := values.get(name), str):
                    values[name] = names.get(value, value)

    @functools.cached_property
    def _header(self) -> type[msgspec.Struct]:
        return _struct(*self.header, self.added)

    @functools.cached_property
    def _classes(self) -> dict[type[msgspec.Struct], type[ItemT]]:
        """Struct of each kind -> its dataclass."""
        return {_struct(kind, cls): cls for kind, cls in self.items.items()}

    @functools.cached_property
    def _decoder(self) -> msgspec.json.Decoder[msgspec.Struct]:
        union: Any = functools.reduce(operator.or_, self._classes)
        return msgspec.json.Decoder(union)


def is_json(line: bytes) -> bool:
    """Return whether a line is valid JSON, of whatever form; numbers may be too large to be read."""
    try:
        msgspec.json.decode(line)
    except _REFUSALS as error:
        return isinstance(error, msgspec.ValidationError)
    return True


_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _refusal(where: str, error: Exception, otherwise: str) -> RecordsError:
    return RecordsError(f"{where} cannot be read ({error}): restore the file, or {otherwise}")


def _names(cls: Any) -> tuple[str, ...]:
    return tuple(one.name for one in dataclasses.fields(cls))


def _struct(kind: str, cls: Any, may_be_missing: tuple[str, ...] | None = None) -> type[msgspec.Struct]:
    """Return the dataclass as msgspec's own type, which knows its kind and refuses unknown fields.

    Args:
        may_be_missing: fields whose default is used where a line lacks them; None: all that have one.
    """
    hints = get_type_hints(cls, localns={"int": _Int64}, include_extras=True)  # arrays hold no larger one
    given = [
        (one.name, hints[one.name], _default(one))
        if may_be_missing is None or one.name in may_be_missing
        else (one.name, hints[one.name])
        for one in dataclasses.fields(cls)
    ]
    return msgspec.defstruct(
        cls.__name__, given, kw_only=True, tag_field="kind", tag=kind, forbid_unknown_fields=True, gc=False
    )


def _default(one: dataclasses.Field[Any]) -> Any:
    if one.default_factory is not MISSING:
        return msgspec.field(default_factory=one.default_factory)
    return msgspec.field() if one.default is MISSING else one.default


@dataclass(frozen=True, kw_only=True)
class RunLines(Sequence[Record | CostRecord]):
    """What the lines of a run's file hold after the header, in their order.

    Attributes:
        records: its certificates.
        costs: each with its position among all lines.
    """

    records: Columns
    costs: tuple[tuple[int, CostRecord], ...] = ()

    def __len__(self) -> int:
        return len(self.records) + len(self.costs)

    def __getitem__(self, place: Any) -> Any:
        return list(self)[place]

    def __iter__(self) -> Iterator[Record | CostRecord]:
        return (item for _, _, item in self.some(np.arange(len(self.records))))

    def some(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, int, Record | CostRecord]]:
        """Yield the costs and some of the records, in the order of the lines: position among all, row, item.

        Args:
            rows: (J,) of the records, ascending; the row of a cost is -1.
        """
        places = np.delete(np.arange(len(self)), [place for place, _ in self.costs])[rows]
        costs = iter(self.costs)
        cost = next(costs, None)
        for place, row, record in zip(places.tolist(), rows.tolist(), self.records.take(rows), strict=True):
            while cost is not None and cost[0] < place:
                yield cost[0], -1, cost[1]
                cost = next(costs, None)
            yield place, row, record
        while cost is not None:
            yield cost[0], -1, cost[1]
            cost = next(costs, None)


class RunCodec(Codec[RunHeader, Record | CostRecord]):
    """What the lines of a run hold: its records are columns from the first."""

    def decode_all(self, blocks: Iterable[Sequence[bytes]], path: Path) -> RunLines:
        """Return the lines of all blocks; see `Codec.decode_all`."""
        gathered, costs, first = Gathered(), list[tuple[int, CostRecord]](), 0
        [of_cost] = (struct for struct, cls in self._classes.items() if cls is CostRecord)
        for block in self._numbered(blocks, path):
            records = block
            if of_cost in set(map(type, block)):
                places = [place for place, one in enumerate(block) if type(one) is of_cost]
                some = [block[place] for place in places]
                found = msgspec.convert(some, list[CostRecord], from_attributes=True)
                costs += zip((first + place for place in places), found, strict=True)
                records = [one for one in block if type(one) is not of_cost]
            gathered.add(map(msgspec.structs.astuple, records))
            first += len(block)
        return RunLines(records=gathered.columns(), costs=tuple(costs))


RUN = RunCodec(
    header=("header", RunHeader),
    items={"certificate": Record, "cost": CostRecord},
    versions=(1, SCHEMA_VERSION),
    added=(
        "estimation",
        "drawn_n",
        "drawn_alpha",
        "image_digest",
        "logs",
        "noise_version",
        "image_geometry",
        "weights",
        "unfinished",
        "training",
    ),
    renamed={"estimation": {"sequential": "confidence-sequence"}},
    in_config=(
        "drawn_n",
        "drawn_alpha",
        "image_digest",
        "logs",
        "image_geometry",
        "weights",
        "unfinished",
        "training",
    ),
    left_out=("certified_sigma", "bounds"),
)
"""Lines of a run's records."""
