"""The certifier: counts of classes under seeded noise, and what they certify (arXiv 1902.02918, Alg. 1).

One certifier serves every method. It adds the noise; a method sees noisy pixels, sigma and sample identities.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import torch
from torch import Tensor, nn

from bench.errors import DataError, ModelError, NumericalError, UsageError
from bench.estimation import Rule, bound_tail, is_settled, table_tails
from bench.noise import NOISE_BLOCK, Stage, image_uniform, noise_block, sample_keys
from bench.stats import binomial_two_sided_p, radius
from bench.types import ABSTAIN, Bound, Certificate, Classifier, Estimation


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How an image is certified.

    Attributes:
        n0: noisy samples that select the class, >= 1.
        n: noisy samples that estimate its probability, >= 1.
        alpha: probability that a certificate is wrong, at most; in (0, 1).
        seed: seed of all noise, >= 0.
        estimation: how the n samples are spent; see `bench.estimation`.
        bound: the bound at n samples; the randomised one takes its uniform from (seed, index).
        radii: radii of the table, in pixel units, whose verdicts sequential estimation settles; else unused.
    """

    n0: int
    n: int
    alpha: float
    seed: int
    estimation: Estimation = "fixed"
    bound: Bound = "clopper-pearson"
    radii: tuple[float, ...] = ()

    def rule(self, index: int) -> Rule:
        """Return how the counts of one image become a bound."""
        return Rule(
            n=self.n,
            alpha=self.alpha,
            estimation=self.estimation,
            bound=self.bound,
            uniform=image_uniform(self.seed, index) if self.bound == "randomised" else 0.0,
        )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Which noise is drawn: the first `samples` samples of the stream of (seed, index, stage)."""

    seed: int
    index: int
    stage: Stage
    samples: int


Stop = Callable[[Sequence[int]], bool]
"""Says of the counts of whole blocks of noise whether they are enough."""


def certify(
    classifier: Classifier,
    x: Tensor,
    *,
    sigma: float,
    index: int,
    protocol: Protocol,
    batch_size: int,
    num_classes: int,
    label: int | None = None,
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
        label: the true class. Estimation other than "fixed" draws no estimation samples where the selected class
            is another: the image counts as incorrect whatever they would say. None: never skip.

    Returns:
        Class, radius in pixel units and the counts of both stages; the lowest class wins a tie in selection.
        Sequential estimation may stop early, and its radius is then a lower bound of what n samples certify.

    Raises:
        DataError: x is not a finite (C, H, W) float32 image in [0,1].
        UsageError: another argument lies outside its range.
        ModelError: the logits do not have shape (B, num_classes).
        NumericalError: a logit is NaN or infinite.
    """
    _check_arguments(x, sigma, protocol, batch_size, num_classes)

    count = partial(count_classes, classifier, x, sigma=sigma, batch_size=batch_size, num_classes=num_classes)

    def draws(stage: Stage, samples: int) -> Draws:
        return Draws(seed=protocol.seed, index=index, stage=stage, samples=samples)

    selection = count(draws=draws("selection", protocol.n0))
    selected = selection.index(max(selection))
    if protocol.estimation != "fixed" and label is not None and selected != label:
        return _skipped(selection, selected)
    rule, stop = protocol.rule(index), None
    if protocol.estimation == "sequential":
        stop = _stopping(selected, rule, table_tails(protocol.radii, sigma))
    estimation = count(draws=draws("estimation", protocol.n), stop=stop)
    return certificate_of(selection, estimation, sigma, rule)


def certificate_of(
    selection: tuple[int, ...], estimation: tuple[int, ...], sigma: float, rule: Rule
) -> Certificate:
    """Return what the counts of both stages, one per class, certify; see `certify`."""
    selected = selection.index(max(selection))
    tail = bound_tail(estimation[selected], sum(estimation), rule)
    return Certificate(
        predict=selected if tail <= 0.5 else ABSTAIN,
        radius=radius(tail, sigma),
        counts_selection=_sparse(selection),
        counts_estimation=_sparse(estimation),
        samples=sum(selection) + sum(estimation),
    )


