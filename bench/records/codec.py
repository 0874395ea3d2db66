"""Lines of a records file: JSON with every number at full precision, strict about fields and their types."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from bench.errors import RecordsError
from bench.types import SCHEMA_VERSION, CostRecord, Record, RunHeader

PROGRAM = "rrcm-bench"
"""Name of this program as installed, and of its version among a header's libraries."""

_KINDS: dict[str, type] = {"header": RunHeader, "certificate": Record, "cost": CostRecord}

T = TypeVar("T")


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


@functools.cache
def _optional(cls: Any) -> frozenset[str]:
    fields = dataclasses.fields(cls)
    missing = dataclasses.MISSING
    return frozenset(one.name for one in fields if (one.default, one.default_factory) != (missing, missing))


_IN_CONFIG = ("drawn_n", "logs")
"""Fields of a header that are kept inside its config in the file, where they are not empty."""

_ADDED = ("estimation", *_IN_CONFIG)
"""Fields that the headers of older files lack."""


def encode(item: RunHeader | Record | CostRecord) -> bytes:
    """Return the item's line; see `encode_item`."""
    return encode_item(item, _KINDS)


def encode_item(item: Any, kinds: Mapping[str, type]) -> bytes:
    """Return the line of a dataclass, with the kind that its type has in `kinds`.

    Raises:
        RecordsError: a number is NaN or infinite.
    """
    kind = next(name for name, cls in kinds.items() if cls is type(item))
    values = {"kind": kind} | _to_json(item)
    if isinstance(item, RunHeader):
        inner = {name: values.pop(name) for name in _IN_CONFIG}
        values["config"] = values["config"] | {name: value for name, value in inner.items() if value}
    try:
        return (json.dumps(values, allow_nan=False, separators=(",", ":")) + "\n").encode()
    except ValueError as error:
        raise RecordsError(f"a {kind} with NaN or infinity cannot be stored: {values}") from error


def decode_item(line: bytes, kinds: Mapping[str, type], where: str) -> Any:
    """Return the dataclass of a line, of the type that its kind has in `kinds`; `where` begins the messages.

    Raises:
        RecordsError: the line is not valid JSON, or a field is missing, unknown or of another type.
    """
    values = _decode_object(line, where)
    inner = _without_kind(values, tuple(kinds), where)
    return _from_json(kinds[values["kind"]], inner, where)


def decode_header(line: bytes, where: str) -> RunHeader:
    """Return the header of a file's first line; `where` begins the messages.

    Raises:
        RecordsError: another version of bench wrote it, or it is not a header.
    """
    values = _decode_object(line, where)
    version = values.get("schema_version")
    if isinstance(version, int) and version != SCHEMA_VERSION:
        age = "a newer" if version > SCHEMA_VERSION else "an older"
        libraries = values.get("libraries")
        writer = libraries.get(PROGRAM) if isinstance(libraries, dict) else None
        remedy = f"{PROGRAM} {writer}" if isinstance(writer, str) else "that version"
        raise RecordsError(
            f"{where}: schema version {version} was written by {age} version of bench, and this one reads "
            f"{SCHEMA_VERSION}: install {remedy}"
        )
    values = _without_kind(values, ("header",), where)
    for field in dataclasses.fields(RunHeader):
        if field.name not in (*values, *_ADDED):
            raise RecordsError(f"{where}: missing field {field.name!r}")
    if isinstance(config := values["config"], dict):
        values |= {name: config.pop(name) for name in _IN_CONFIG if name in config}
    return _from_json(RunHeader, values, where)


def decode(line: bytes, where: str) -> Record | CostRecord:
    """Return the record of a line after the first; `where` begins the messages.

    Raises:
        RecordsError: the line is not valid JSON, or a field is missing, unknown or of another type.
    """
    return decode_item(line, {"certificate": Record, "cost": CostRecord}, where)


def _decode_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        values = loads(line)
    except ValueError as error:
        raise RecordsError(f"{where} is not valid JSON ({error}): restore the file, or start anew") from error
    if not isinstance(values, dict):
        raise RecordsError(f"{where} must be a JSON object, got {values!r}")
    return values


def _without_kind(values: dict[str, Any], kinds: tuple[str, ...], where: str) -> dict[str, Any]:
    if values.get("kind") not in kinds:
        raise RecordsError(f"{where}, field kind must be {' or '.join(kinds)}, got {values.get('kind')!r}")
    return {name: value for name, value in values.items() if name != "kind"}


def loads(line: bytes) -> Any:
    """Return the JSON value of a line.

    Raises:
        ValueError: it is not JSON, holds NaN or infinity, or text that cannot be written.
    """
    try:
        value = _DECODER.decode(line.decode())
        if b"\\u" in line:  # half of a surrogate pair would fail wherever it is printed
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _to_json(item: Any) -> dict[str, Any]:
    return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}


def _from_json(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Return the dataclass with these fields, each of its declared type; those with a default may be missing."""
    hints, optional = _hints(cls), _optional(cls)  # type: ignore[arg-type]
    for name in values.keys() - hints.keys():
        raise RecordsError(f"{where}: unknown field {name!r}")
    for name in hints.keys() - values.keys() - optional:
        raise RecordsError(f"{where}: missing field {name!r}")
    return cls(
        **{name: _typed(hints[name], value, f"{where}, field {name}") for name, value in values.items()}
    )


def _typed(hint: Any, value: Any, where: str) -> Any:
    """Return a JSON value as the type of `hint`: a scalar, X | None, tuple, dict or Any."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or (value is None and NoneType in inner):
        return value
    if origin is UnionType:
        return _typed(inner[0], value, where)
    if origin is tuple and isinstance(value, list):
        inner = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(inner) == len(value):
            return tuple(map(_typed, inner, value, [where] * len(value)))
    if origin is Literal and value in inner:
        return value
    if origin is dict and isinstance(value, dict):
        return {name: _typed(inner[1], item, where) for name, item in value.items()}
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint is not float and type(value) is hint:
        return value
    name = hint.__name__ if origin is None else hint
    raise RecordsError(f"{where} must be {name}, got {value!r}")
