"""One split of a data set from parquet files: which rows are its images, and whether they are that data set's."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from torch import Tensor

from bench.config.names import FIRST_LABELS, IMAGE_SHAPES, IMAGENET_RESIZE, NUM_CLASSES, TEST_IMAGES, Geometry
from bench.data.folders import LOOKED_AT, StoredImages, decoded
from bench.data.tables import Table, by_class_and_name, has_files, read_table, split_files
from bench.errors import DataError, shown
from bench.types import Split, Task

LOOKED_INTO = 20
"""Row groups, about, that are read for the size of the images of a folder: each may hold many megabytes."""

OWN_LAYOUTS = {
    "mnist": ("MNIST/raw", "*-ubyte*"),
    "fashion-mnist": ("FashionMNIST/raw", "*-ubyte*"),
    "cifar10": ("cifar-10-*",),
    "cifar100": ("cifar-100-*",),
    "svhn": ("*_32x32.mat",),
    "imagenet": ("train/*/", "val/*/"),
    "folder": ("train/*/", "val/*/", "test/*/"),
}
"""Data set -> what its folder holds in the layout of torchvision, which is read where both are there."""


def is_parquet(name: str, root: Path) -> bool:
    """Return whether a data set is to be read from parquet files in a folder, which has not the set's own layout."""
    has_own = any(next(root.glob(pattern), None) is not None for pattern in OWN_LAYOUTS[name])
    return not has_own and has_files(root)


def load_parquet(
    name: str, split: str, root: Path, *, image_size: int | None = None, geometry: Geometry = "resize-256"
) -> Split:
    """Return one split of a data set from the parquet files in a folder, in which images are read when asked for.

    Images have the order of the rows, those of imagenet the order of a tree of class folders: an index is the same
    image in each layout.

    Args:
        name: a data set other than mnist5k.
        split: "train" or "test".
        root: folder that holds the files, or whose folders do.
        image_size: as in `bench.data.sets.load`.
        geometry: of ImageNet's images.

    Raises:
        DataError: files or columns are missing or damaged, or their rows are not the data set's.
    """
    files = split_files(root, name, split)
    if not files:
        wanted = "validation" if name == "imagenet" and split == "test" else split
        raise DataError(
            f"{root} has parquet files, but none for the {split} split of {name}, expected a name such as "
            f"{wanted}-00000-of-00001.parquet; add it"
        )
    table = read_table(files, name)
    names = _class_names(name, root, table)
    _check_rows(name, split, table, names)
    images = _images(name, root, table, image_size, geometry)
    task = Task(dataset=name, channels=images.channels, image_size=images.crop, num_classes=len(names))
    labels = tuple(table.labels[list(images.order)].tolist())
    return Split(task=task, name=split, images=images, labels=labels, class_names=names)


class ParquetImages(StoredImages):
    """Pictures in parquet files, decoded when asked for; the row group of the last one is kept.

    Args:
        table: where they are.
        order: image -> row.
        resize, crop, channels, geometry: as in `bench.data.folders.decoded`.
    """

    def __init__(
        self,
        table: Table,
        order: Sequence[int],
        *,
        resize: int | None,
        crop: int,
        channels: int = 3,
        geometry: Geometry = "resize-256",
    ) -> None:
        self.table = table
        self.order = order
        self.resize = resize
        self.crop = crop
        self.channels = channels
        self.geometry: Geometry = geometry
        self._kept: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return len(self.order)

    def bytes_at(self, index: int) -> Tensor:
        """Return image `index`, (channels, crop, crop) uint8.

        Raises:
            DataError: a row without a picture, or whose picture cannot be read.
        """
        content, name = self.encoded(int(self.order[index]))
        return decoded(
            io.BytesIO(content),
            name,
            resize=self.resize,
            crop=self.crop,
            channels=self.channels,
            geometry=self.geometry,
        )

    def encoded(self, row: int) -> tuple[bytes, str]:
        """Return the picture of a row as a file's content, and the row as messages name it.

        Raises:
            DataError: the row holds none.
        """
        group, name = self.table.place(row)
        number, column = self._kept
        if number != group:
            column = self.table.column(group)
            self._kept = (group, column)
        value = column[row - self.table.groups[group][2]].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError(f"{name} holds no picture in column {self.table.image}; fetch the file again")
        return content, name


