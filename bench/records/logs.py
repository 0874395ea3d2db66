"""Published certification logs: the field's tab-separated format -> records, and back.

A log has one row per image, `idx label predict radius correct time`; abstention is class -1 with radius 0.0. It holds
no counts, so neither do the records made from it: their bounds cannot be computed again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from itertools import accumulate
from pathlib import Path

from scipy import special

from bench.config.names import IMAGE_SHAPES, NUM_CLASSES, STANDARD_STRIDE, image_shape
from bench.config.numbers import integer, number
from bench.config.run import RunConfig
from bench.config.texts import read_text
from bench.errors import RecordsError, UsageError, clipped, shown
from bench.records.meaning import ANOTHER_ALPHA
from bench.smoothing.stats import largest_radius
from bench.types import ABSTAIN, SCHEMA_VERSION, Record, RunHeader

COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")
"""Columns of a log, in the field's order; they are found by name, and others are left out."""

MOST_CLASSES, MOST_IMAGES = 1_000_000, 2**40
"""No data set has so many: a larger number in a log is damage."""

UNKNOWN = "unknown"
"""Precision and device of a log; its unknown seed is -1, and its unknown block of noise 0."""

_LAYOUTS = {5: (COLUMNS[1:], COLUMNS[:5]), 6: (COLUMNS,)}
_FULL_PRECISION = 15
_TIME = re.compile(r"(?:([0-9]{1,9}) days?, )?([0-9]{1,9}):([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]{0,30})?)")


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """One row of a log; None stands for what the log has no column for.

    Attributes:
        index: position of the image in the data set's test split.
        predict: certified class, or ABSTAIN with radius 0.0.
        radius: as written, >= 0, in pixel units.
        digits: significant digits with which the radius is written.
        correct: 0 or 1, or a running total, as written.
    """

    index: int | None
    label: int
    predict: int
    radius: float
    digits: int
    correct: int | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Log:
    """A log as it was read: the name of its file, and one row or more."""

    name: str
    rows: tuple[LogRow, ...]

    @property
    def indices(self) -> tuple[int, ...]:
        """Image indices in the order of the rows; the rows' own numbers where the log names no images."""
        return tuple(number if row.index is None else row.index for number, row in enumerate(self.rows))

    @property
    def digits(self) -> int:
        """The most significant digits with which a radius is written."""
        return max(row.digits for row in self.rows)


def read_log(path: Path, *, allows_repeats: bool = False) -> Log:
    """Return a published log, its columns found by name or, without a header line, by their shape.

    Without a header six columns or more are `COLUMNS`; five lack either the first or the last of them.

    Args:
        allows_repeats: keep images that stand in it twice.

    Raises:
        RecordsError: the file cannot be read, a row does not fit, or an image stands in it twice.
    """
    lines = _read_lines(path)
    names = tuple(name.strip().lower() for name in lines[0].split("\t"))
    if _is_number(names[0]):
        log = _read_by_shape(path, lines, len(names))
    else:
        if missing := [name for name in COLUMNS[1:4] if name not in names]:
            raise RecordsError(
                f"{path}, line 1 names no column {missing[0]!r}, expected a header such as "
                f"'{' '.join(COLUMNS)}', separated by tabs"
            )
        if twice := [name for name in COLUMNS if names.count(name) > 1]:
            raise RecordsError(
                f"{path}, line 1 names the column {twice[0]!r} twice: give one of them another name"
            )
        log = _read_by_name(path, lines[1:], names, first_line=2)
    if not allows_repeats:
        _check_unique(path, log)
    return log


def log_records(log: Log, config: RunConfig) -> tuple[Record, ...]:
    """Return the log's rows as records, without counts.

    Args:
        log: what `read_log` returned.
        config: with one method and one sigma. Every record's samples are n0 + n; its seconds are 0.0 where the log
            holds no times.
    """
    return tuple(
        Record(
            method=config.methods[0],
            sigma=config.sigmas[0],
            index=index,
            label=row.label,
            predict=row.predict,
            radius=row.radius,
            counts_selection=(),
            counts_estimation=(),
            n0=config.n0,
            n=config.n,
            samples=config.n0 + config.n,
            seconds=row.seconds or 0.0,
        )
        for index, row in zip(log.indices, log.rows, strict=True)
    )


