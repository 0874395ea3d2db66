"""Parquet files as Hugging Face spreads data sets: which files are a split, and what is in their columns.

Splits are told by the names of files or folders, columns by the features in the schema or by the usual names.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from bench.errors import DataError, clipped

SPLIT_WORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
"""Split -> the words, between other characters than letters, by which a file or its folder tells it."""

PART = re.compile(r"-(\d{1,9})-of-(\d{1,9})\b")
"""Where a file's name tells its place among the files of a split."""

IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "fine_label", "labels")
"""Names of columns, the first of which counts."""

SHOWN_COLUMNS = 8
"""Columns that a message lists."""

INSTALL = "pip install 'rrcm-bench[datasets]'"


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of one split, over all its files; pictures stay on the disk.

    Attributes:
        files: in the order of their names.
        image: column of the pictures.
        labels: (N,) int64, as they are in the files.
        classes: their names, () where the files do not hold them.
        groups: (file, row group, its first row) of each row group, by ascending row.
    """

    files: tuple[Path, ...]
    image: str
    labels: np.ndarray
    classes: tuple[str, ...]
    groups: tuple[tuple[Path, int, int], ...]

    def place(self, row: int) -> tuple[int, str]:
        """Return the number of the row group that holds a row, and the row as messages name it."""
        group = bisect_right(self._starts, row, hi=len(self.groups)) - 1
        path = self.groups[group][0]
        return group, f"row {row - self._first_rows[path]} of {path}"

    def rows(self, group: int) -> range:
        """Return the rows of a row group."""
        return range(self._starts[group], self._starts[group + 1])

    def column(self, group: int) -> Any:
        """Return the pictures of a row group, an array of pyarrow's.

        Raises:
            DataError: the file cannot be read.
        """
        path, of_file, _ = self.groups[group]
        with reading(path):
            found = opened_by_pyarrow(path).read_row_group(of_file, columns=[self.image]).column(0)
            _check_length(len(found), len(self.rows(group)))
            return found

    @cached_property
    def _starts(self) -> list[int]:
        return [*(first for *_, first in self.groups), len(self.labels)]

    @cached_property
    def _first_rows(self) -> dict[Path, int]:
        return {path: first for path, _, first in reversed(self.groups)}


def split_files(root: Path, dataset: str, split: str) -> tuple[Path, ...]:
    """Return the parquet files of a split, in `root` or in its folders, by name; () where there are none.

    Without test files the validation files are the test split; of imagenet, whose test files have no labels, always.

    Raises:
        DataError: several folders hold some, or files are missing between the first and the last part.
    """
    found: dict[str, list[Path]] = {}
    for path in _parquet_files(root):
        if (word := split_word(path.relative_to(root))) is not None:
            found.setdefault(word, []).append(path)
    files = next((found[word] for word in words_of(dataset, split) if word in found), [])
    folders = sorted({path.parent for path in files})
    if len(folders) > 1:
        raise DataError(
            f"{root} holds {split} files in {len(folders)} folders ({folders[0].name}, {folders[1].name}): name one of "
            "them with --data-dir"
        )
    _check_parts(files)
    return tuple(files)


def has_files(root: Path) -> bool:
    """Return whether a folder, or a folder in it, holds parquet files."""
    return next(_parquet_files(root), None) is not None


def words_of(dataset: str, split: str) -> tuple[str, ...]:
    """Return the keys of SPLIT_WORDS that a split of a data set may have, the first one first."""
    if split == "train":
        return ("train",)
    return ("validation",) if dataset == "imagenet" else ("test", "validation")


def split_word(path: PurePath) -> str | None:
    """Return "train", "test" or "validation" as a file's name tells, or else its folder's; None where none does."""
    for part in reversed(path.parts):
        for token in re.split(r"[^a-z]+", part.lower()):
            for word, spellings in SPLIT_WORDS.items():
                if token in spellings:
                    return word
    return None


def read_table(files: Sequence[Path], dataset: str) -> Table:
    """Return the table of a split's files; each is opened, and its labels are read.

    Raises:
        DataError: pyarrow is missing, a file cannot be read, it lacks a column, or has other classes than the first.
    """
    groups: list[tuple[Path, int, int]] = []
    labels: list[np.ndarray] = []
    columns: list[tuple[str, str, tuple[str, ...]]] = []
    rows = 0
    for path in files:
        with reading(path):
            opened = opened_by_pyarrow(path)
            columns.append(_columns(path, opened.schema_arrow, dataset))
            labels.append(_labels(path, opened, columns[-1][1]))
            sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
            _check_length(len(labels[-1]), sum(sizes))
        for group, size in enumerate(sizes):
            groups += [(path, group, rows)] if size else []
            rows += size
        if columns[-1] != columns[0]:
            raise DataError(
                f"{path} has other columns or classes than {files[0]}; keep files of one data set together"
            )
    image, _, classes = columns[0]
    return Table(
        files=tuple(files), image=image, labels=np.concatenate(labels), classes=classes, groups=tuple(groups)
    )


def by_class_and_name(table: Table) -> list[int]:
    """Return the rows sorted by label, then by the name of the picture's file: the order of a tree of class folders.

    A picture's name ends with its class where ImageNet is spread as parquet, which its file in the tree does not.

    Raises:
        DataError: a row does not name its file.
    """
    names: list[str | None] = []
    for path in table.files:
        with reading(path):
            opened = opened_by_pyarrow(path)
            column = f"{table.image}.path"
            held = opened.read(columns=[column]) if column in _leaves(opened) else None
        values = [{}] * opened.metadata.num_rows if held is None else held.column(0).to_pylist()
        names += [(value or {}).get("path") for value in values]
    plain = [re.sub(r"_n\d{8}(?=\.[A-Za-z]+$)", "", name) if name else "" for name in names]
    if "" in plain:
        raise DataError(
            f"{table.place(plain.index(''))[1]} does not name the picture's file, by which imagenet's images are put "
            "in order; take the files as --dataset folder"
        )
    return sorted(range(len(plain)), key=lambda row: (int(table.labels[row]), plain[row]))


def _leaves(opened: Any) -> set[str]:
    return {opened.schema.column(number).path for number in range(len(opened.schema))}


def _parquet_files(root: Path) -> Iterator[Path]:
    """Yield the parquet files in a folder and in its folders, hidden ones left out, by place among others and name."""
    found = (*root.glob("*.parquet"), *root.glob("*/*.parquet"))
    shown_ones = (path for path in found if not any(p.startswith(".") for p in path.relative_to(root).parts))
    yield from sorted(shown_ones, key=lambda path: (path.parent, _place(path) or 0, path.name))


def _place(path: Path) -> int | None:
    """Return the number of a file among those of its table, as its name tells."""
    return int(match[1]) if (match := PART.search(path.name)) is not None else None


def _check_parts(files: Iterable[Path]) -> None:
    """Raise DataError where files tell their place among others that are not there."""
    parts: dict[int, set[int]] = {}
    for path in files:
        if (match := PART.search(path.name)) is not None:
            present = parts.setdefault(int(match[2]), set())
            if int(match[1]) in present:
                raise DataError(
                    f"{path} is part {match[1]} of {match[2]} once more; remove one of the two files"
                )
            present.add(int(match[1]))
        last = path
    for count, present in parts.items():
        if len(present) != count or len(parts) > 1:
            raise DataError(
                f"{last.parent} holds {len(present)} of {count} files that are named like {last.name}; fetch the others"
            )


def _columns(path: Path, schema: Any, dataset: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the columns of the pictures and of the labels, and the names of the classes."""
    features = _features(schema)
    labelled = LABEL_COLUMNS if dataset != "cifar100" else ("fine_label", *LABEL_COLUMNS)
    image = _column(path, schema, features, IMAGE_COLUMNS, "Image", "pictures")
    label = _column(path, schema, features, labelled, "ClassLabel", "labels")
    names = features.get(label, {}).get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return image, label, ()
    return image, label, tuple(names)


