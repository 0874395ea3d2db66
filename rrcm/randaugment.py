"""RandAugment by timm (arXiv 1909.13719), drawn from the step's generator."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.errors import UsageError

POLICY = "rand-m9-mstd0.5-inc1"
"""Two operations per image at magnitude 9 of 10 with deviation 0.5, each stronger as the magnitude rises."""


def rand_augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return colour images (B,3,H,W) in [0,1] changed by RandAugment, at 8 bits per value; the same shape and range.

    timm draws from Python's and numpy's global generators: they are seeded from `generator` and put back afterwards.

    Raises:
        UsageError: the images are not colour images.
    """
    if x.shape[1] != 3:
        raise UsageError(f"augmentation 'randaugment' needs 3 channels, got {x.shape[1]}: choose another")
    from timm.data.auto_augment import rand_augment_transform

    transform = rand_augment_transform(POLICY, {"translate_const": int(0.45 * x.shape[-1])})
    pixels = (255 * x).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    with _global_generators_seeded(seed):
        changed = np.stack([np.asarray(transform(Image.fromarray(image))) for image in pixels])
    return torch.from_numpy(changed).to(x.device).permute(0, 3, 1, 2).to(x.dtype) / 255


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
