"""Trees of image files with one folder per class: ImageNet's layout, and a user's own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import torch
from torch import Tensor

from bench.config.names import Geometry
from bench.errors import DataError
from bench.types import Split, Task

if TYPE_CHECKING:
    from PIL.Image import Image

LOOKED_AT = 500
"""Files, about, whose size stands for that of all images of a tree."""

DEEP_MODES = ("I", "F")
"""Prefixes of Pillow's modes with more than 8 bits a channel, which conversion to RGB would clip to white."""


class StoredImages:
    """Images that are read when asked for; a subclass tells how many there are, and reads one."""

    def __len__(self) -> int:
        raise NotImplementedError

    def bytes_at(self, index: int) -> Tensor:
        """Return image `index`, (C, H, W) uint8.

        Raises:
            DataError: one that is not an image, is cut short, or has more than 8 bits a channel.
        """
        raise NotImplementedError

    def __getitem__(self, index: int) -> Tensor:
        """Return image `index`, (C, H, W) float32 in [0,1]; grey images get three equal channels.

        Raises:
            DataError: as in `bytes_at`.
        """
        return self.bytes_at(index).float() / 255

    def batch(self, indices: Tensor) -> Tensor:
        """Return the images at `indices` ((B,) int64), (B, C, H, W) float32 in [0,1].

        Raises:
            DataError: as in `bytes_at`.
        """
        return torch.stack([self[index] for index in indices.tolist()])


class ImageTree(StoredImages):
    """Images in files: short side resized, then centre-cropped; see `read_image`.

    Args:
        paths: one file per image.
        resize: length of the short side after resizing, in pixels; None: every image has `crop` pixels a side.
        crop: side of the square cut from the middle, in pixels, <= resize.
        geometry: "short-side" resizes the short side to `crop`.
    """

    def __init__(
        self, paths: Sequence[Path], *, resize: int | None, crop: int, geometry: Geometry = "resize-256"
    ) -> None:
        self.geometry: Geometry = geometry
        self.paths = tuple(paths)
        self.resize = resize
        self.crop = crop

    def __len__(self) -> int:
        return len(self.paths)

    def bytes_at(self, index: int) -> Tensor:
        """Return image `index`, (3, crop, crop) uint8.

        Raises:
            DataError: a file that is not an image, is cut short, or has more than 8 bits a channel.
        """
        return read_bytes(self.paths[index], resize=self.resize, crop=self.crop, geometry=self.geometry)


def load_tree(
    name: str,
    split: Literal["train", "test"],
    root: Path | None,
    *,
    resize: int | None,
    crop: int | None,
    geometry: Geometry = "resize-256",
) -> Split:
    """Return one split of the tree at `root`; classes are numbered in the order of their folders' names.

    Args:
        name: "imagenet" (train/, val/) or "folder" (train/, test/ or val/; without them it is all test).
        split: "train" or "test".
        root: folder that holds the splits.
        resize: short side in pixels after resizing; None: every image must have `crop` pixels a side.
        crop: side in pixels of the centre crop, <= resize; None: the one side that the images of all splits have.
        geometry: as in `read_image`.

    Hidden files and folders are left out.

    Raises:
        DataError: no root given, a folder missing or empty, fewer than two classes, a class without an image, other
            classes in train/ than in the test folder, a folder or image that a link leads to twice, or no side given
            where the images have not one.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    folders = _split_folders(name, split, root)
    folder = folders[split]
    classes = _class_names(folder)
    samples = _samples(folder, classes)
    labels = tuple(label for _, label in samples)
    empty = sorted(set(range(len(classes))) - set(labels))
    if empty:
        raise DataError(
            f"{folder / classes[empty[0]]} holds no image ({len(empty)} of {len(classes)} class folders "
            f"hold none); add images ({', '.join(IMG_EXTENSIONS)}) or remove the folder"
        )
    paths = [path for path, _ in samples]
    if crop is None:
        others = [_samples(other, classes) for other in folders.values() if other != folder]
        crop = _common_side(root, [*paths, *(path for other in others for path, _ in other)])
    images = ImageTree(paths, resize=resize, crop=crop, geometry=geometry)
    task = Task(dataset=name, channels=3, image_size=crop, num_classes=len(classes))
    return Split(task=task, name=split, images=images, labels=labels, class_names=classes)


def _samples(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Return the image files of a split and the number of their class, in the order of folders, then of names.

    Raises:
        DataError: a link leads to a folder or an image twice, or a folder cannot be read.
    """
    folders: dict[str, str] = {}
    files: list[tuple[os.DirEntry[str], int]] = []
    for number, name in enumerate(classes):
        below = sorted(
            _images_below(os.fspath(folder / name), folders), key=lambda one: os.path.split(one.path)
        )
        files += [(file, number) for file in below]
    _check_links((file.path for file, _ in files if file.is_symlink()), folders)
    return [(Path(file.path), number) for file, number in files]


