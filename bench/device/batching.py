"""How many samples a classifier is given at once: chosen by measurement, halved where memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.device.timing import Instruments, Work, seconds_of
from bench.types import Classifier

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What the messages of devices that are out of memory contain."""

GAIN = 1.03
"""Throughput that a larger batch must have over a smaller one to be preferred."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether a device says that it has no more memory."""
    return any(text in str(error).lower() for text in OUT_OF_MEMORY)


def halving(classifier: Classifier) -> Classifier:
    """Return a classifier that splits a batch in two, again and again, where it does not fit into memory.

    The samples, their noise and their order stay as they are, so that counts do not change but for what the
    network's arithmetic makes of its batch.
    """

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        try:
            return classifier(x_noisy, sigma, keys)
        except RuntimeError as error:
            if len(x_noisy) == 1 or not is_out_of_memory(error):
                raise
        if x_noisy.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(x_noisy) // 2
        parts = (slice(None, half), slice(half, None))
        return torch.cat(
            [classify(x_noisy[part], sigma, None if keys is None else keys[part]) for part in parts]
        )

    return classify


def measured_batch_size(
    work_of: Callable[[int], Work], candidates: Sequence[int], meters: Instruments
) -> int:
    """Return the smallest batch size beyond which throughput gains less than 3%.

    Args:
        work_of: batch size -> what classifies batches of that size.
        candidates: sizes to try, ascending; a size that does not fit into memory ends the trial.
    """
    best, best_rate = candidates[0], 0.0
    for size in candidates:
        try:
            rate = size / _seconds(work_of(size), meters)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        if rate < GAIN * best_rate:
            break
        best, best_rate = size, rate
    return best


def _seconds(work: Work, meters: Instruments) -> float:
    """Return the shortest of three times of a batch, after one that warms up."""
    return min([seconds_of(work, 1, meters) for _ in range(4)][1:])
