"""The certifier: counts of classes under seeded noise, and what they certify (arXiv 1902.02918, Alg. 1).

One certifier serves every method. It adds the noise; a method sees noisy pixels, sigma and sample identities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.errors import DataError, NumericalError, UsageError
from bench.noise import NOISE_BLOCK, Stage, noise_block, sample_keys
from bench.stats import binomial_two_sided_p, radius, upper_tail
from bench.types import ABSTAIN, Certificate, Classifier


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How an image is certified.

    Attributes:
        n0: noisy samples that select the class, >= 1.
        n: noisy samples that estimate its probability, >= 1.
        alpha: probability that a certificate is wrong, at most; in (0, 1).
        seed: seed of all noise, >= 0.
    """

    n0: int
    n: int
    alpha: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Which noise is drawn: the first `samples` samples of the stream of (seed, index, stage)."""

    seed: int
    index: int
    stage: Stage
    samples: int


def certify(
    classifier: Classifier,
    x: Tensor,
    *,
    sigma: float,
    index: int,
    protocol: Protocol,
    batch_size: int,
    num_classes: int,
) -> Certificate:
    """Return the certificate of one image (CERTIFY of arXiv 1902.02918, Alg. 1).

    With probability at least 1 - alpha over the noise, the smoothed classifier returns `predict` everywhere
    within L2 distance `radius` of x, or `predict` is ABSTAIN. The guarantee holds for each image by itself.

    Args:
        classifier: from noisy pixels to logits; it runs under inference mode.
        x: (C, H, W) float32 in [0,1], on the device of the classifier.
        sigma: standard deviation of the noise in pixel units, > 0.
        index: identity of the image; it picks the noise.
        protocol: sample counts, level and seed.
        batch_size: samples per call of the classifier, >= 1; the noise does not depend on it.
        num_classes: columns of the logits, >= 2.

    Returns:
        Class, radius in pixel units and the counts of both stages; the lowest class wins a tie in selection.

    Raises:
        DataError: x is not a finite (C, H, W) float32 image in [0,1].
        UsageError: another argument lies outside its range, or the logits do not have shape (B, num_classes).
        NumericalError: a logit is NaN or infinite.
    """
    _check_arguments(x, sigma, protocol, batch_size, num_classes)

    def counts_of(stage: Stage, samples: int) -> tuple[int, ...]:
        draws = Draws(seed=protocol.seed, index=index, stage=stage, samples=samples)
        return count_classes(
            classifier, x, sigma=sigma, draws=draws, batch_size=batch_size, num_classes=num_classes
        )

    selection = counts_of("selection", protocol.n0)
    return _certificate(selection, counts_of("estimation", protocol.n), sigma, protocol)


def _certificate(
    selection: tuple[int, ...], estimation: tuple[int, ...], sigma: float, protocol: Protocol
) -> Certificate:
    selected = selection.index(max(selection))
    tail = upper_tail(estimation[selected], protocol.n, protocol.alpha)
    return Certificate(
        predict=selected if tail <= 0.5 else ABSTAIN,
        radius=radius(tail, sigma),
        counts_selection=_sparse(selection),
        counts_estimation=_sparse(estimation),
        samples=protocol.n0 + protocol.n,
    )


def predict(
    classifier: Classifier,
    x: Tensor,
    *,
    sigma: float,
    index: int,
    protocol: Protocol,
    batch_size: int,
    num_classes: int,
) -> int:
    """Return the smoothed classifier's class, or ABSTAIN (PREDICT of arXiv 1902.02918, Alg. 1).

    The probability of returning another class than the smoothed classifier's is at most alpha. It counts the
    n estimation samples of `certify`; n0 is not used. A tie of the two most frequent classes abstains.

    Args, Raises: as in `certify`.
    """
    _check_arguments(x, sigma, protocol, batch_size, num_classes)
    draws = Draws(seed=protocol.seed, index=index, stage="estimation", samples=protocol.n)
    counts = count_classes(
        classifier, x, sigma=sigma, draws=draws, batch_size=batch_size, num_classes=num_classes
    )
    second, first = sorted(counts)[-2:]
    p_value = binomial_two_sided_p(first, first + second)
    return counts.index(first) if p_value <= protocol.alpha else ABSTAIN


@torch.inference_mode()
def count_classes(
    classifier: Classifier, x: Tensor, *, sigma: float, draws: Draws, batch_size: int, num_classes: int
) -> tuple[int, ...]:
    """Return how often each class is predicted under noise.

    The counts stay on the device until the last batch, so that no batch waits for another. They depend on
    batch_size only as far as the network's own arithmetic does.

    Args: as in `certify`, which checks them; `draws` says which noise.

    Returns:
        (num_classes) counts that sum to draws.samples; the lowest class wins a tie between logits.

    Raises:
        UsageError: the logits do not have shape (B, num_classes).
        NumericalError: a logit is NaN or infinite.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64, device=x.device)
    bad = torch.zeros(1, dtype=torch.int64, device=x.device)
    for noise, keys in _batches(_blocks(draws, x), batch_size):
        logits = classifier(noise.mul_(sigma).add_(x), sigma, keys)
        _check_shape(logits, len(keys), num_classes)
        counts.scatter_add_(0, logits.argmax(1), torch.ones_like(keys))
        bad += (~logits.isfinite().all(1)).sum()
    *result, samples_bad = torch.cat([counts, bad]).tolist()
    if samples_bad:
        raise NumericalError(
            f"logits are NaN or infinite in {samples_bad} of {draws.samples} {draws.stage} samples of image "
            f"{draws.index} at sigma {sigma:g}: check the checkpoint, or run in float32"
        )
    return tuple(result)


