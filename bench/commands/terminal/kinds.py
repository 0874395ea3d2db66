"""Kinds of values that options take: numbers as people write them, noise levels, and paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.config.levels import check_size, noise_level
from bench.config.numbers import integer, number
from bench.config.overrides import user_path
from bench.errors import clipped, shown


def _range(kind: Any) -> str:
    """Return how help shows the range of a number: not at all where there is none."""
    return "" if kind.min is None is kind.max else click.IntRange._describe_range(kind)


class Whole(click.IntRange):
    """A whole number in decimal digits, perhaps in a range."""

    name, _describe_range = "integer", _range

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if isinstance(value, str):
            try:
                value = integer(value)
            except ValueError:
                self.fail(f"{shown(value)} is not a valid integer.", param, ctx)
        return int(super().convert(value, param, ctx))


class Real(click.FloatRange):
    """A finite decimal number, perhaps in a range."""

    name, _describe_range = "float", _range

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        if isinstance(value, str):
            try:
                value = number(value)
            except ValueError:
                self.fail(f"{clipped(value)} is not a finite number.", param, ctx)
        return float(super().convert(value, param, ctx))


class NoiseLevel(Real):
    """A noise level in pixel units, at least 0."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; a fraction such as 64/255 is one."""
        given = noise_level(value) if isinstance(value, str) else value
        number = super().convert(given, param, ctx)
        check_size(number)
        return float(number)


class UserPath(click.Path):
    """The path of a file or folder; "~" at its beginning is a home folder."""

    def __init__(self, *, exists: bool = False, dir_okay: bool = True) -> None:
        super().__init__(path_type=Path, exists=exists, dir_okay=dir_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        if not str(value):
            self.fail("the path is empty: name a file or folder.", param, ctx)
        try:
            return Path(super().convert(user_path(value), param, ctx))  # type: ignore[arg-type]
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