def _images_below(top: str, folders: dict[str, str]) -> Iterator[os.DirEntry[str]]:
    """Yield the image files below a folder, those behind links too, and add each folder to `folders`.

    Args:
        top: the folder.
        folders: real path -> path of each folder so far.
    """
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        if (first := folders.setdefault(os.path.realpath(folder), folder)) != folder:
            raise DataError(f"{folder} leads to {first}, whose images would count twice; remove the link")
        try:
            with os.scandir(folder) as entries:
                shown = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise DataError(f"{folder} cannot be read ({error.strerror}); mend that, or remove it") from error
        below = {entry.path for entry in shown if _is_folder(entry)}
        waiting += sorted(below, reverse=True)
        yield from (entry for entry in shown if _is_image(entry.name) and entry.path not in below)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_image(name: str) -> bool:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")


def _check_links(links: Iterable[str], folders: Mapping[str, str]) -> None:
    """Raise DataError where a linked image is another image of the split: it would count twice."""
    linked: dict[str, str] = {}
    for link in links:
        real = os.path.realpath(link)
        where, name = os.path.split(real)
        is_inside = where in folders and _is_image(name) and os.path.isfile(real)
        first = os.path.join(folders[where], name) if is_inside else linked.setdefault(real, link)
        if first != link:
            raise DataError(f"{link} leads to {first}, which would count twice; remove the link")


