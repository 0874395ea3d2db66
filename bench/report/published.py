"""Published numbers: `results/published/*.csv` -> frozen rows, by data set; each row names its source."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from bench.config.numbers import integer, number
from bench.config.texts import read_text
from bench.errors import RecordsError, shown

CLAIMS = "claims"
"""Name, without suffix, of the file of claims; the others are named after their data sets."""

NOT_AVAILABLE = "not available"
"""Kind of a claim that stands for numbers which could not be read."""


@dataclass(frozen=True, kw_only=True)
class PublishedNumber:
    """One published certified accuracy; None or "" stands for what the source does not tell.

    Attributes:
        method: the registry's name where the method is one of ours.
        variant: what tells it from other rows of the same method and paper.
        paper: authors and year of the paper that the number was published with.
        table: where in the source it stands: a table, a log, the abstract.
        sigma: noise level in pixel units; None where each radius has its best one.
        radius: L2, pixel units, >= 0.
        certified_accuracy: share of the images, in [0,1].
        acr: average certified radius at this sigma.
        images: how many were certified; subset: "all" of the test split, or a name of ours for a part of it.
        seconds_per_image: median time of one certificate, on the authors' device.
        kind: how the number was obtained: read in a source, or recomputed from a published log.
    """

    method: str
    variant: str
    paper: str
    table: str
    dataset: str
    architecture: str
    sigma: float | None
    radius: float
    certified_accuracy: float
    acr: float | None
    abstention: float | None
    images: int | None
    subset: str
    n0: int | None
    n: int | None
    alpha: float | None
    seconds_per_image: float | None
    kind: str
    source: str

    @property
    def series(self) -> tuple[str, str, str, float | None]:
        """What the numbers of one curve share."""
        return self.method, self.paper, self.variant, self.sigma


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One published statement of a cost or a gain, in numbers that no table here measures.

    With the kind `NOT_AVAILABLE` it says which published numbers are not here, and why.
    """

    method: str
    paper: str
    dataset: str
    quantity: str
    value: str
    unit: str
    kind: str
    source: str

    @property
    def is_of_abstract(self) -> bool:
        """Whether it rests on a sentence of an abstract alone, and on no cell of a table or log."""
        return self.kind == "claimed in the abstract"


_IS_SHARE, _IS_COUNT, _IS_LENGTH = (
    (lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    (lambda value: value >= 1, "1 or more"),
    (lambda value: value >= 0, "0 or more"),
)

RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = MappingProxyType(
    {
        "sigma": (lambda value: value > 0, "a number above 0"),
        "radius": _IS_LENGTH,
        "certified_accuracy": _IS_SHARE,
        "acr": _IS_LENGTH,
        "abstention": _IS_SHARE,
        "images": _IS_COUNT,
        "n0": _IS_COUNT,
        "n": _IS_COUNT,
        "alpha": (lambda value: 0 < value < 1, "a number between 0 and 1"),
        "seconds_per_image": _IS_LENGTH,
    }
)
"""Columns of `PublishedNumber` that are numbers: whether a value may be, and what is expected, in words."""

Row = TypeVar("Row", PublishedNumber, Claim)


def default_folder() -> Path:
    """Return the folder of the numbers that come with the program: inside the package, or beside it in a checkout."""
    package = Path(str(resources.files("bench")))
    inside = package / "published_numbers"
    return inside if inside.is_dir() else package.parent / "results" / "published"


def published_numbers(dataset: str, folder: Path | None = None) -> tuple[PublishedNumber, ...]:
    """Return the published numbers of a data set in the order of its file; none where it has no file.

    Args:
        dataset: a data set's name, which is the file's.
        folder: of the files; None: `default_folder`.

    Raises:
        RecordsError: a row that does not fit; the message names file, line and column.
    """
    path = (folder or default_folder()) / f"{dataset}.csv"
    rows = _read(path, PublishedNumber)
    if other := next((row.dataset for row in rows if row.dataset != dataset), None):
        raise RecordsError(f"{path} holds a row of {shown(other)}: move it to that data set's file")
    return rows


def claims(dataset: str, folder: Path | None = None) -> tuple[Claim, ...]:
    """Return the claims about a data set; args and errors as in `published_numbers`."""
    rows = _read((folder or default_folder()) / f"{CLAIMS}.csv", Claim)
    return tuple(row for row in rows if row.dataset == dataset)


def _read(path: Path, cls: type[Row]) -> tuple[Row, ...]:
    if not path.is_file():
        return ()
    names = [field.name for field in dataclasses.fields(cls)]
    try:
        reader = csv.DictReader(read_text(path).splitlines(keepends=True))
        if list(reader.fieldnames or ()) != names:
            raise RecordsError(f"{path}, line 1 must be {','.join(names)}: restore the file")
        return tuple(_row(cls, cells, f"{path}, line {reader.line_num}") for cells in reader)
    except (OSError, csv.Error) as error:
        raise RecordsError(f"{path} cannot be read ({error}): restore the file") from error


def _row(cls: type[Row], cells: dict[Any, Any], where: str) -> Row:
    if None in cells or None in cells.values():
        raise RecordsError(f"{where} has another number of columns than line 1: restore the file")
    hints = get_type_hints(cls)
    row = {name: _value(hints[name], text, f"{where}, column {name}") for name, text in cells.items()}
    for name, (is_in_range, expected) in RANGES.items():
        if cls is PublishedNumber and row[name] is not None and not is_in_range(row[name]):
            raise RecordsError(
                f"{where}, column {name} is {row[name]}, expected {expected}: restore the file"
            )
    return cls(**row)


def _value(hint: Any, text: str, where: str) -> Any:
    """Return text as str, float, int, or one of these or None, which is empty."""
    if hint is str:
        return text
    is_optional = hint not in (int, float)
    if is_optional and not text:
        return None
    is_whole = hint in (int, int | None)
    try:
        return integer(text) if is_whole else number(text)
    except ValueError as error:
        kind = "int" if is_whole else "float"
        raise RecordsError(f"{where} is {shown(text)}, expected {kind}: restore the file") from error
