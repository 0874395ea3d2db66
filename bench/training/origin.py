"""What tells one training from another: its seed, its recipe, its images, and the weights that it starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.training.recipes import Recipe, trained_options
from bench.types import RunHeader, Split

LIMITS = ("patience", "evaluate_every", "nonfinite_limit")
"""Options that say when a training ends and is looked at; a training may go on under others."""

START, IMAGES = "starting weights", "training images"

SHOWN = 16
"""Images whose pixels stand for all: reading every file of a large data set would take hours."""


def origin(seed: int, recipe: Recipe, start: Mapping[str, Tensor], images: str) -> dict[str, Any]:
    """Return plain values, equal for two trainings that go the same way; max_steps counts where the rate follows it.

    Args:
        start: the weights that the training starts from.
        images: digest of what it trains on; see `digest_of_images`.
    """
    options = {name: value for name, value in trained_options(recipe).items() if name not in LIMITS}
    steps = options.pop("max_steps")
    horizon = {"max_steps": steps} if recipe.schedule == "cosine" and recipe.cosine_steps == 0 else {}
    return {"seed": seed, **options, **horizon, IMAGES: images, START: digest(start)}


def digest_of_images(split: Split, indices: Tensor) -> str:
    """Return the SHA-256 of the labels and places of images, and of the pixels of SHOWN of them."""
    shown = indices[:: max(1, len(indices) // SHOWN)][:SHOWN].tolist()
    pixels = {f"image {index}": split.images[index] for index in shown}
    labels = torch.tensor([split.labels[index] for index in indices.tolist()])
    return digest({"indices": indices, "labels": labels, **pixels})


def image_digest(split: Split) -> str:
    """Return what tells a split from others of its name: `digest_of_images` of all its images."""
    return digest_of_images(split, torch.arange(len(split.labels)))


def holds_images_of(header: RunHeader, split: Split) -> bool:
    """Return whether a test split holds the images that a run certified, as far as the run's header tells."""
    if max(header.indices) >= len(split.labels) or tuple(split.images[0].shape) != header.image_shape:
        return False
    return header.image_digest in ("", image_digest(split))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors and their names, 64 hexadecimal digits."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return found.hexdigest()


def difference(state: Any, expected: Mapping[str, Any]) -> str:
    """Return the first thing in which a saved state's origin differs from the expected one, "" for none."""
    saved = state.get("origin", {}) if isinstance(state, dict) else {}
    for name, value in expected.items():
        if name not in saved:
            return f"it does not say its {name}"
        if saved[name] != value:
            return f"other {name}" if name in (START, IMAGES) else f"{name} {saved[name]} instead of {value}"
    return ""
