"""How good a network is on held-out images under fixed noise: what training chooses the weights by."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.training.batches import seeded

Classify = Callable[[Tensor], Tensor]
"""Pixels (B,C,H,W) -> logits (B,K)."""


def with_noise(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Return x plus N(0, sigma^2) in the units of x."""
    return x + sigma * torch.randn(x.shape, generator=generator, device=x.device)


@torch.no_grad()
def noisy_accuracy(
    classify: Classify, images: Tensor, labels: Tensor, sigma: float, *, draws: int = 4
) -> float | None:
    """Return the share of noisy copies that are classified right; the noise is fixed. None without images."""
    if len(images) == 0:
        return None
    right = _times_right(classify, images, labels, sigma, draws)
    return float(right.sum()) / (draws * len(images))


@torch.no_grad()
def radius_share(
    classify: Classify, images: Tensor, labels: Tensor, sigma: float, *, draws: int = 16
) -> float | None:
    """Return the mean radius of images under fixed noise, as a share of the largest that `draws` copies can show.

    An image's radius, in units of sigma, is Phi^-1((k + 1/2) / (draws + 1)) for k of its noisy copies classified
    right, and 0 where that is negative: an estimate without a guarantee, for choosing among weights only. It is the one
    criterion by which every method that is trained on noise keeps its weights, since accuracy under noise would prefer
    those from before a method's own term, which gives up accuracy for radius, has its full weight.

    Returns:
        a share in [0,1]; None without images.
    """
    if len(images) == 0:
        return None
    right = _times_right(classify, images, labels, sigma, draws)
    radius = torch.special.ndtri((right + 0.5) / (draws + 1)).clamp_min(0)
    largest = torch.special.ndtri(torch.tensor((draws + 0.5) / (draws + 1)))
    return float(radius.mean().cpu() / largest)


def _times_right(classify: Classify, images: Tensor, labels: Tensor, sigma: float, draws: int) -> Tensor:
    """Return how many of `draws` noisy copies of each image are classified right, (N,)."""
    generator = seeded(images.device, "held-out", len(images))
    right = torch.zeros(len(images), device=images.device)
    for _ in range(draws):
        logits = [classify(with_noise(x, sigma, generator)) for x in images.split(256)]
        right += torch.cat(logits).argmax(1) == labels
    return right
