"""The strong views of pre-training, drawn for a whole batch at once on the device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.training.augmentation import augment, in_float32, random_affine
from bench.types import Task
from rrcm.moco_views import distort
from rrcm.randaugment import rand_augment


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
        distort(random_crop(x, generator, area=(0.08, 1.0)), generator, is_first=is_first)
        for is_first in (True, False)
    )
    return first, second, random_crop(x, generator, area=(1.0, 1.0))


def plain_view(x: Tensor, task: Task, generator: torch.Generator) -> Tensor:
    """Return the lightly augmented view that the consistency term sees; (B,C,H,W) in [0,1]."""
    return augment(x, task, generator)


@in_float32
def finetuning_view(x: Tensor, task: Task, kind: str, generator: torch.Generator) -> Tensor:
    """Return x (B,C,H,W) in [0,1] augmented for fine-tuning; the same shape and range.

    Args:
        kind: "light" (as all methods), "none", "flip", "crop-flip" (40% to 100% of the area, sides 3:4 to 4:3,
            resized back, then a flip) or "randaugment" (see `rand_augment`).

    Deviation: crops are taken from the data set's own square image, not from the uncropped photograph.
    """
    if kind == "none":
        return x
    if kind == "light":
        return augment(x, task, generator)
    if kind == "randaugment":
        return rand_augment(x, generator)
    return random_crop(x, generator, area=(0.4, 1.0) if kind == "crop-flip" else (1.0, 1.0))


@in_float32
def random_crop(x: Tensor, generator: torch.Generator, *, area: tuple[float, float]) -> Tensor:
    """Return each image's random crop of a share of its area in `area`, resized back, and flipped or not.

    Sides are between 3:4 and 4:3 where the area allows; area (1, 1) is the flip alone.
    """
    draws = torch.rand((5, len(x)), generator=generator, device=x.device)
    ratio = ((2 * draws[0] - 1) * math.log(4 / 3)).exp().sqrt()
    side = (area[0] + (area[1] - area[0]) * draws[1]).sqrt()
    width, height = (side * ratio).clamp(max=1), (side / ratio).clamp(max=1)
    if area == (1.0, 1.0):
        width, height = torch.ones_like(side), torch.ones_like(side)
    mirror = torch.where(draws[4] < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(side)
    rows = [
        torch.stack([mirror * width, zero, (2 * draws[2] - 1) * (1 - width)], dim=1),
        torch.stack([zero, height, (2 * draws[3] - 1) * (1 - height)], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _jittered(x: Tensor, generator: torch.Generator) -> Tensor:
    """Multiply contrast by 0.6-1.4 and add up to 0.2 of brightness, per image."""
    draws = torch.rand((2, len(x), 1, 1, 1), generator=generator, device=x.device)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (0.6 + 0.8 * draws[0]) + mean + 0.4 * (draws[1] - 0.5)


def _half_blurred(x: Tensor, generator: torch.Generator) -> Tensor:
    """Blur about half of the images with a 3x3 binomial kernel."""
    line = x.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    blurred = F.conv2d(padded, kernel, groups=x.shape[1])
    chosen = torch.rand((len(x), 1, 1, 1), generator=generator, device=x.device) < 0.5
    return torch.where(chosen, blurred, x)
