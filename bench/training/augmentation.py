"""Random changes of training images, drawn for a whole batch at once on its device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.device.precision import full_precision
from bench.types import Task

Drawn = TypeVar("Drawn")
Options = ParamSpec("Options")


def in_float32(
    draw: Callable[Concatenate[Tensor, Options], Drawn],
) -> Callable[Concatenate[Tensor, Options], Drawn]:
    """Return a function of images that computes in float32 whatever autocast surrounds it.

    In bfloat16 the grid of an affine map is up to half a pixel off at 224 pixels.
    """

    @functools.wraps(draw)
    def drawn(x: Tensor, *args: Options.args, **kwargs: Options.kwargs) -> Drawn:
        with full_precision(x.device.type):
            return draw(x, *args, **kwargs)

    return drawn


@in_float32
def augment(x: Tensor, task: Task, generator: torch.Generator) -> Tensor:
    """Return the light augmentation that all methods share, (B,C,H,W) -> the same shape.

    Grey images: rotation up to 10 degrees, scale 0.9-1.1, shift up to 2/28 of the side. Colour images: shift up to
    4/32 of the side and a flip.
    """
    if task.channels == 1:
        return random_affine(x, generator, degrees=10, scale=(0.9, 1.1), shift=2 / 28)
    return random_affine(x, generator, shift=4 / 32, flip=True)


@in_float32
def random_affine(
    x: Tensor,
    generator: torch.Generator,
    *,
    degrees: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    shift: float = 0.0,
    flip: bool = False,
) -> Tensor:
    """Return each image under its own random rotation, scale, shift (share of the side) and flip; outside is zero."""
    count = len(x)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=x.device)

    angle = torch.deg2rad(uniform(-degrees, degrees))
    zoom = 1 / uniform(*scale)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if flip else torch.ones(count, device=x.device)
    rows = [
        torch.stack([mirror * zoom * angle.cos(), -zoom * angle.sin(), 2 * uniform(-shift, shift)], dim=1),
        torch.stack([mirror * zoom * angle.sin(), zoom * angle.cos(), 2 * uniform(-shift, shift)], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
