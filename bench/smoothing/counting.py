"""Counts of predicted classes under seeded noise; batches run on from one image into the next.

The noise is added here, in float32; a method sees noisy pixels, sigma and sample identities.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypeGuard

import torch
from torch import Tensor

from bench.errors import DataError, NumericalError, UsageError, shown
from bench.smoothing.classifiers import check_shape
from bench.smoothing.noise import NOISE_BLOCK, Series, Stage, noise_block, noisy_samples, sample_keys
from bench.types import LARGEST_SIGMA, Classifier


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Which noise is drawn: the first `samples` samples of the stream of (seed, index, stage)."""

    seed: int
    index: int
    stage: Stage
    samples: int


Stop = Callable[[Sequence[int]], bool]
"""Says of the counts of whole blocks of noise whether they are enough."""


def count_classes(
    classifier: Classifier,
    x: Tensor,
    *,
    sigma: float,
    draws: Draws,
    batch_size: int,
    num_classes: int,
    stop: Stop | None = None,
) -> tuple[int, ...]:
    """Return how often each class is predicted for one image under noise.

    Args: as in `count_group`, for x (C, H, W). `stop` says of the counts of the first blocks of noise whether
        they are enough; it is asked before the first and after each whole block, and makes batches wait. So that few
        samples are classified in vain, the first batch is one block, and each has up to twice the size of the last.

    Returns:
        (num_classes) counts that sum to draws.samples, or to less where `stop` ended them; the lowest class wins
        a tie between logits.

    Raises:
        ModelError: the logits do not have shape (B, num_classes).
        NumericalError: a logit is NaN or infinite.
    """
    if stop is None:
        [counts] = count_group(
            classifier, x[None], sigma=sigma, draws=[draws], batch_size=batch_size, num_classes=num_classes
        )
        return counts
    with torch.inference_mode():
        batches = predicted_classes(
            classifier,
            x[None],
            sigma=sigma,
            draws=[draws],
            sizes=_growing(batch_size),
            num_classes=num_classes,
        )
        return _finite(_count_until(stop, batches, num_classes), draws, sigma)


@torch.inference_mode()
def count_group(
    classifier: Classifier,
    images: Tensor,
    *,
    sigma: float,
    draws: Sequence[Draws],
    batch_size: int,
    num_classes: int,
) -> list[tuple[int, ...]]:
    """Return how often each class is predicted for each image under noise, in full batches.

    The counts stay on the device until the last batch, so that no batch waits for another. They depend on
    batch_size, and on the other images, only as far as the network's own arithmetic does.

    Args:
        classifier: from noisy pixels to logits.
        images: (G, C, H, W) float32 in [0,1], on the device of the classifier.
        sigma: standard deviation of the noise in pixel units.
        draws: G times which noise is drawn, all with the same number of samples.
        batch_size: samples per call of the classifier.
        num_classes: columns of the logits.

    Returns, Raises: as in `count_classes`, for each image; an error names the first image that it concerns.
    """
    columns = num_classes + 1
    counts = torch.zeros(len(draws) * columns, dtype=torch.int64, device=images.device)
    start = 0
    for labels in predicted_classes(
        classifier,
        images,
        sigma=sigma,
        draws=draws,
        sizes=itertools.repeat(batch_size),
        num_classes=num_classes,
    ):
        cells = labels + columns * _owners(start, len(labels), draws, images.device)
        counts.scatter_add_(0, cells, torch.ones_like(cells))
        start += len(labels)
    return [
        _finite(row, drawn, sigma)
        for row, drawn in zip(counts.view(len(draws), columns).tolist(), draws, strict=True)
    ]


def predicted_classes(
    classifier: Classifier,
    images: Tensor,
    *,
    sigma: float,
    draws: Sequence[Draws],
    sizes: Iterator[int],
    num_classes: int,
) -> Iterator[Tensor]:
    """Yield the predicted classes (B,) of each batch, num_classes where a logit is NaN or infinite.

    The samples of the first image come first, then those of the second, and so on.

    Args, Raises: as in `count_group`, with the size of each batch; call it under inference mode.
    """
    if draws_at_once(images.device):
        yield from _predicted_at_once(classifier, images, sigma, draws, sizes, num_classes)
        return
    start = 0
    blocks: Iterator[tuple[Tensor, Tensor]] = itertools.chain.from_iterable(
        _blocks(drawn, images) for drawn in draws
    )
    if images.device.type == "cpu" and len(draws) * draws[0].samples > NOISE_BLOCK:
        blocks = _ahead(blocks)
    for noise, keys in _batches(blocks, sizes):
        x = images if len(draws) == 1 else images[_owners(start, len(keys), draws, images.device)]
        logits = classifier(noise.mul_(sigma).add_(x), sigma, keys)
        yield classes_of(logits, len(keys), num_classes)
        start += len(keys)


