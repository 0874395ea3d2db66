"""Which images serve what: the certified part of the test split, the held-out part of the training split.

Every list is fixed by the labels and the arguments alone; none depends on a random generator's version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from bench.config.names import STANDARD_STRIDE, resolve_subset
from bench.config.overrides import user_path
from bench.config.texts import read_text
from bench.errors import DataError, UsageError, shown
from bench.types import Split

MOST_DIGITS = 18
"""Digits of an index, at most."""

HELD_OUT_FRACTION, HELD_OUT_MOST = 0.1, 1000
"""Share of the training split that judges when training stops, and its most images; the test split plays no part."""


def training_parts(
    split: Split, seed: int, images: int | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (training indices, held-out indices) as every training parts a training split; see `held_out`.

    Args:
        images: about how many to hold out; None: HELD_OUT_FRACTION of them, at most HELD_OUT_MOST; 0: none.

    Raises:
        DataError: as in `held_out`.
    """
    if images == 0:
        return tuple(range(len(split.labels))), ()
    if images is not None and images >= len(split.labels) > 0:
        raise DataError(
            f"--held-out is {images}, and there are {len(split.labels)} training images: hold fewer of them out"
        )
    whole = max(1, len(split.labels))
    fraction = min(HELD_OUT_FRACTION, HELD_OUT_MOST / whole) if images is None else images / whole
    return held_out(split, fraction, seed)


def held_out(split: Split, fraction: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (training indices, held-out indices) of a training split: ascending, together the whole split.

    The same share of every class is held out (at least one image, and never all), so that early stopping and
    the choice of options need no test image.

    Args:
        split: a training split.
        fraction: share of each class to hold out, 0 < fraction < 1.
        seed: another seed holds out other images.

    Raises:
        DataError: a test split, a fraction outside (0,1), or a class with fewer than two images.
    """
    if split.name != "train":
        raise DataError(
            f"held-out images come from the train split, got the {split.name} split; load 'train'"
        )
    if not 0.0 < fraction < 1.0:
        raise DataError(f"the held-out fraction must lie between 0 and 1, got {fraction:g}; use 0.1")
    chosen: set[int] = set()
    for label, members in enumerate(_by_class(split.labels, split.task.num_classes)):
        if len(members) < 2:
            raise DataError(
                f"class {split.class_names[label]!r} has {len(members)} training image(s), expected 2 or "
                "more to hold one out; add images"
            )
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        ordered = sorted(members, key=lambda index: rank("held-out", seed, index))
        chosen.update(ordered[:count])
    kept = tuple(index for index in range(len(split.labels)) if index not in chosen)
    return kept, tuple(sorted(chosen))


def certified_subset(
    split: Split, subset: str = "auto", skip: int = 0, limit: int | None = None
) -> tuple[int, ...]:
    """Return the test indices to certify, in order.

    "standard" is every 20th image of CIFAR-10 and CIFAR-100 and every 100th of ImageNet: as published.
    "balanced" is the whole split with the classes taking turns, so that every prefix is as balanced as it can
    be; the order of the classes, and of the images of a class, is fixed by the data set's name.
    "file:PATH" is the list in a file, one index per line.

    Args:
        split: a test split.
        subset: "auto", "standard", "balanced" or "file:PATH"; see `resolve_subset`.
        skip: images of that list to leave out at its start, >= 0; not a data set index.
        limit: images to take after those (all where there are fewer), >= 1; None: all.

    Raises:
        UsageError: an unknown subset, "standard" for a set without one, or a skip or limit out of range.
        DataError: a training split, a skip past the end, or a file that is unreadable or holds a wrong index.
    """
    if split.name != "test":
        raise DataError(f"certified images come from the test split, got the {split.name} split; load 'test'")
    for option, value, least in (("skip", skip, 0), ("limit", 1 if limit is None else limit, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{option} is {shown(value)}, expected a whole number of {least} or more")
    indices = _whole_subset(split, resolve_subset(split.task.dataset, subset))
    if skip >= len(indices):
        raise DataError(
            f"skip is {skip}, but subset {subset!r} holds {len(indices)} images; use a smaller skip"
        )
    return indices[skip:] if limit is None else indices[skip : skip + limit]


def _whole_subset(split: Split, subset: str) -> tuple[int, ...]:
    if subset == "standard":
        return tuple(range(0, len(split.labels), STANDARD_STRIDE[split.task.dataset]))
    if subset == "balanced":
        return _balanced(split)
    try:
        file = user_path(subset.removeprefix("file:"))
    except ValueError as error:
        raise UsageError(f"subset: {error}") from error
    return _read_indices(file, len(split.labels))


def _balanced(split: Split) -> tuple[int, ...]:
    name = split.task.dataset
    classes = [
        sorted(members, key=lambda index: rank("balanced", name, "image", index))
        for members in _by_class(split.labels, split.task.num_classes)
    ]
    # Shuffled classes: a prefix shorter than the number of classes is no run of neighbours in the alphabet.
    classes = [
        classes[k] for k in sorted(range(len(classes)), key=lambda k: rank("balanced", name, "class", k))
    ]
    longest = max(map(len, classes))
    return tuple(members[turn] for turn in range(longest) for members in classes if turn < len(members))


def _by_class(labels: Sequence[int], num_classes: int) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in range(num_classes)]
    for index, label in enumerate(labels):
        members[label].append(index)
    return members


def rank(*parts: object) -> bytes:
    """Return 8 pseudo-random bytes that depend on the parts alone; sorting by them is a fixed shuffle."""
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()


def _read_indices(path: Path, size: int) -> tuple[int, ...]:
    try:
        lines = read_text(path).split()
    except OSError as error:
        raise DataError(
            f"subset file {path} cannot be read ({error}); name a text file of indices"
        ) from error
    indices: dict[int, None] = {}  # an ordered set
    for line in lines:
        if not (line.isascii() and line.isdecimal() and len(line) <= MOST_DIGITS):
            raise DataError(
                f"subset file {path} holds {shown(line)}, expected one index per line; correct that line"
            )
        if int(line) >= size:
            raise DataError(
                f"subset file {path} holds index {line}, expected 0 to {size - 1}; correct that line"
            )
        if int(line) in indices:
            raise DataError(f"subset file {path} holds index {line} more than once; remove the repeats")
        indices[int(line)] = None
    if not indices:
        raise DataError(f"subset file {path} holds no index; write one index per line")
    return tuple(indices)
