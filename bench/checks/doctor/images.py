"""The images that a checkpoint is tried on: held-out training images with one draw of noise each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data import sets, subsets
from bench.smoothing.noise import keyed_noise
from bench.types import Split

IMAGES = 64
"""Images of a trial."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images of a trial: x (n,C,H,W) in [0,1], labels (n,) int64, standard normal noise of x's shape."""

    x: Tensor
    labels: NDArray[np.int64]
    noise: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def halves(self) -> tuple[Images, Images]:
        """Return the first half of the images, and the others."""
        middle = len(self) // 2
        first, second = (
            replace(self, x=self.x[part], labels=self.labels[part], noise=self.noise[part])
            for part in (slice(None, middle), slice(middle, None))
        )
        return first, second


def choose_images(split: Split, *, seed: int, count: int = IMAGES) -> Images:
    """Return up to `count` held-out images of a training split, the classes taking turns, with their noise.

    They are those that `bench train` with the same seed did not train on; the certified test images play no part.

    Raises:
        DataError: as in `subsets.held_out` and `data.batch`.
    """
    _, held_out = subsets.training_parts(split, seed)
    ordered = sorted(held_out, key=lambda index: subsets.rank("doctor", seed, "image", index))
    turns: dict[int, int] = {}
    keyed = []
    for index in ordered:
        label = split.labels[index]
        turns[label] = turns.get(label, 0) + 1
        keyed.append((turns[label], subsets.rank("doctor", seed, "class", label), index))
    chosen = [index for _, _, index in sorted(keyed)[:count]]
    x, labels = sets.batch(split, chosen)
    noise = keyed_noise(torch.tensor(chosen), seed, tuple(x.shape[1:]), torch.device("cpu"))
    return Images(x=x, labels=labels.numpy(), noise=noise, class_names=split.class_names)