def clean_classes(
    classifier: Classifier,
    images: Tensor,
    *,
    sigma: float,
    draws: Sequence[Draws],
    batch_size: int,
    num_classes: int,
) -> list[int]:
    """Return the class predicted for each image (G, C, H, W) without noise, under the keys of its first sample.

    Args, Raises: as in `count_group`; call it under inference mode.
    """
    classes: list[int] = []
    for start in range(0, len(images), batch_size):
        x, drawn = images[start : start + batch_size], draws[start : start + batch_size]
        keys = [sample_keys(one.seed, one.index, one.stage, 0, x.device)[:1] for one in drawn]
        logits = classifier(
            x.clone(), sigma, torch.cat(keys)
        )  # a copy, since a classifier may write into its input
        check_shape(logits, len(x), num_classes)
        if not (finite := logits.isfinite().all(1)).all():
            bad = drawn[int(finite.int().argmin())].index
            raise NumericalError(
                f"logits are NaN or infinite for image {bad} without noise at sigma {sigma:g}: check the checkpoint, "
                "or run in float32"
            )
        classes += logits.argmax(1).tolist()
    return classes


def draws_at_once(device: torch.device) -> bool:
    """Return whether the noise of a whole batch is drawn at once on a device, not block by block."""
    return device.type == "cuda"


def _predicted_at_once(
    classifier: Classifier,
    images: Tensor,
    sigma: float,
    draws: Sequence[Draws],
    sizes: Iterator[int],
    num_classes: int,
) -> Iterator[Tensor]:
    """Yield what `predicted_classes` does, the noise of each batch drawn at once."""
    first = draws[0]
    series = Series(seed=first.seed, stage=first.stage, samples=first.samples)
    indices = torch.tensor([drawn.index for drawn in draws])
    if images.device.type == "cuda":
        indices = indices.pin_memory()  # from other memory the copy would wait for the device
    indices = indices.to(images.device, non_blocking=True)
    start, total = 0, len(draws) * first.samples
    while start < total:
        size = min(next(sizes), total - start)
        x_noisy, keys = noisy_samples(images, indices, series, start=start, size=size, sigma=sigma)
        logits = classifier(x_noisy, sigma, keys)
        del x_noisy  # or it would be there beside the next batch
        yield classes_of(logits, size, num_classes)
        start += size


def _growing(batch_size: int) -> Iterator[int]:
    """Yield sizes of batches: a block, then twice the last up to batch_size, for ever."""
    size = min(NOISE_BLOCK, batch_size)
    while True:
        yield size
        size = min(2 * size, batch_size)


def classes_of(logits: Tensor, samples: int, num_classes: int) -> Tensor:
    """Return the predicted classes (samples,) of logits, num_classes where one is NaN or infinite.

    Raises:
        ModelError: they have another shape than (samples, num_classes).
    """
    check_shape(logits, samples, num_classes)
    return logits.argmax(1).masked_fill_(~logits.isfinite().all(1), num_classes)


def _owners(start: int, size: int, draws: Sequence[Draws], device: torch.device) -> Tensor:
    """Return the position of the image (size,) that each sample belongs to, counted from sample `start`."""
    return torch.arange(start, start + size, device=device) // draws[0].samples


def _finite(counts: list[int], draws: Draws, sigma: float) -> tuple[int, ...]:
    *counts, bad = counts
    if bad:
        raise NumericalError(
            f"logits are NaN or infinite in {bad} of {draws.samples} {draws.stage} samples of image "
            f"{draws.index} at sigma {sigma:g}: check the checkpoint, or run in float32"
        )
    return tuple(counts)


def _count_until(stop: Stop, batches: Iterator[Tensor], num_classes: int) -> list[int]:
    """Return the counts of the fewest whole blocks that `stop` finds enough, or of all samples."""
    counts = [0] * (num_classes + 1)
    if stop(counts[:-1]):
        return counts
    labels = itertools.chain.from_iterable(batch.tolist() for batch in batches)
    for position, label in enumerate(labels, 1):
        counts[label] += 1
        if position % NOISE_BLOCK == 0 and (counts[-1] or stop(counts[:-1])):
            break
    return counts


