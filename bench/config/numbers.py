"""Texts -> numbers, more strictly than Python: ASCII digits without underscores, finite, and of a bounded length."""

from __future__ import annotations

import math
import re

LONGEST = 400
"""Characters of a number, at most: more than any that means something has."""

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def integer(text: str) -> int:
    """Return the whole number that a text is, blanks around it aside.

    Raises:
        ValueError: it is none, or is longer than LONGEST.
    """
    return int(_plain(text, _INTEGER, "whole number"))


def number(text: str) -> float:
    """Return the finite number that a text is, blanks around it aside.

    Raises:
        ValueError: it is none, is beyond float64, or is longer than LONGEST.
    """
    value = float(_plain(text, _NUMBER, "number"))
    if not math.isfinite(value):
        raise ValueError(f"{text.strip()!r} is beyond the largest number")
    return value


def _plain(text: str, pattern: re.Pattern[str], kind: str) -> str:
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} characters are no {kind}")
    stripped = text.strip()
    if pattern.fullmatch(stripped) is None:
        raise ValueError(f"{stripped!r} is no {kind}")
    return stripped