def log_notes(log: Log, config: RunConfig) -> tuple[str, ...]:
    """Return one sentence for each thing that the reader of a table made from the log should know.

    Args:
        config: n, alpha and the first sigma are what the log is said to be made with.
    """
    origin = "it holds no counts, so no bound can be computed again"
    if log.digits < _FULL_PRECISION:
        origin += (
            f", and radii rounded to {log.digits} significant digits, which may exceed the certified ones by half a "
            "unit of the last digit"
        )
    notes = [origin, *_doubts(log, config)]
    notes += about_correct(log.rows)
    if log.rows[0].index is None:
        notes.append("it names no images: its rows are numbered from 0, which is no position in the data set")
    if log.rows[0].seconds is None:
        notes.append("it holds no times: 0 seconds stand for them")
    return tuple(f"log {log.name}: {note}." for note in notes)


def log_header(log: Log, config: RunConfig, *, command: str, git_revision: str) -> RunHeader:
    """Return the header of a run made from a log: what the log does not tell stands in it as unknown.

    Args:
        config: validated, with one method and one sigma.
        command, git_revision: of this program.

    Raises:
        UsageError: the images of the data set have no fixed shape.
    """
    if config.dataset not in IMAGE_SHAPES:
        raise UsageError(
            f"images of data set {config.dataset!r} have no fixed shape; name one of {', '.join(IMAGE_SHAPES)}"
        )
    classes = NUM_CLASSES[config.dataset]
    protocol = replace(config.protocol, seed=-1, estimation="fixed", bound="clopper-pearson")
    source = {"file": log.name, "notes": list(log_notes(log, config))}
    return RunHeader(
        schema_version=SCHEMA_VERSION,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        git_revision=git_revision,
        dataset=config.dataset,
        subset=_subset(log, config.dataset),
        indices=log.indices,
        class_names=tuple(map(str, range(classes))),
        image_shape=image_shape(config.dataset, config.image_size),
        methods=config.methods,
        sigmas=config.sigmas,
        noise_block=0,
        precision=UNKNOWN,
        device_type=UNKNOWN,
        config={},
        logs={f"{config.methods[0]}/{config.sigmas[0]:g}": source},
        checkpoints={},
        batch_sizes={},
        hardware={},
        libraries={},
        **vars(protocol),
    )


def format_log(records: Iterable[Record], digits: int | None = None) -> str:
    """Return records of one method and sigma as a log, a row per image in their order, times in seconds.

    Args:
        records: of one method and sigma.
        digits: significant digits of the radii, >= 1, rounded down: no written radius exceeds the certified one.
            None writes radii exactly.
    """
    lines = ["\t".join(COLUMNS)]
    for record in records:
        radius = repr(record.radius) if digits is None else _round_down(record.radius, digits)
        correct = int(record.is_correct)
        values = (record.index, record.label, record.certified, radius, correct, repr(record.seconds))
        lines.append("\t".join(map(str, values)))
    return "\n".join(lines) + "\n"


def parse_seconds(text: str) -> float:
    """Return a time in seconds from seconds, h:m:s, or "N days, h:m:s".

    Raises:
        ValueError: other text, or no finite time >= 0.
    """
    if match := _TIME.fullmatch(text.strip()):
        days, hours, minutes, rest = match.groups(default="0")
        return 86400.0 * int(days) + 3600.0 * int(hours) + 60.0 * int(minutes) + float(rest)
    seconds = number(text)
    if seconds < 0.0:
        raise ValueError(f"{text!r} is no time")
    return seconds


def _read_lines(path: Path) -> list[str]:
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise RecordsError(f"log {path} cannot be read ({error}): name a tab-separated text file") from error
    if not lines:
        raise RecordsError(f"log {path} is empty: name a log with one row per image")
    return lines


