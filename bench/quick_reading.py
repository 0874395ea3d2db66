"""Records of lines as this program writes them, read several times as fast as JSON; every other line is left alone."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Callable
from typing import Any

from bench.types import Record

_WHOLE = rb"-?(?:0|[1-9][0-9]{0,17})"
_NUMBER = rb"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
_PAIR = rb"\[" + _WHOLE + rb"," + _WHOLE + rb"\]"
_FORMS = {
    "str": rb'"([ !#-\[\]-~]*)"',
    "int": rb"(" + _WHOLE + rb")",
    "float": rb"(" + _NUMBER + rb")",
    "float | None": rb"(null|" + _NUMBER + rb")",
    "tuple[tuple[int, int], ...]": rb"(\[(?:" + _PAIR + rb"(?:," + _PAIR + rb")*)?\])",
}
_FIELDS = dataclasses.fields(Record)
_LINE = re.compile(
    rb'\{"kind":"certificate",'
    + rb",".join(rb'"%b":%b' % (field.name.encode(), _FORMS[str(field.type)]) for field in _FIELDS)
    + rb"\}\n"
)

_PUT = tuple(getattr(Record, field.name).__set__ for field in _FIELDS)
"""Fills a new record's fields in half the time that a frozen class's own __init__ takes."""

SHORT = 16
"""Bytes of class counts up to which they come again often enough to be kept once."""


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
        self._texts = _Once(lambda text: sys.intern(text.decode()))
        self._floats = _Once(float)
        self._integers = _Once(int)
        self._short_counts = _Once(self._pairs)

    def record(self, line: bytes) -> Record | None:
        """Return the record of a line in exactly the form that `codec.encode` gives it, else None."""
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        (
            method,
            sigma,
            index,
            label,
            predict,
            radius,
            selection,
            estimation,
            n0,
            n,
            samples,
            seconds,
            uniform,
        ) = match.groups()
        floats = (
            self._floats[sigma],
            float(radius),
            float(seconds),
            float(uniform if uniform != b"null" else 0),
        )
        if not math.isfinite(sum(floats)):
            return None
        integers, short = self._integers, self._short_counts
        values = (
            self._texts[method],
            floats[0],
            int(index),
            integers[label],
            integers[predict],
            floats[1],
            short[selection] if len(selection) <= SHORT else self._pairs(selection),
            short[estimation] if len(estimation) <= SHORT else self._pairs(estimation),
            integers[n0],
            integers[n],
            integers[samples],
            floats[2],
            None if uniform == b"null" else floats[3],
        )
        record = object.__new__(Record)
        for put, value in zip(_PUT, values, strict=True):
            put(record, value)
        return record

    def _pairs(self, text: bytes) -> tuple[tuple[int, int], ...]:
        integers, values = self._integers, text.translate(None, b"[]").split(b",")
        if values == [b""]:
            return ()
        return tuple([(integers[a], integers[b]) for a, b in zip(values[::2], values[1::2], strict=True)])
