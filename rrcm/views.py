"""The views of pre-training and of fine-tuning, drawn for a whole batch at once from the step's generator.

`timm_view` alone is of one image, drawn where it is read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.training.augmentation import (
    augment,
    in_float32,
    random_affine,
    random_flip,
    random_resized_crop,
)
from bench.types import Task
from rrcm.moco_views import distort

POLICY = "rand-m9-mstd0.5-inc1"
"""Two operations per image at magnitude 9 of 10 with deviation 0.5, each stronger as the magnitude rises."""

AREAS = {"crop-flip": (0.4, 1.0), "timm": (0.08, 1.0)}
"""Kind of view -> bounds of a crop's share of the area."""


@in_float32
def strong_view(x: Tensor, task: Task, generator: torch.Generator) -> Tensor:
    """Return a strongly augmented view of x (B,C,H,W) in [0,1]; the same shape and range.

    Deviation: the paper's colour jitter and crops down to 8% of the area erase what tells digits apart. Grey images
    get rotation up to 15 degrees, scale 0.75-1.25, shift up to 10% of the side; colour images scale 1-2.5, shift up
    to 20% and a flip; both then a random brightness and contrast, and half of them a blur.
    """
    if task.channels == 1:
        view = random_affine(x, generator, degrees=15, scale=(0.75, 1.25), shift=0.1)
    else:
        view = random_affine(x, generator, degrees=0, scale=(1.0, 2.5), shift=0.2, flip=True)
    return _half_blurred(_jittered(view, generator), generator).clamp(0, 1)


@in_float32
def moco_views(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return two strong views as in MoCo-v3 and the plain one, a flip; x and each view (B,3,H,W) in [0,1].

    Deviation: crops (8% to 100% of the area) are taken from the data set's own square image, not from the uncropped
    photograph.

    Raises:
        UsageError: the images are not in colour.
    """
    first, second = (
        distort(random_flip(random_resized_crop(x, generator), generator), generator, is_first=is_first)
        for is_first in (True, False)
    )
    return first, second, random_flip(x, generator)


def plain_view(x: Tensor, task: Task, generator: torch.Generator) -> Tensor:
    """Return the lightly augmented view that the consistency term sees; (B,C,H,W) in [0,1]."""
    return augment(x, task, generator)


@in_float32
def finetuning_view(x: Tensor, task: Task, kind: str, generator: torch.Generator) -> Tensor:
    """Return x (B,C,H,W) in [0,1] augmented for fine-tuning; the same shape and range.

    Args:
        kind: "light" (as all methods), "none", "flip", "crop-flip" (bicubic crops of 40% to 100% of the area, then a
            flip) or "timm": nothing more, since images went through `timm_view` where they were read.

    Deviation: crops are taken from the data set's own square image, not from the uncropped photograph.
    """
    if kind in ("none", "timm"):
        return x
    if kind == "light":
        return augment(x, task, generator)
    if kind == "crop-flip":
        x = random_resized_crop(x, generator, area=AREAS[kind], interpolation="bicubic")
    return random_flip(x, generator)


def timm_view(image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Return a colour image (3,H,W) of bytes under timm's training transform, drawn from the seed; of the same shape.

    That is a bicubic crop of 8% to 100% of the area, a flip, then RandAugment. timm draws from Python's and numpy's
    global generators: they are seeded, and put back afterwards.

    Deviation: the crop is taken from the data set's own square image, not from the uncropped photograph.
    """
    from timm.data.auto_augment import rand_augment_transform

    generator = torch.Generator().manual_seed(seed)
    x = torch.from_numpy(image)[None].float() / 255
    x = random_resized_crop(x, generator, area=AREAS["timm"], interpolation="bicubic")
    x = random_flip(x, generator)
    pixels = (255 * x[0]).round().to(torch.uint8).permute(1, 2, 0).numpy()
    transform = rand_augment_transform(POLICY, randaugment_options(image.shape[-1]))
    with _global_generators_seeded(int(torch.randint(2**31, (), generator=generator))):
        changed = np.asarray(transform(Image.fromarray(pixels)))
    return np.ascontiguousarray(changed.transpose(2, 0, 1))


def randaugment_options(side: int) -> dict[str, Any]:
    """Return what timm's training transform of bicubic interpolation gives RandAugment for images of a side."""
    from timm.data import IMAGENET_DEFAULT_MEAN

    return {
        "translate_const": int(0.45 * side),
        "img_mean": tuple(min(255, round(255 * mean)) for mean in IMAGENET_DEFAULT_MEAN),
        "interpolation": Image.Resampling.BICUBIC,
    }


@contextmanager
def _global_generators_seeded(seed: int) -> Iterator[None]:
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _jittered(x: Tensor, generator: torch.Generator) -> Tensor:
    """Multiply contrast by 0.6-1.4 and add up to 0.2 of brightness, per image."""
    draws = torch.rand((2, len(x), 1, 1, 1), generator=generator, device=x.device)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (0.6 + 0.8 * draws[0]) + mean + 0.4 * (draws[1] - 0.5)


def _half_blurred(x: Tensor, generator: torch.Generator) -> Tensor:
    """Blur about half of the images with a 3x3 binomial kernel."""
    line = x.new_full((3,), 0.25)  # from a list it would be copied to a GPU, which waits for it
    line[1] = 0.5
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    blurred = F.conv2d(padded, kernel, groups=x.shape[1])
    chosen = torch.rand((len(x), 1, 1, 1), generator=generator, device=x.device) < 0.5
    return torch.where(chosen, blurred, x)
