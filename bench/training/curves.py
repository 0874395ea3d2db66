"""Curves of a training: one CSV line per look at the held-out images, in `<workspace>/<stage>.csv`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from bench.config.numbers import integer, number
from bench.config.texts import read_text
from bench.errors import RecordsError, clipped, shown
from bench.records.disk import append_whole, open_to_write


@dataclass(frozen=True, kw_only=True)
class Look:
    """One line of the curves.

    Attributes:
        stage: name of the trained part.
        step: steps done.
        loss: mean over the steps since the last look; None where there was none.
        score: held-out value of the averaged weights, such as accuracy under noise in [0,1]; None: not measured.
        learning_rate: base rate of the last step.
        seconds: wall time since the training began, interruptions left out.
        images: training images seen, repetitions counted.
        waiting: share in [0,1] of the last steps' time in which the training waited for images; see
            `bench.training.batches`.
    """

    stage: str
    step: int
    loss: float | None
    score: float | None
    learning_rate: float
    seconds: float
    images: int
    waiting: float


HEADER = tuple(field.name for field in fields(Look))


def append(path: Path, look: Look) -> None:
    """Add one line to the file, which begins with the header.

    Raises:
        OSError: it cannot be written whole; the lines before it are kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_to_write(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        values = ["" if value is None else value for value in astuple(look)]
        rows = [values] if os.fstat(descriptor).st_size else [HEADER, values]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        append_whole(descriptor, text.getvalue().encode())
    finally:
        os.close(descriptor)


def keep_until(path: Path, step: int) -> None:
    """Drop the looks after `step`, and a line that was cut off: what a killed run wrote and its resumption repeats."""
    if not path.exists():
        return
    kept = [look for look in _readable(path) if look.step <= step]
    temporary = path.with_suffix(".csv.tmp")
    temporary.unlink(missing_ok=True)
    for look in kept:
        append(temporary, look)
    if kept:
        os.replace(temporary, path)
    else:
        path.unlink()


def read(path: Path) -> tuple[Look, ...]:
    """Return the looks in a file, in order.

    Raises:
        RecordsError: the file is missing, has another header, or a line that is no look.
    """
    rows = _rows(path)
    try:
        return tuple(map(_look, rows))
    except ValueError as error:
        raise RecordsError(
            f"{path} has a line that is no look ({clipped(str(error), 200)}): remove that line."
        ) from error


def _readable(path: Path) -> Iterable[Look]:
    """Yield the looks up to the first line that is none; none where a full disk left a part of the header alone."""
    for row in _rows(path, may_be_cut=True):
        try:
            yield _look(row)
        except ValueError:
            return


def _rows(path: Path, *, may_be_cut: bool = False) -> list[list[str]]:
    """Return the rows below the header: none where the file may be cut and ends within it."""
    if not path.is_file():
        raise RecordsError(f"No curves at {path}: name a CSV file that `bench train` wrote.")
    try:
        text = read_text(path)
        header, *rows = list(csv.reader(text.splitlines(keepends=True))) or [[]]
    except (OSError, csv.Error) as error:
        raise RecordsError(f"{path} cannot be read ({error}): name curves of `bench train`.") from error
    if may_be_cut and not rows and ",".join(HEADER).startswith(text.rstrip("\n")):
        return []
    if tuple(header) != HEADER:
        raise RecordsError(
            f"{path} begins with {shown(','.join(header))}, expected {','.join(HEADER)!r}: name curves of "
            "`bench train`."
        )
    return rows


def _look(row: list[str]) -> Look:
    if len(row) != len(HEADER):
        raise ValueError(f"{len(row)} values instead of {len(HEADER)}")
    stage, step, loss, score, rate, seconds, images, waiting = row
    return Look(
        stage=stage,
        step=_count(step),
        loss=number(loss) if loss else None,
        score=number(score) if score else None,
        learning_rate=number(rate),
        seconds=number(seconds),
        images=_count(images),
        waiting=number(waiting),
    )


def _count(text: str) -> int:
    value = integer(text)
    if not 0 <= value < 2**53:
        raise ValueError(f"{text!r} is no number of steps or images")
    return value
