"""The strong views of MoCo-v3 (arXiv 2104.02057) for colour images, drawn for a whole batch at once on its device."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UsageError
from bench.training.augmentation import host_generator

REACH = 6
"""Pixels on either side that a blur takes in: three times its largest standard deviation."""

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey image (ITU-R BT.601)."""


def distort(x: Tensor, generator: torch.Generator, *, is_first: bool) -> Tensor:
    """Return crops x (B,3,H,W) in [0,1] with random colours, blurred and solarised; the same shape and range.

    Jitter (0.4, 0.4, 0.2, 0.1) with probability 0.8, grey 0.2, a blur of radius 0.1 to 2 always in the first view and
    with 0.1 in the second, solarised with 0.2 in the second (arXiv 2501.13094, pre-training).

    Deviation: the four changes of the jitter come in one random order for the batch, not for each image.

    Raises:
        UsageError: the images are not in colour.
    """
    if x.shape[1] != 3:
        raise UsageError(f"views 'moco' need 3 channels, got {x.shape[1]}: set rrcm.pretrain_views=small")
    x = _sometimes(x, jitter(x, generator), 0.8, generator)
    x = _sometimes(x, grey(x).expand_as(x), 0.2, generator)
    radius = _uniform(x, 0.1, 2.0, generator)
    x = _sometimes(x, blur(x, radius), 1.0 if is_first else 0.1, generator)
    return _sometimes(x, torch.where(x >= 0.5, 1 - x, x), 0.0 if is_first else 0.2, generator)


def jitter(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return x (B,3,H,W) with brightness and contrast times 0.6-1.4, saturation 0.8-1.2, hue off by up to 0.1 turns."""
    brightness, contrast = _uniform(x, 0.6, 1.4, generator), _uniform(x, 0.6, 1.4, generator)
    saturation, turns = _uniform(x, 0.8, 1.2, generator), _uniform(x, -0.1, 0.1, generator)
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda y: y * brightness,
        lambda y: torch.lerp(grey(y).mean(dim=(1, 2, 3), keepdim=True).expand_as(y), y, contrast),
        lambda y: torch.lerp(grey(y).expand_as(y), y, saturation),
        lambda y: shift_hue(y, turns),
    ]
    for position in jitter_order(generator):
        x = changes[position](x).clamp(0, 1)
    return x


def jitter_order(generator: torch.Generator) -> list[int]:
    """Return the random order of the jitter's four changes."""
    return torch.randperm(4, generator=host_generator(generator)).tolist()


def grey(x: Tensor) -> Tensor:
    """Return the grey image (B,1,H,W) of x (B,3,H,W)."""
    red, green, blue = (weight * channel for weight, channel in zip(GREY, x.split(1, dim=1), strict=True))
    return red + green + blue


def shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Return x (B,3,H,W) in [0,1] with its hue moved by `turns` (B,1,1,1) of the colour circle.

    Brightest channel and chroma stay; with hue h in sixths of the circle, a channel is
    max - chroma clamp(min(k, 4 - k), 0, 1), k = (n + h) mod 6 and n = 5, 3, 1 for red, green, blue.
    """
    red, green, blue = x.unbind(dim=1)
    brightest = x.amax(dim=1)
    chroma = brightest - x.amin(dim=1)
    safe = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(
        brightest == red,
        (green - blue) / safe,
        torch.where(brightest == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = hue + 6 * turns[:, 0]
    channels = []
    for start in (5, 3, 1):
        k = (start + hue) % 6
        channels.append(brightest - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)


def blur(x: Tensor, radius: Tensor) -> Tensor:
    """Return x (B,C,H,W) under Gaussian blurs of standard deviation `radius` (B,1,1,1) pixels, mirrored at the edge."""
    offsets = torch.arange(-REACH, REACH + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / radius).square())
    kernel = kernel / kernel.sum(dim=3, keepdim=True)
    padded = F.pad(x, (REACH, REACH, REACH, REACH), mode="reflect")
    height, width = x.shape[2:]
    rows = _weighted([padded[:, :, k : k + height] for k in range(len(offsets))], kernel)
    return _weighted([rows[..., k : k + width] for k in range(len(offsets))], kernel)


def _weighted(shifted: list[Tensor], kernel: Tensor) -> Tensor:
    """Return the sum of the shifted images, each times its column of kernel (B,1,1,K)."""
    total = torch.zeros_like(shifted[0])
    for k, image in enumerate(shifted):
        total.addcmul_(image, kernel[..., k : k + 1])
    return total


def _uniform(x: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand((len(x), 1, 1, 1), generator=generator, device=x.device)


def _sometimes(x: Tensor, changed: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return each image changed with this probability."""
    chosen = torch.rand((len(x), 1, 1, 1), generator=generator, device=x.device) < probability
    return torch.where(chosen, changed, x)
