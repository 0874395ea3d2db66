"""What costs are measured on: noisy samples, drawn as certificates draw them, through a classifier to counts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.device.timing import Work
from bench.smoothing.certifier import Smoothed
from bench.smoothing.classifiers import check_shape
from bench.smoothing.counting import classes_of, draws_at_once
from bench.smoothing.noise import NOISE_BLOCK, Series, noise_block, noisy_samples, sample_keys


@dataclass(frozen=True, kw_only=True)
class Stream:
    """An endless stream of noisy samples of some images through a classifier.

    Attributes:
        smoothed: the classifier under its noise, at the precision to measure; batches have sizes of their own.
        images: (I, C, H, W) float32 in [0,1], on the device of the classifier, which batches take in turn.
    """

    smoothed: Smoothed
    images: Tensor

    def work(self, batch_size: int) -> Work:
        """Return what draws, classifies and counts the next batch.

        What is timed is one call or several: each draws the noise of exactly its own samples, in whole blocks as
        certificates do and the rest as a part of a block. (Certificates draw that block whole, for several small
        batches.) Then it adds the noise to the image, classifies, and counts on the device.
        """
        numbers, counts = itertools.count(), self.no_counts()

        @torch.inference_mode()
        def batch() -> Tensor:
            x_noisy, keys = self.noisy_batch(next(numbers), batch_size)
            return self.count(self.classify(x_noisy, keys), counts)

        return Work(batch=batch, size=batch_size)

    def noisy_batch(self, number: int, batch_size: int) -> tuple[Tensor, Tensor]:
        """Return batch number `number`: x_noisy (batch_size, C, H, W), freshly drawn, and keys (batch_size,)."""
        x = self.images[number % len(self.images)]
        if draws_at_once(x.device):
            series = Series(seed=0, stage="estimation", samples=batch_size)
            index = torch.full((1,), number, device=x.device)
            return noisy_samples(x[None], index, series, start=0, size=batch_size, sigma=self.smoothed.sigma)
        whole, rest = divmod(batch_size, NOISE_BLOCK)
        noise, keys = [], []
        for block, size in enumerate([NOISE_BLOCK] * whole + [rest] * (rest > 0)):
            noise.append(noise_block(0, number, "estimation", block, tuple(x.shape), x.device, size))
            keys.append(sample_keys(0, number, "estimation", block, x.device)[:size])
        if len(noise) > 1:
            noise, keys = [torch.cat(noise)], [torch.cat(keys)]
        return noise[0].mul_(self.smoothed.sigma).add_(x), keys[0]

    def classify(self, x_noisy: Tensor, keys: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of noisy samples.

        Raises:
            ModelError: they have another shape.
        """
        logits = self.smoothed.classifier(x_noisy, self.smoothed.sigma, keys)
        check_shape(logits, len(keys), self.smoothed.num_classes)
        return logits

    def no_counts(self) -> Tensor:
        """Return (num_classes + 1,) int64 zeros on the device; the last one counts logits that are not finite."""
        return torch.zeros(self.smoothed.num_classes + 1, dtype=torch.int64, device=self.images.device)

    def count(self, logits: Tensor, counts: Tensor) -> Tensor:
        """Add the predicted classes of logits (B, num_classes) to the counts, which are returned."""
        labels = classes_of(logits, len(logits), self.smoothed.num_classes)
        return counts.scatter_add_(0, labels, torch.ones_like(labels))
