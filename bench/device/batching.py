"""How many samples a classifier is given at once: chosen by measurement, halved where memory does not suffice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.device.timing import Instruments, Work, seconds_of
from bench.errors import ModelError
from bench.types import Classifier

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "alloc_failed",  # of cuBLAS and cuDNN
    "cublas_status_not_initialized",  # where no memory is left to begin with
    "cudnn_status_not_initialized",
    "invalid configuration argument",  # more blocks than a launch may have
    "allocation_failed",  # of cuDNN 9
    "unable to find an engine",  # cuDNN, where none has room for its workspace
    "less than int_max elements",
    "integer out of range",
)
"""What the messages of devices contain to which a batch is too large, in small letters."""

GAIN = 1.03
"""Throughput that a larger batch must have over a smaller one to be preferred."""


TRIAL_SECONDS = 20.0
"""About how long the trial of batch sizes may take for a method, after which it ends with the best so far."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a device says that a batch is too large for it."""
    return any(text in str(error).lower() for text in OUT_OF_MEMORY)


def halving(classifier: Classifier) -> Classifier:
    """Return a classifier that splits a batch in two, again and again, where it does not fit into memory.

    The samples, their noise and their order stay as they are, so that counts do not change but for what the
    network's arithmetic makes of its batch. The size that did not fit is not tried again.

    The classifier raises ModelError where a batch that did not fit was written into before it failed: its parts would
    be other images.
    """
    most: int | None = None

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        nonlocal most
        size = len(x_noisy)
        if most is None or size <= most:
            first = x_noisy[:1].clone()
            try:
                return classifier(x_noisy, sigma, keys)
            except RuntimeError as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                if not torch.equal(first, x_noisy[:1]):
                    raise ModelError(
                        f"a batch of {size} does not fit into memory, and the classifier has written into it, so that "
                        "it cannot be divided: give a smaller --batch-size, or let the classifier copy its input"
                    ) from error
            if x_noisy.device.type == "cuda":
                torch.cuda.empty_cache()
            most = size // 2
        part = max(1, min(most, size // 2))
        parts = [slice(start, start + part) for start in range(0, size, part)]
        return torch.cat(
            [classify(x_noisy[part], sigma, None if keys is None else keys[part]) for part in parts]
        )

    return classify


def filled(classifier: Classifier, size: int) -> Classifier:
    """Return a classifier that fills each batch up to `size` with copies of its first sample, and drops their logits.

    So a network that is compiled for one shape, or recorded as a graph, sees no other. Larger batches stay as they are.
    """

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        missing = size - len(x_noisy)
        if missing <= 0:
            return classifier(x_noisy, sigma, keys)
        x_noisy = torch.cat([x_noisy, x_noisy[:1].expand(missing, *x_noisy.shape[1:])])
        if keys is not None:
            keys = torch.cat([keys, keys[:1].expand(missing)])
        return classifier(x_noisy, sigma, keys)[: size - missing]

    return classify


def measured_batch_size(
    work_of: Callable[[int], Work], candidates: Sequence[int], meters: Instruments
) -> int:
    """Return the smallest batch size beyond which throughput gains less than 3%, as far as TRIAL_SECONDS tell.

    Args:
        work_of: batch size -> what classifies batches of that size.
        candidates: sizes to try, ascending; a size that does not fit into memory ends the trial, and so does one that
            would probably outlast it. The first one is run whatever it takes.
    """
    best, best_rate, end = candidates[0], 0.0, math.inf
    for size in candidates:
        if best_rate and meters.clock() + 2 * size / best_rate > end:
            break
        try:
            rate = size / shortest_seconds(work_of(size), meters, end)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        end = min(end, meters.clock() + TRIAL_SECONDS)  # the first size's first batch loads libraries
        if rate < GAIN * best_rate:
            break
        best, best_rate = size, rate
    return best


TRIALS, LONG_SECONDS = 3, 1.0
"""Batches of which the shortest counts; where one takes longer, it is one batch."""


def shortest_seconds(work: Work, meters: Instruments, end: float = math.inf) -> float:
    """Return the shortest time of a batch after one that warms up, of those that begin before the clock is at `end`."""
    times: list[float] = []
    seconds_of(work, 1, meters)
    while len(times) < TRIALS and (
        not times or (times[-1] < LONG_SECONDS and meters.clock() + times[-1] < end)
    ):
        times.append(seconds_of(work, 1, meters))
    return min(times)


def trial_batches(batch_seconds: float) -> int:
    """Return how many batches `shortest_seconds` runs."""
    return 1 + (1 if batch_seconds >= LONG_SECONDS else TRIALS)