def _column(
    path: Path, schema: Any, features: dict[str, dict[str, Any]], usual: Sequence[str], kind: str, holds: str
) -> str:
    of_kind = [
        name for name, feature in features.items() if feature.get("_type") == kind and name in schema.names
    ]
    found = next((name for name in usual if name in schema.names), None)
    if found is None and len(of_kind) == 1:
        return of_kind[0]
    if found is None:
        has = ", ".join(clipped(name) for name in schema.names[:SHOWN_COLUMNS]) or "none"
        raise DataError(
            f"{path} has no column of {holds}, expected {' or '.join(usual)}; its columns are {has}"
        )
    return found


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """Return what the schema tells of each column; {} where nothing does that can be read."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = told["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return {}


def _labels(path: Path, opened: Any, column: str) -> np.ndarray:
    """Return the labels of a file, (N,) int64.

    Raises:
        DataError: they are no whole numbers, or a row has none.
    """
    kind = str(opened.schema_arrow.field(column).type)
    if not re.fullmatch(r"u?int\d+", kind):
        raise DataError(f"column {column} of {path} holds {kind}, expected whole numbers, one for each class")
    found = opened.read(columns=[column]).column(0)
    if found.null_count:
        row = found.is_null().to_pylist().index(True)
        raise DataError(f"row {row} of {path} has no {column}; images without a class cannot be certified")
    labels: np.ndarray = found.to_numpy().astype(np.int64)
    return labels


def _check_length(found: int, expected: int) -> None:
    """Raise ValueError where a column has another number of rows than the file tells."""
    if found != expected:
        raise ValueError(f"{found} rows, the file tells of {expected}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises on a file that is missing, damaged or no parquet into a DataError."""
    try:
        yield
    except DataError:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
        TypeError,
        KeyError,
        NotImplementedError,
        MemoryError,
    ) as error:
        text = clipped(" ".join(str(error).split()), 200)
        raise DataError(f"{path} cannot be read as parquet ({text}); fetch the file again") from error


def opened_by_pyarrow(path: Path) -> Any:
    """Return a parquet file opened by pyarrow.

    Raises:
        DataError: pyarrow is missing.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(
            f"{path} is read by the package pyarrow, which is missing; run `{INSTALL}`"
        ) from error
    return ParquetFile(path)