def _skipped(selection: tuple[int, ...], selected: int) -> Certificate:
    return Certificate(
        predict=selected,
        radius=0.0,
        counts_selection=_sparse(selection),
        counts_estimation=(),
        samples=sum(selection),
    )


def _stopping(selected: int, rule: Rule, tails: tuple[float, ...]) -> Stop:
    return lambda counts: is_settled(counts[selected], sum(counts), rule, tails)


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
    classifier: Classifier,
    x: Tensor,
    *,
    sigma: float,
    draws: Draws,
    batch_size: int,
    num_classes: int,
    stop: Stop | None = None,
) -> tuple[int, ...]:
    """Return how often each class is predicted under noise.

    The counts stay on the device until the last batch, so that no batch waits for another. They depend on
    batch_size only as far as the network's own arithmetic does.

    Args: as in `certify`, which checks them; `draws` says which noise. `stop` says of the counts of the first
        blocks of noise whether they are enough; it is asked before the first and after each whole block.

    Returns:
        (num_classes) counts that sum to draws.samples, or to less where `stop` ended them; the lowest class wins
        a tie between logits.

    Raises:
        ModelError: the logits do not have shape (B, num_classes).
        NumericalError: a logit is NaN or infinite.
    """
    batches = predicted_classes(
        classifier, x, sigma=sigma, draws=draws, batch_size=batch_size, num_classes=num_classes
    )
    *counts, bad = (
        _count_all(batches, num_classes, x.device)
        if stop is None
        else _count_until(stop, batches, num_classes)
    )
    if bad:
        raise NumericalError(
            f"logits are NaN or infinite in {bad} of {draws.samples} {draws.stage} samples of image "
            f"{draws.index} at sigma {sigma:g}: check the checkpoint, or run in float32"
        )
    return tuple(counts)


def predicted_classes(
    classifier: Classifier, x: Tensor, *, sigma: float, draws: Draws, batch_size: int, num_classes: int
) -> Iterator[Tensor]:
    """Yield the predicted classes (B,) of each batch, num_classes where a logit is NaN or infinite.

    Args, Raises: as in `count_classes`; call it under inference mode.
    """
    for noise, keys in _batches(_blocks(draws, x), batch_size):
        logits = classifier(noise.mul_(sigma).add_(x), sigma, keys)
        _check_shape(logits, len(keys), num_classes)
        yield logits.argmax(1).masked_fill_(~logits.isfinite().all(1), num_classes)


def _count_all(batches: Iterator[Tensor], num_classes: int, device: torch.device) -> list[int]:
    """Return the counts of all samples, those of a logit that is not finite at the end."""
    counts = torch.zeros(num_classes + 1, dtype=torch.int64, device=device)
    for labels in batches:
        counts.scatter_add_(0, labels, torch.ones_like(labels))
    return counts.tolist()


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
    if len(pieces) == 1:  # a batch within one block is not copied
        return pieces[0]
    return torch.cat([noise for noise, _ in pieces]), torch.cat([keys for _, keys in pieces])


def _sparse(counts: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((label, count) for label, count in enumerate(counts) if count)


def check_protocol(protocol: Protocol) -> None:
    """Return nothing for a protocol that can be run.

    Raises:
        UsageError: n0, n, alpha or seed lies outside its range; the message names it.
    """
    for name, count, least in (("n0", protocol.n0, 1), ("n", protocol.n, 1), ("seed", protocol.seed, 0)):
        if not isinstance(count, int) or isinstance(count, bool) or count < least:
            raise UsageError(f"{name} must be a whole number of at least {least}, got {count!r}")
    if not 0 < protocol.alpha < 1:
        raise UsageError(f"alpha must lie between 0 and 1, such as 0.001, got {protocol.alpha!r}")
    for name, value, known in (
        ("estimation", protocol.estimation, get_args(Estimation)),
        ("bound", protocol.bound, get_args(Bound)),
    ):
        if value not in known:
            raise UsageError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if protocol.estimation == "sequential" and not protocol.radii:
        raise UsageError("sequential estimation needs the radii whose verdicts it settles, got none")


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
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (samples, num_classes):
        raise ModelError(
            f"the classifier must return logits of shape ({samples}, {num_classes}), one row per "
            f"sample and one column per class, got {shape}: use a model of these classes"
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
