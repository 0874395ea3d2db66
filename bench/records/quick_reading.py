"""Records of lines as this program writes them, read several times as fast as JSON; every other line is left alone."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from typing import Any

from bench.types import Record

_WHOLE = rb"(?:0|-?+[1-9][0-9]{0,17}+)"  # what is matched once is never given back, which is a quarter faster
_NUMBER = (
    rb"-?+(?:0|[1-9][0-9]{0,17}+)(?:\.[0-9]++)?+(?:[eE][-+]?+[0-9]{1,2})?+"  # too few digits to be infinite
)
_PAIR = rb"\[" + _WHOLE + rb"," + _WHOLE + rb"\]"
_FORMS = {
    "str": rb'"[ !#-\[\]-~]*+"',
    "int": _WHOLE,
    "float": _NUMBER,
    "float | None": rb"null|" + _NUMBER,
    "tuple[tuple[int, int], ...]": rb"\[(?:" + _PAIR + rb"(?:," + _PAIR + rb")*+)?+\]",
}


def _field(name: str) -> bytes:
    """Return the pattern of a field's name and value, the value being a group."""
    return rb'"%b":(%b)' % (name.encode(), _FORMS[str(_TYPES[name])])


def _alike(*names: str) -> bytes:
    """Return the pattern of fields that many lines share, one group for all of them."""
    fields = (rb'"%b":(?:%b)' % (name.encode(), _FORMS[str(_TYPES[name])]) for name in names)
    return rb"(" + rb",".join(fields) + rb")"


_TYPES = {field.name: field.type for field in dataclasses.fields(Record)}
_LINE = re.compile(
    rb'^\{"kind":"certificate",'
    + rb",".join(
        (
            _alike("method", "sigma"),
            *map(_field, ("index", "label", "predict", "radius", "counts_selection", "counts_estimation")),
            _alike("n0", "n", "samples"),
            *map(_field, ("seconds", "uniform")),
        )
    )
    + rb"\}\n",
    re.MULTILINE,
)

SHORT = 16
"""Bytes of class counts up to which they come again often enough to be kept once."""


class _Open:
    """A record whose fields can still be set: a fifth of the time that a frozen class's own __init__ takes."""

    __slots__ = tuple(_TYPES)


class _Once(dict[bytes, Any]):
    """Values by their text, converted when first asked for: equal ones are one object in memory."""

    def __init__(self, convert: Callable[[bytes], Any]) -> None:
        self._convert = convert

    def __missing__(self, text: bytes) -> Any:
        value = self[text] = self._convert(text)
        return value


class QuickReader:
    """Reads the lines of one file; it keeps values that come again, such as names and counts, once."""

    def __init__(self) -> None:
        self._curves = _Once(_curve)
        self._sizes = _Once(lambda text: tuple(_values(text)))
        self._integers = _Once(int)
        self._short_counts = _Once(self._pairs)

    def records(self, block: bytes) -> list[Record] | None:
        """Return the records of whole lines, each in exactly the form that `codec.encode` gives it, else None."""
        found = _LINE.findall(block)
        if len(found) != block.count(b"\n"):
            return None
        curves, sizes, integers = self._curves, self._sizes, self._integers
        short, pairs = self._short_counts, self._pairs
        records: list[Any] = [_Open() for _ in found]
        for record, fields in zip(records, found, strict=True):
            curve, index, label, predict, radius, selection, estimation, size, seconds, uniform = fields
            record.method, record.sigma = curves[curve]
            record.index, record.label, record.predict = integers[index], integers[label], integers[predict]
            record.radius, record.seconds = float(radius), float(seconds)
            record.counts_selection = short[selection] if len(selection) <= SHORT else pairs(selection)
            record.counts_estimation = short[estimation] if len(estimation) <= SHORT else pairs(estimation)
            record.n0, record.n, record.samples = sizes[size]
            record.uniform = None if uniform == b"null" else float(uniform)
            record.__class__ = Record  # of the same slots
        return records

    def _pairs(self, text: bytes) -> tuple[tuple[int, int], ...]:
        if text == b"[]":
            return ()
        numbers = map(self._integers.__getitem__, text.translate(None, b"[]").split(b","))
        return tuple(zip(numbers, numbers, strict=False))  # in pairs by the pattern; a check takes time


def _values(text: bytes) -> list[Any]:
    return list(json.loads(b"{" + text + b"}").values())


def _curve(text: bytes) -> tuple[str, float]:
    method, sigma = _values(text)
    return sys.intern(method), float(sigma)