def _is_number(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def _read_by_shape(path: Path, lines: Sequence[str], width: int) -> Log:
    """Return the rows under the first layout of that width that fits them all."""
    failure = RecordsError(
        f"log {path} has no header and {width} columns, expected 5 or 6: add a header line that names them"
    )
    for layout in _LAYOUTS.get(min(width, 6), ()):
        try:
            return _read_by_name(path, lines, (*layout, *[""] * (width - len(layout))), first_line=1)
        except RecordsError as error:
            failure = error
    raise failure


def _read_by_name(path: Path, lines: Sequence[str], names: Sequence[str], *, first_line: int) -> Log:
    rows = [
        _read_row(line, names, f"{path}, line {number}")
        for number, line in enumerate(lines, first_line)
        if line.strip()
    ]
    if not rows:
        raise RecordsError(f"log {path} holds no image: name a log with one row per image")
    return Log(name=path.name, rows=tuple(rows))


def _read_row(line: str, names: Sequence[str], where: str) -> LogRow:
    found = line.split("\t")
    if len(found) < len(names):
        raise RecordsError(f"{where} has {len(found)} columns, expected {len(names)}: remove a cut line")
    if any(cell.strip() for cell in found[len(names) :]):
        raise RecordsError(
            f"{where} has {len(found)} columns, expected {len(names)}: name each column in the header line"
        )
    cells = dict(zip(names, found, strict=False))
    try:
        row = LogRow(
            index=integer(cells["idx"]) if "idx" in cells else None,
            label=integer(cells["label"]),
            predict=integer(cells["predict"]),
            radius=number(cells["radius"]),
            digits=len(Decimal(cells["radius"].strip()).normalize().as_tuple().digits),
            correct=integer(cells["correct"]) if "correct" in cells else None,
            seconds=parse_seconds(cells["time"]) if "time" in cells else None,
        )
    except (ValueError, ArithmeticError) as error:
        raise RecordsError(
            f"{where} is no row of a log ({clipped(str(error))}), {shown(line)}: correct or remove the line"
        ) from error
    is_class = 0 <= row.label < MOST_CLASSES and ABSTAIN <= row.predict < MOST_CLASSES
    is_image = 0 <= (row.index or 0) < MOST_IMAGES
    if not is_class or not is_image or row.radius < 0.0 or (row.predict == ABSTAIN and row.radius > 0.0):
        raise RecordsError(
            f"{where} holds {shown(line)}, expected idx >= 0, label >= 0, predict >= -1, classes below "
            f"{MOST_CLASSES:,} and radius >= 0, which is 0 where predict is -1: correct the line"
        )
    return row


def _check_unique(path: Path, log: Log) -> None:
    seen: set[int] = set()
    for index in log.indices:
        if index in seen:
            raise RecordsError(f"log {path} holds image {index} twice: keep one of its rows")
        seen.add(index)


def _least_alpha(radius: float, n: int, sigma: float) -> float:
    """Return the level at which n samples certify a radius if all agree."""
    return math.exp(n * float(special.log_ndtr(radius / sigma)))


def _doubts(log: Log, config: RunConfig) -> list[str]:
    """Return a sentence where a radius is larger than n and alpha allow, by more than its rounding; else nothing."""
    n, alpha, sigma = config.n, config.alpha, config.sigmas[0]
    largest = largest_radius(n, alpha, sigma)
    limit = max(largest * (1 + 1e-9), float(f"{largest:.{log.digits}g}"))
    above = [row.radius for row in log.rows if row.radius > limit]
    if not above:
        return []
    unit = 10.0 ** (math.floor(math.log10(max(above))) - log.digits + 1)
    needed = _least_alpha(max(above) - unit / 2, n, sigma)
    return [
        f"{ANOTHER_ALPHA} alpha = {alpha:g}: {len(above)} of {len(log.rows)} radii exceed "
        f"{largest:.4g}, the largest that n = {n} samples certify at it, and {max(above):g} needs alpha >= "
        f"{needed:.2g}"
    ]


def about_correct(rows: Sequence[LogRow]) -> list[str]:
    """Return a sentence where the column `correct` disagrees with label and class, which are what counts."""
    written = [row.correct for row in rows]
    actual = [int(row.predict == row.label) for row in rows]
    if None in written or written == actual:
        return []
    if written == list(accumulate(actual)):
        return ["its column 'correct' is a running total; correctness was taken from label and predict"]
    wrong = sum(one != other for one, other in zip(written, actual, strict=True))
    return [f"its column 'correct' is wrong in {wrong} rows; correctness was taken from label and predict"]


def _subset(log: Log, dataset: str) -> str:
    """Return "standard" for the published stride, or a beginning of it, else "log"."""
    stride = STANDARD_STRIDE.get(dataset, 0)
    is_standard = log.rows[0].index is not None and log.indices == tuple(
        stride * position for position in range(len(log.rows))
    )
    return "standard" if stride and is_standard else "log"


def _round_down(radius: float, digits: int) -> str:
    exact = Decimal(repr(radius))
    if not exact:
        return "0.0"
    return f"{exact.quantize(Decimal(1).scaleb(exact.adjusted() - digits + 1), rounding=ROUND_DOWN):f}"
