"""Random changes of training images, drawn for a whole batch at once on its device."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Concatenate, Literal, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.device.precision import full_precision
from bench.smoothing.noise import stable_seed
from bench.types import Task

Augmentation = Literal["light", "none", "resized-crop"]
"""How training images are changed; see `augment`."""

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


def host_generator(generator: torch.Generator) -> torch.Generator:
    """Return a generator on the CPU for draws that the program reads, which on a GPU would have it wait for the device.

    It is the generator itself where that is on the CPU. Else it continues the GPU's, whose seed and position the host
    knows; the GPU's moves on, so that no two calls return the same.
    """
    if generator.device.type == "cpu":
        return generator
    position = generator.get_offset()
    generator.set_offset(position + 4)  # torch moves in fours
    return torch.Generator().manual_seed(stable_seed(generator.initial_seed(), "host", position))


@in_float32
def augment(x: Tensor, task: Task, generator: torch.Generator, kind: Augmentation = "light") -> Tensor:
    """Return x (B,C,H,W) in [0,1] under random changes of its own for each image; the same shape and range.

    Args:
        kind: "none"; "resized-crop", torchvision's RandomResizedCrop by its defaults, then a flip; or "light". That is,
            of colour images, a crop by whole pixels after 4/32 of the side of zeros was added all round, then a flip:
            no pixel's value changes. Of grey images it is rotation up to 10 degrees, scale 0.9-1.1, shift up to 2/28 of
            the side.
    """
    if kind == "none":
        return x
    if kind == "resized-crop":
        return random_flip(random_resized_crop(x, generator), generator)
    if task.channels == 1:
        return random_affine(x, generator, degrees=10, scale=(0.9, 1.1), shift=2 / 28)
    return random_flip(random_crop(x, generator, padding=round(4 / 32 * x.shape[-1])), generator)


def random_crop(x: Tensor, generator: torch.Generator, *, padding: int) -> Tensor:
    """Return a crop of each image's own size and random place, after `padding` pixels of zeros were added all round."""
    count, _, height, width = x.shape
    padded = F.pad(x, (padding,) * 4).permute(0, 2, 3, 1)
    top, left = torch.randint(2 * padding + 1, (2, count, 1), generator=generator, device=x.device)
    rows, columns = (
        start + torch.arange(side, device=x.device) for start, side in ((top, height), (left, width))
    )
    image = torch.arange(count, device=x.device).view(-1, 1, 1)
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image mirrored left to right with probability 1/2."""
    is_mirrored = torch.rand((len(x), 1, 1, 1), generator=generator, device=x.device) < 0.5
    return torch.where(is_mirrored, x.flip(3), x)


def random_resized_crop(
    x: Tensor,
    generator: torch.Generator,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
) -> Tensor:
    """Return a random piece of each image, resized (antialiased) to the image's own size; the values stay in [0,1].

    Args:
        area: bounds of the piece's share of the area; its sides are between 3:4 and 4:3.
    """
    height, width = x.shape[2:]
    boxes = random_boxes(len(x), (height, width), area, generator)
    pieces = [
        F.interpolate(
            image[None, :, top : top + rows, left : left + columns],
            (height, width),
            mode=interpolation,
            antialias=True,
        )
        for image, (top, left, rows, columns) in zip(x, boxes, strict=True)
    ]
    return torch.cat(pieces).clamp(0, 1)


def random_boxes(
    count: int, sides: tuple[int, int], area: tuple[float, float], generator: torch.Generator
) -> list[tuple[int, int, int, int]]:
    """Return (top, left, rows, columns) of random pieces of images of sides (height, width), as torchvision draws them.

    Ten draws of a share of the area and, in log space, of a ratio of the sides are tried; where none fits, the piece is
    the middle of the image, as large as the bounds of the ratio allow.
    """
    draws = torch.rand((count, 10, 4), generator=host_generator(generator)).tolist()
    return [_first_that_fits(tries, sides, area) for tries in draws]


def _first_that_fits(
    draws: list[list[float]], sides: tuple[int, int], area: tuple[float, float]
) -> tuple[int, int, int, int]:
    height, width = sides
    low, high = math.log(3 / 4), math.log(4 / 3)
    for share, ratio, down, across in draws:
        target = height * width * (area[0] + (area[1] - area[0]) * share)
        aspect = math.exp(low + (high - low) * ratio)
        columns, rows = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            return int(down * (height - rows + 1)), int(across * (width - columns + 1)), rows, columns
    rows, columns = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


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
