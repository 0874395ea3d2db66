"""Trees of image files with one folder per class: ImageNet's layout, and a user's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bench.errors import DataError
from bench.types import Split, Task

DEEP_MODES = ("I", "F")
"""Prefixes of Pillow's modes with more than 8 bits a channel, which conversion to RGB would clip to white."""


class ImageTree:
    """Images in files, read when asked for: short side resized (bilinear, antialiased), then centre-cropped.

    Args:
        paths: one file per image.
        resize: length of the short side after resizing, in pixels.
        crop: side of the square cut from the middle, in pixels, <= resize.
    """

    def __init__(self, paths: Sequence[Path], *, resize: int, crop: int) -> None:
        self.paths = tuple(paths)
        self.resize = resize
        self.crop = crop

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return image `index`, (3, crop, crop) float32 in [0,1]; grey images get three equal channels.

        Raises:
            DataError: a file that is not an image, is cut short, or has more than 8 bits a channel.
        """
        return self.bytes_at(index).float() / 255

    def bytes_at(self, index: int) -> Tensor:
        """Return image `index`, (3, crop, crop) uint8.

        Raises:
            DataError: as for a single image.
        """
        return read_bytes(self.paths[index], resize=self.resize, crop=self.crop)

    def batch(self, indices: Tensor) -> Tensor:
        """Return the images at `indices` ((B,) int64), (B, 3, crop, crop) float32 in [0,1].

        Raises:
            DataError: as for a single image.
        """
        return torch.stack([self[index] for index in indices.tolist()])


def load_tree(
    name: str, split: Literal["train", "test"], root: Path | None, *, resize: int, crop: int
) -> Split:
    """Return one split of the tree at `root`; classes are numbered in the order of their folders' names.

    Args:
        name: "imagenet" (train/, val/) or "folder" (train/, test/ or val/; without them it is all test).
        split: "train" or "test".
        root: folder that holds the splits.
        resize: short side in pixels after resizing.
        crop: side in pixels of the centre crop, <= resize.

    Raises:
        DataError: no root given, a folder missing or empty, a class without an image, or other classes in
            train/ than in the test folder.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    folder = _split_folder(name, split, root)
    classes = _class_names(folder)
    numbers = {class_name: number for number, class_name in enumerate(classes)}
    samples = make_dataset(os.fspath(folder), numbers, IMG_EXTENSIONS, allow_empty=True)
    labels = tuple(label for _, label in samples)
    empty = sorted(set(range(len(classes))) - set(labels))
    if empty:
        raise DataError(
            f"{folder / classes[empty[0]]} holds no image ({len(empty)} of {len(classes)} class folders "
            f"hold none); add images ({', '.join(IMG_EXTENSIONS)}) or remove the folder"
        )
    images = ImageTree([Path(path) for path, _ in samples], resize=resize, crop=crop)
    task = Task(dataset=name, channels=3, image_size=crop, num_classes=len(classes))
    return Split(task=task, name=split, images=images, labels=labels, class_names=classes)


def _split_folder(name: str, split: str, root: Path | None) -> Path:
    """Return the folder whose subfolders are the classes of `split`."""
    if root is None:
        remedy = "--data-dir or IMAGENET_DIR" if name == "imagenet" else "--data-dir"
        raise DataError(f"{name} needs the folder that holds its images; name it with {remedy}")
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; name the one that holds {name} with --data-dir")
    train = root / "train"
    tests = [root / part for part in (("val",) if name == "imagenet" else ("test", "val"))]
    test = next((folder for folder in tests if folder.is_dir()), None)
    if test is not None and train.is_dir() and _class_names(test) != _class_names(train):
        other = sorted(set(_class_names(test)) ^ set(_class_names(train)))[0]
        raise DataError(
            f"class folder {other!r} is in only one of {train} and {test}; both need the same classes"
        )
    if split == "train" and train.is_dir():
        return train
    if split == "test" and test is not None:
        return test
    if split == "test" and name == "folder" and not train.is_dir():
        return root
    wanted = "train" if split == "train" else " or ".join(f"{folder.name}" for folder in tests)
    raise DataError(f"{root} has no folder {wanted}, which {name} needs for its {split} split; add it")


def _class_names(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the class folders, hidden ones left out.

    Raises:
        DataError: none at all.
    """
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise DataError(f"{folder} holds no class folder; sort its images into one folder per class")
    return tuple(names)


def read_image(path: Path, *, resize: int, crop: int, channels: int = 3) -> Tensor:
    """Return one image file as (channels, crop, crop) float32 in [0,1]; see `read_bytes`."""
    return read_bytes(path, resize=resize, crop=crop, channels=channels).float() / 255


def read_bytes(path: Path, *, resize: int, crop: int, channels: int = 3) -> Tensor:
    """Return one image file as (channels, crop, crop) uint8; one channel means grey, three RGB.

    Raises:
        DataError: the file is missing, is no image, or has more than 8 bits a channel.
    """
    from PIL import Image
    from torchvision.transforms import functional

    raised_by_pillow = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
    try:
        with Image.open(path) as opened:
            mode = opened.mode
            image = opened.convert("L" if channels == 1 else "RGB")
    except raised_by_pillow as error:
        raise DataError(f"{path} cannot be read as an image ({error}); replace or remove the file") from error
    if mode.startswith(DEEP_MODES):
        raise DataError(f"{path} has more than 8 bits a channel (mode {mode}); convert it to 8 bits first")
    resized = functional.resize(image, [resize], functional.InterpolationMode.BILINEAR)
    return functional.pil_to_tensor(functional.center_crop(resized, [crop, crop]))