def _images(name: str, root: Path, table: Table, image_size: int | None, geometry: Geometry) -> ParquetImages:
    """Return the images of a split at the size that the data set has, or that is asked for."""
    if name == "imagenet":
        order = by_class_and_name(table)
        crop = image_size or IMAGE_SHAPES[name][-1]
        return ParquetImages(table, order, resize=IMAGENET_RESIZE, crop=crop, geometry=geometry)
    rows = range(len(table.labels))
    if name == "folder":
        resize = image_size
        return ParquetImages(table, rows, resize=resize, crop=image_size or _common_side(table))
    channels, side, _ = IMAGE_SHAPES[name]
    return ParquetImages(table, rows, resize=None, crop=side, channels=channels)


MOST_CLASSES = 1_000_000
"""Classes of a data set that does not name them, at most."""


def _class_names(name: str, root: Path, table: Table) -> tuple[str, ...]:
    """Return the names of the classes, which are their numbers where the files do not hold them.

    Raises:
        DataError: the data set has another number of them.
    """
    if name not in NUM_CLASSES:
        found = [split_files(root, name, split) for split in ("train", "test")]
        tables = [read_table(files, name) for files in found if files]
        if len({one.classes for one in tables}) > 1:
            raise DataError(
                f"the train and test files of {root} name other classes; both need the same classes"
            )
        count = max(int(one.labels.max(initial=-1)) for one in tables) + 1
        if count > MOST_CLASSES:
            raise DataError(
                f"{root} has label {count - 1:,}, expected classes numbered 0, 1, 2, ...: number them so"
            )
        names = table.classes or tuple(map(str, range(count)))
        if len(names) == 1:
            raise DataError(f"{root} holds one class ({names[0]}); two or more are needed")
        return names
    if table.classes and name != "imagenet" and len(table.classes) != NUM_CLASSES[name]:
        raise DataError(
            f"{table.files[0]} holds {len(table.classes)} classes, {name} has {NUM_CLASSES[name]}; take it as "
            "--dataset folder, or name the data set that it is"
        )
    return table.classes or tuple(map(str, range(NUM_CLASSES[name])))


def _check_rows(name: str, split: str, table: Table, names: Sequence[str]) -> None:
    """Return nothing where each row has a class, and the test images are those that published indices count.

    Raises:
        DataError: they are not.
    """
    if len(table.labels) == 0:
        raise DataError(f"{table.files[0]} holds no row; fetch the file again")
    _check_labels(table, len(names), f"{name}")
    if split != "test":
        return
    expected = TEST_IMAGES.get(name, len(table.labels)) if name != "imagenet" else len(table.labels)
    if len(table.labels) != expected:
        raise DataError(
            f"{table.files[0].parent} holds {len(table.labels):,} test images, {name} has {expected:,}; fetch the "
            "others, or take these as --dataset folder"
        )
    known = [int(digit) for digit in FIRST_LABELS.get(name, "")]
    if known and table.labels[: len(known)].tolist() != known:
        raise DataError(
            f"the first images of {table.files[0]} have other classes than those of {name} (its first label is "
            f"{known[0]}); take it as --dataset folder, or name the data set that it is"
        )


def _spread(rows: range, count: int) -> range:
    """Return about `count` of the rows, evenly spread."""
    return rows[:: max(1, len(rows) // count)]


def _common_side(table: Table) -> int:
    """Return the side of the square pictures, as about LOOKED_AT of them have it, in about LOOKED_INTO row groups.

    Raises:
        DataError: they differ in size, or are not square.
    """
    images = ParquetImages(table, range(len(table.labels)), resize=None, crop=1)
    sizes: dict[tuple[int, int], str] = {}
    groups = range(0, len(table.groups), max(1, len(table.groups) // LOOKED_INTO))
    each = max(1, LOOKED_AT // len(groups))
    for row in (row for group in groups for row in _spread(table.rows(group), each)):
        content, name = images.encoded(row)
        try:
            with PIL.Image.open(io.BytesIO(content)) as opened:
                sizes.setdefault(opened.size, name)
        except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
            continue  # told by name when the image is read
    if len(sizes) != 1 or any(width != height for width, height in sizes):
        seen = ", ".join(f"{name} is {width}x{height}" for (width, height), name in islice(sizes.items(), 2))
        raise DataError(
            f"images are not squares of one size ({seen or 'none can be read'}): give --image-size PIXELS, to which "
            "each is resized by its short side and cropped"
        )
    return next(iter(sizes))[0]


def _check_labels(table: Table, classes: int, known: str) -> None:
    """Return nothing where each label is a class.

    Args:
        classes: how many there are.
        known: what has them, for the message.

    Raises:
        DataError: it is not; the message names the first row.
    """
    wrong = np.flatnonzero((table.labels < 0) | (table.labels >= classes))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{table.place(row)[1]} has label {shown(int(table.labels[row]))}, expected 0 to {classes - 1} as {known} "
            "has; a split that was spread without labels cannot be certified"
        )