def _blocks(draws: Draws, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (noise, keys) of each block once, the last one cut to the samples that are asked for."""
    for block in range(math.ceil(draws.samples / NOISE_BLOCK)):
        kept = min(NOISE_BLOCK, draws.samples - block * NOISE_BLOCK)
        noise = noise_block(draws.seed, draws.index, draws.stage, block, tuple(x.shape), x.device)
        keys = sample_keys(draws.seed, draws.index, draws.stage, block, x.device)
        yield noise[:kept], keys[:kept]


def _batches(blocks: Iterator[tuple[Tensor, Tensor]], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield fresh (noise, keys) of batch_size samples, the last one shorter, cut in order from the blocks."""
    pieces: list[tuple[Tensor, Tensor]] = []
    missing = batch_size
    for noise, keys in blocks:
        while len(keys):
            pieces.append((noise[:missing], keys[:missing]))
            noise, keys = noise[missing:], keys[missing:]
            missing -= len(pieces[-1][1])
            if missing == 0:
                yield _joined(pieces)
                pieces, missing = [], batch_size
    if pieces:
        yield _joined(pieces)


def _joined(pieces: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([noise for noise, _ in pieces]), torch.cat([keys for _, keys in pieces])


def _sparse(counts: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((label, count) for label, count in enumerate(counts) if count)


def check_protocol(protocol: Protocol) -> None:
    """Return nothing for a protocol that can be run.

    Raises:
        UsageError: n0, n, alpha or seed lies outside its range; the message names it.
    """
    for name, value, least in (("n0", protocol.n0, 1), ("n", protocol.n, 1), ("seed", protocol.seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if not 0 < protocol.alpha < 1:
        raise UsageError(f"alpha must lie between 0 and 1, such as 0.001, got {protocol.alpha!r}")


def _check_arguments(x: Tensor, sigma: float, protocol: Protocol, batch_size: int, num_classes: int) -> None:
    check_image(x)
    check_protocol(protocol)
    if not (sigma > 0 and math.isfinite(sigma)):
        raise UsageError(f"sigma must be a positive number in pixel units, such as 0.5, got {sigma!r}")
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size!r}")
    if num_classes < 2:
        raise UsageError(f"num_classes must be at least 2, got {num_classes!r}")


def check_image(x: Tensor) -> None:
    """Return nothing for an image that can be certified.

    Raises:
        DataError: x is not (C, H, W) float32 in [0,1]; the message names what it is.
    """
    if x.ndim != 3 or x.dtype != torch.float32 or x.numel() == 0:
        raise DataError(f"an image must be (C, H, W) float32, got shape {tuple(x.shape)}, {x.dtype}")
    low, high = torch.stack(x.aminmax()).tolist()
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"an image must lie in [0,1], got values from {low:g} to {high:g}: undo its normalisation, "
            "which belongs in the model (radii in [-1,1] units would be twice too large), or divide bytes by 255"
        )


def _check_shape(logits: Tensor, samples: int, num_classes: int) -> None:
    if tuple(logits.shape) != (samples, num_classes):
        raise UsageError(
            f"the classifier must return logits of shape ({samples}, {num_classes}), one row per "
            f"sample and one column per class, got {tuple(logits.shape)}: use a model of these classes"
        )


def from_module(module: nn.Module) -> Classifier:
    """Return a classifier that calls a torch module on the noisy pixels alone.

    Args:
        module: from (B, C, H, W) pixels to (B, K) logits; its first layer does any normalisation. It is put
            in evaluation mode, because dropout and batch statistics would make a class depend on its batch.
    """
    module.eval()

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        return module(x_noisy)

    return classify