def _common_side(root: Path | None, files: Sequence[Path]) -> int:
    """Return the side of the square images of a tree, as about LOOKED_AT of them have it.

    Raises:
        DataError: they differ in size, are not square, or none can be read.
    """
    from PIL import Image

    sizes: dict[tuple[int, int], Path] = {}
    for path in files[:: max(1, len(files) // LOOKED_AT)]:
        with (
            contextlib.suppress(OSError, SyntaxError, ValueError, Image.DecompressionBombError),
            Image.open(path) as opened,
        ):
            sizes.setdefault(opened.size, path)
    if len(sizes) != 1 or any(width != height for width, height in sizes):
        seen = ", ".join(f"{path} is {width}x{height}" for (width, height), path in [*sizes.items()][:2])
        raise DataError(
            f"images of {root} are not squares of one size ({seen or f'none can be read, such as {files[0]}'}): give "
            "--image-size PIXELS, to which each is resized by its short side and cropped"
        )
    return next(iter(sizes))[0]


SPLIT_LIKE = frozenset(("train", "training", "test", "testing", "val", "valid", "validation"))
"""Names of folders, in small letters, that hold a split, whatever its spelling."""


def _split_folders(name: str, split: str, root: Path | None) -> dict[str, Path]:
    """Return split -> the folder whose subfolders are its classes, for `split` and another that is there."""
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
    found = {"train": train} if train.is_dir() else {}
    if test is not None:
        found["test"] = test
    elif name == "folder" and not found:
        names = sorted(entry.name for entry in root.iterdir() if entry.name.casefold() in SPLIT_LIKE)
        if len(names) > 1:
            raise DataError(
                f"{root} holds {names[0]} and {names[1]}, which are named like splits, not classes: call the folders "
                "of the splits train and test"
            )
        found["test"] = root
    if split not in found:
        wanted = "train" if split == "train" else " or ".join(folder.name for folder in tests)
        raise DataError(f"{root} has no folder {wanted}, which {name} needs for its {split} split; add it")
    return found


def _class_names(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the class folders, hidden ones left out.

    Raises:
        DataError: fewer than two.
    """
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise DataError(f"{folder} holds no class folder; sort its images into one folder per class")
    if len(names) == 1:
        raise DataError(f"{folder} holds one class folder ({names[0]}); two or more are needed")
    return tuple(names)


def size_and_colours(path: Path) -> tuple[int, int, bool]:
    """Return width and height of an image file, and whether a pixel of it has a colour other than grey.

    Raises:
        DataError: the file is missing or is no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            red, green, blue = opened.convert("RGB").split()
            return *opened.size, not red.tobytes() == green.tobytes() == blue.tobytes()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}); replace or remove the file") from error


def read_image(
    path: Path, *, resize: int | None, crop: int, channels: int = 3, geometry: Geometry = "resize-256"
) -> Tensor:
    """Return one image file as (channels, crop, crop) float32 in [0,1]; see `read_bytes`."""
    return read_bytes(path, resize=resize, crop=crop, channels=channels, geometry=geometry).float() / 255


def read_bytes(
    path: Path, *, resize: int | None, crop: int, channels: int = 3, geometry: Geometry = "resize-256"
) -> Tensor:
    """Return one image file as (channels, crop, crop) uint8; one channel means grey, three RGB.

    Deviation: rRCM's released program has the geometry "short-side", all other methods' the default.

    The short side is resized to `resize` (bilinear, antialiased); or, where geometry is "short-side", to `crop`:
    it is halved by means of 2x2 pixels while it is twice as long or more, then resized (bicubic). The middle is kept.

    Raises:
        DataError: the file is missing, is no image, or has more than 8 bits a channel.
    """
    return decoded(path, f"{path}", resize=resize, crop=crop, channels=channels, geometry=geometry)


def decoded(
    source: Path | BinaryIO,
    name: str,
    *,
    resize: int | None,
    crop: int,
    channels: int = 3,
    geometry: Geometry = "resize-256",
) -> Tensor:
    """Return an encoded image as (channels, crop, crop) uint8, as `read_bytes` does.

    Args:
        source: an image file, or its content.
        name: of it, for messages.
        resize: as in `ImageTree`; None: the image must have `crop` pixels a side.
        crop, channels, geometry: as in `read_bytes`.

    Raises:
        DataError: it is missing, no image, of another size, or has more than 8 bits a channel.
    """
    import PIL.Image
    from torchvision.transforms import functional

    raised_by_pillow = (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError)
    try:
        with PIL.Image.open(source) as opened:
            mode = opened.mode
            image = opened.convert("L" if channels == 1 else "RGB")
    except raised_by_pillow as error:
        text = f"{error}".replace(f" {source!r}", "")  # the address of a content in memory
        raise DataError(f"{name} cannot be read as an image ({text}); replace or remove the file") from error
    if mode.startswith(DEEP_MODES):
        raise DataError(f"{name} has more than 8 bits a channel (mode {mode}); convert it to 8 bits first")
    if resize is None and image.size != (crop, crop):
        raise DataError(
            f"{name} is {image.width}x{image.height} pixels, expected {crop}x{crop}; resize it, or (--dataset folder) "
            "give --image-size PIXELS"
        )
    if geometry == "short-side":
        resized = _short_side_at(image, crop)
    else:
        resized = functional.resize(image, [resize or crop], functional.InterpolationMode.BILINEAR)
    return functional.pil_to_tensor(functional.center_crop(resized, [crop, crop]))


def _short_side_at(image: Image, side: int) -> Image:
    """Return the image with its short side `side` pixels long: halved while that leaves enough, then bicubic."""
    from PIL.Image import Resampling

    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
    scale = side / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Resampling.BICUBIC)
