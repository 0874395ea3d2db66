"""Mixup, cutmix and label smoothing of a training batch, drawn from the step's generator."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.training.augmentation import host_generator


def soft_labels(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Return (B,K) probabilities for labels (B,): 1 - smoothing on the label, plus smoothing/K on every class."""
    return F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes


def mix(
    x: Tensor, targets: Tensor, generator: torch.Generator, *, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Return images (B,C,H,W) and targets (B,K), each mixed with those of the batch in reverse order.

    One share is drawn for the whole batch: by mixup (arXiv 1710.09412) or by cutmix (arXiv 1905.04899), each with
    probability 1/2 where both are on.

    Args:
        mixup, cutmix: a of the share's distribution Beta(a, a); 0 = off.
    """
    if mixup == cutmix == 0:
        return x, targets
    draws = np.random.default_rng(int(torch.randint(2**62, (), generator=host_generator(generator))))
    cuts = cutmix > 0 and (mixup == 0 or draws.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(draws.beta(alpha, alpha))
    if cuts:
        x, share = _paste(x, share, draws)
    else:
        x = torch.lerp(x.flip(0), x, share)
    return x, torch.lerp(targets.flip(0), targets, share)


def _paste(x: Tensor, share: float, draws: np.random.Generator) -> tuple[Tensor, float]:
    """Return images with a box of the reversed batch in them, and the share of pixels that stayed.

    The box has sides sqrt(1 - share) times the image's and a uniform centre; what lies outside is cut off.
    """
    height, width = x.shape[2:]
    centre_y, centre_x = int(draws.integers(height)), int(draws.integers(width))
    half_y, half_x = (int(side * math.sqrt(1 - share)) // 2 for side in (height, width))
    rows = slice(max(0, centre_y - half_y), min(height, centre_y + half_y))
    columns = slice(max(0, centre_x - half_x), min(width, centre_x + half_x))
    pasted = x.clone()
    pasted[:, :, rows, columns] = x.flip(0)[:, :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return pasted, 1 - area / (height * width)