def _blocks(draws: Draws, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (noise, keys) of each block once, the last one cut to the samples that are asked for."""
    shape, device = tuple(images.shape[1:]), images.device
    for block in range(math.ceil(draws.samples / NOISE_BLOCK)):
        kept = min(NOISE_BLOCK, draws.samples - block * NOISE_BLOCK)
        noise = noise_block(draws.seed, draws.index, draws.stage, block, shape, device, kept)
        yield noise, sample_keys(draws.seed, draws.index, draws.stage, block, device)[:kept]


def _ahead(blocks: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the blocks, each drawn by another thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, blocks, None)
        while (block := following.result()) is not None:
            following = thread.submit(next, blocks, None)
            yield block


def _batches(
    blocks: Iterator[tuple[Tensor, Tensor]], sizes: Iterator[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield fresh (noise, keys) of these sizes, the last one shorter, cut in order from the blocks."""
    pieces: list[tuple[Tensor, Tensor]] = []
    missing = next(sizes)
    for noise, keys in blocks:
        while len(keys):
            pieces.append((noise[:missing], keys[:missing]))
            noise, keys = noise[missing:], keys[missing:]
            missing -= len(pieces[-1][1])
            if missing == 0:
                yield _joined(pieces)
                pieces, missing = [], next(sizes)
    if pieces:
        yield _joined(pieces)


def _joined(pieces: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(pieces) == 1:  # a batch within one block is not copied
        return pieces[0]
    return torch.cat([noise for noise, _ in pieces]), torch.cat([keys for _, keys in pieces])


def check_images(images: Sequence[Tensor]) -> None:
    """Return nothing for images that can be certified; their values are asked of a device once for all.

    Raises:
        DataError: one is not (C, H, W) float32 in [0,1]; the message names what it is.
    """
    for x in images:
        _check_form(x)
    for low, high in _extremes(images):
        _check_values(low, high)


def _extremes(images: Sequence[Tensor]) -> list[list[float]]:
    """Return the lowest and the highest value of each image: images of one shape in a single operation."""
    if len({(x.shape, x.device) for x in images}) == 1:
        return torch.stack(torch.stack(list(images)).flatten(1).aminmax(dim=1), 1).tolist()
    return torch.stack([torch.stack(x.aminmax()) for x in images]).tolist() if images else []


def _check_form(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise DataError(
            f"an image must be a torch tensor (C, H, W), got {type(x).__name__}: torch.from_numpy makes one of an array"
        )
    if x.ndim != 3 or x.dtype != torch.float32 or x.numel() == 0:
        shapes = {2: ": give image[None]", 4: ": give one image of the batch, such as images[0]"}
        types = {torch.float32: shapes.get(x.ndim, ""), torch.uint8: ": give image.float() / 255"}
        remedy = types.get(x.dtype, ": give image.float()")
        raise DataError(f"an image must be (C, H, W) float32, got shape {tuple(x.shape)}, {x.dtype}{remedy}")
    if x.shape[2] in (3, 4) and min(x.shape[:2]) > 4:
        raise DataError(
            f"an image must be (C, H, W), got shape {tuple(x.shape)}: give image.permute(2, 0, 1)"
        )
    if x.layout != torch.strided or x.device.type == "meta":
        raise DataError(f"an image must be a dense tensor with values, got {x.layout} on {x.device.type}")


def _check_values(low: float, high: float) -> None:
    """Raise DataError for an image of values from low to high, both NaN where one is, that cannot be certified."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError("an image must hold finite numbers, got NaN or infinity")
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"an image must lie in [0,1], got values from {low:.9g} to {high:.9g}: undo its normalisation, "
            "which belongs in the model (radii in [-1,1] units would be twice too large), or divide bytes by 255"
        )


def checked_sigma(sigma: object) -> float:
    """Return a noise level of images in [0,1] as a float: radii would be rounded to another type of number.

    Raises:
        UsageError: it is no positive number, or above LARGEST_SIGMA.
    """
    if is_number(sigma) and LARGEST_SIGMA < sigma < math.inf:
        raise UsageError(
            f"sigma must be in units of pixels in [0,1], at most {LARGEST_SIGMA:g}, got {shown(sigma)}: divide one of "
            "0 to 255 by 255"
        )
    if not is_number(sigma) or not 0 < float(sigma) < math.inf:
        raise UsageError(f"sigma must be a positive number in pixel units, such as 0.5, got {shown(sigma)}")
    return float(sigma)


def checked_count(name: str, count: object, least: int, bits: int = 63) -> int:
    """Return a whole number from `least` on, below 2**bits, as an int.

    Raises:
        UsageError: it is another; the message names it.
    """
    if not isinstance(count, Integral) or isinstance(count, bool) or int(count) < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, got {shown(count)}")
    if int(count) >= 2**bits:
        raise UsageError(f"{name} must be below 2**{bits}, got {shown(count)}")
    return int(count)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a real number, which True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)
