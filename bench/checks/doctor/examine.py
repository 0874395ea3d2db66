"""A checkpoint on trial: 64 training images, clean and noisy, under what it declares and under known alternatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.checks.doctor import moments
from bench.checks.doctor.denoisers import ask_denoiser
from bench.checks.doctor.images import Images
from bench.checks.doctor.metadata import Subject, fed
from bench.checks.doctor.scalings import Scaling, known_scalings
from bench.checks.doctor.trials import (
    AT_ITS_NOISE,
    CANNOT_TELL,
    IMAGES_PER_CLASS,
    Answer,
    Trial,
    accuracy,
    fit_order,
    judge,
    judge_collapse,
    known_orders,
    not_collapsed,
)
from bench.errors import CheckpointError, NumericalError
from bench.smoothing.classifiers import check_shape
from bench.types import Classifier

LEVELS = (0.0, 0.12, 0.25, 0.5, 1.0)
"""Noise levels that published classifiers are trained at, in pixel units."""

PIXELS_PER_CALL = 2**18
"""Pixels per call of a network: 64 images of 64x64, 4 of 256x256, so that large U-Nets fit in memory."""

OWN_ORDER = "the data set's order"

BY_MOMENTS = "moments kept by batch norm"

SMALLEST_TOLD = 1e-3
"""The sigma that stands for clean images in what a classifier is told."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """A way to use a classifier.

    Attributes:
        classifier: of noisy pixels.
        declared: what its network sees of pixels if nothing is changed.
        scaling: what its network is made to see.
        order: (K,) class that each output stands for.
        sigma: the declared noise level, 0 for clean images; None where nothing is declared.
        levels: noise levels at which readings are compared: clean, and the declared one (see `_usable_levels`).
        batch_size: images per call.
        batch_norm: the network's first batch norm, or None.
    """

    classifier: Classifier
    declared: Scaling
    scaling: Scaling
    order: NDArray[np.int64]
    sigma: float | None
    levels: tuple[float, ...] = (0.0,)
    batch_size: int
    batch_norm: nn.BatchNorm2d | None

    @property
    def tried_levels(self) -> tuple[float, ...]:
        """Noise levels that the network may have been trained at: the published ones and the declared one."""
        return tuple(sorted({*LEVELS, *(() if self.sigma is None else (self.sigma,))}))

    @torch.inference_mode()
    def outputs(self, images: Images, level: float, told: float | None = None) -> NDArray[np.int64]:
        """Return the most likely output (n,) of each image under noise, 0..K-1.

        Args:
            level: standard deviation of the noise in pixel units; 0 for clean images.
            told: the sigma that the classifier is told; None: the true one.

        Raises:
            CheckpointError: another number of outputs than the data set's classes.
            NumericalError: logits that are not finite.
        """
        sigma = max(level, SMALLEST_TOLD) if told is None else told
        keys = torch.arange(len(images), device=images.x.device).split(self.batch_size)
        parts = zip(self._fed(images, level), keys, strict=True)
        found = [self.classifier(x_noisy, sigma, key) for x_noisy, key in parts]
        for part, key in zip(found, keys, strict=True):
            check_shape(part, len(key), part.shape[-1] if isinstance(part, Tensor) and part.ndim else 0)
        logits = torch.cat(found)
        if logits.ndim != 2 or logits.shape[1] != len(self.order):
            raise CheckpointError(
                f"the classifier's logits have shape {tuple(logits.shape)}, but the data set has {len(self.order)} "
                "classes; name the data set it was trained on, or another checkpoint"
            )
        if not bool(logits.isfinite().all()):
            raise NumericalError(
                f"the classifier's logits are not finite at noise {level:g} under {self.scaling.name}; "
                "the checkpoint may be damaged"
            )
        return logits.argmax(dim=1).cpu().numpy()

    def _fed(self, images: Images, level: float) -> tuple[Tensor, ...]:
        """Return noisy pixels in batches, such that the network sees them under the scaling."""
        x_noisy = images.x + level * images.noise
        if self.scaling is not self.declared:
            x_noisy = self.scaling.instead_of(self.declared, x_noisy)
        return x_noisy.split(self.batch_size)

    def mismatch(self, reading: str, images: Images, level: float) -> Trial:
        """Return how far the first batch norm's moments lie from those of the images under noise."""
        assert self.batch_norm is not None
        sigma = max(level, SMALLEST_TOLD)

        def network(x_noisy: Tensor) -> Tensor:
            return self.classifier(x_noisy, sigma, torch.arange(len(x_noisy), device=x_noisy.device))

        measured = moments.measure(self.batch_norm, network, self._fed(images, level))
        return moments.mismatch(reading, self.batch_norm, measured)

    def trial(self, reading: str, images: Images, level: float, told: float | None = None) -> Trial:
        """Return the accuracy under noise as a trial."""
        correct = int((self.order[self.outputs(images, level, told)] == images.labels).sum())
        return accuracy(reading, condition_of(level), correct, len(images))


def condition_of(level: float) -> str:
    """Return a condition's name: "accuracy, clean" or "accuracy, noise 0.25"."""
    return "accuracy, clean" if level == 0 else f"accuracy, noise {level:g}"


def examine(
    subject: Subject, images: Images, device: torch.device, *, batch_size: int | None = None
) -> Iterator[Answer]:
    """Yield the answers of a checkpoint, one question after the other, each asked under the answers found before.

    Args:
        batch_size: images per call; None: as many as hold PIXELS_PER_CALL.

    Raises:
        CheckpointError, NumericalError: as in `Use.outputs`.
    """
    images = replace(images, x=images.x.to(device), noise=images.noise.to(device))
    if batch_size is None:
        batch_size = max(1, min(len(images), PIXELS_PER_CALL // images.x[0, 0].numel()))
    if subject.denoiser is not None:
        subject.denoiser.denoiser.to(device)
        yield from ask_denoiser(subject.denoiser, images, batch_size)
    if subject.classifier is None:
        return
    if subject.network is not None:
        subject.network.to(device)
    classifier, few = subject.classifier, images.x[:2]
    keys = torch.arange(len(few), device=few.device)
    first = None
    if subject.network is not None:
        first = moments.first_batch_norm(
            subject.network, lambda: classifier(few, subject.sigma or 0.25, keys)
        )
    use = Use(
        classifier=subject.classifier,
        declared=subject.scaling,
        scaling=subject.scaling,
        order=np.arange(len(images.class_names)),
        sigma=subject.sigma,
        batch_size=batch_size,
        batch_norm=first,
    )
    yield from _ask_classifier(subject, use, images)


def _ask_classifier(subject: Subject, use: Use, images: Images) -> Iterator[Answer]:
    use = replace(use, levels=_usable_levels(use, images))
    scalings = _scalings(use)
    found = _ask_input(use, scalings, images)
    yield found
    if (name := _only_one(found)) is not None:
        use = replace(use, scaling=scalings[name])
    labels, orders = _ask_labels(use, images)
    yield labels
    if (name := _only_one(labels)) is not None:
        use = replace(use, order=orders[name])
    sigma = _ask_sigma(use, images)
    yield sigma
    if use.sigma and subject.is_told_sigma:
        time = _ask_time(use, use.sigma, images, fed(subject.network).other_times or {})
        in_doubt = sigma.verdict.kind == "looks like"
        yield replace(time, verdict=CANNOT_TELL, by="accuracy: sigma is in doubt") if in_doubt else time


def _usable_levels(use: Use, images: Images) -> tuple[float, ...]:
    """Return clean and the declared level, or the highest below it at which accuracy has not collapsed.

    Where a network was trained at less noise than is declared, another scaling may do better under the declared
    noise for no other reason than that it weakens the noise.
    """
    if not use.sigma:
        return (0.0,)
    levels = {sigma_name(level): level for level in use.tried_levels if level <= use.sigma}
    kept = not_collapsed([use.trial(name, images, level) for name, level in levels.items()])
    return (0.0, levels[kept[-1]]) if levels[kept[-1]] else (0.0,)


def _only_one(answer: Answer) -> str | None:
    """Return the alternative that a checkpoint looks like, if it is one."""
    is_one = answer.verdict.kind == "looks like" and len(answer.verdict.readings) == 1
    return answer.verdict.readings[0] if is_one else None


def _scalings(use: Use) -> dict[str, Scaling]:
    others = (s for s in known_scalings(len(use.declared.factor)) if not s.equals(use.declared))
    return {scaling.name: scaling for scaling in (use.declared, *others)}


def _ask_input(use: Use, scalings: dict[str, Scaling], images: Images) -> Answer:
    """Return what the network looks trained to see of pixels: by accuracy, and where that cannot tell, by moments.

    Labels in another order are no fault of the scaling: each is tried under the order that suits it.
    """
    declared = use.declared.name
    uses = {name: replace(use, scaling=scaling) for name, scaling in scalings.items()}
    orders = {name: _best_order(one, images) for name, one in uses.items()}
    is_own = all(np.array_equal(order, use.order) for order in orders.values())
    tried_on = images if is_own else images.halves()[1]
    trials = tuple(
        replace(one, order=orders[name]).trial(name, tried_on, level)
        for level in use.levels
        for name, one in uses.items()
    )
    verdict = judge(trials, declared)
    by_accuracy = Answer(question="input", declared=declared, trials=trials, verdict=verdict, by="accuracy")
    if verdict.kind != "cannot tell" or use.batch_norm is None:
        return by_accuracy
    mismatches = tuple(_least_mismatch(uses[name], images) for name in (declared, *verdict.readings))
    return Answer(
        question="input",
        declared=declared,
        trials=(*trials, *mismatches),
        verdict=judge(mismatches, declared, margin=moments.SCALING_MARGIN),
        by=BY_MOMENTS,
    )


def _least_mismatch(use: Use, images: Images) -> Trial:
    """Return the least mismatch over noise levels: a scaling is not to blame for noise of another level."""
    trials = (use.mismatch(use.scaling.name, images, level) for level in use.tried_levels)
    return min(trials, key=lambda trial: trial.score)


def _best_order(use: Use, images: Images) -> NDArray[np.int64]:
    """Return the data set's order, or the one that beats it on the first half of the images."""
    outputs, labels = _first_half(use, images)
    orders = _orders(use, images, outputs, labels)
    trials = {
        name: accuracy(name, "", int((order[outputs] == labels).sum()), len(labels))
        for name, order in orders.items()
    }
    best = max(trials, key=lambda name: trials[name].score)
    return orders[best] if trials[best].beats(trials[OWN_ORDER]) else use.order


def _first_half(use: Use, images: Images) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return outputs and labels of the first half of the images, at every level one after the other."""
    half = images.halves()[0]
    outputs = np.concatenate([use.outputs(half, level) for level in use.levels])
    return outputs, np.tile(half.labels, len(use.levels))


def _orders(
    use: Use, images: Images, outputs: NDArray[np.int64], labels: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """Return the orders to try: the data set's, the known ones, and one fitted to outputs and labels."""
    orders = {OWN_ORDER: use.order, **known_orders(images.class_names)}
    if len(images) >= 2 * IMAGES_PER_CLASS * len(use.order):
        order = fit_order(outputs, labels, len(use.order))
        if not any(np.array_equal(order, known) for known in orders.values()):
            orders["permuted labels"] = order
    return orders


def _ask_labels(use: Use, images: Images) -> tuple[Answer, dict[str, NDArray[np.int64]]]:
    """Return the answer and the orders tried, all on the second half of the images."""
    orders, tried_on = _orders(use, images, *_first_half(use, images)), images.halves()[1]
    trials = tuple(
        accuracy(name, condition_of(level), int((order[found] == tried_on.labels).sum()), len(tried_on))
        for level in use.levels
        for found in [use.outputs(tried_on, level)]
        for name, order in orders.items()
    )
    verdict = judge(trials, OWN_ORDER)
    answer = Answer(question="labels", declared=OWN_ORDER, trials=trials, verdict=verdict, by="accuracy")
    return answer, orders


def _ask_sigma(use: Use, images: Images) -> Answer:
    """Return at which noise level the network looks trained.

    The first batch norm remembers the moments of its training images, noise included. A network without one is
    only asked whether its accuracy collapses on the way to the declared level.
    """
    declared = None if use.sigma is None else sigma_name(use.sigma)
    accuracies = tuple(
        replace(use.trial(sigma_name(level), images, level), condition=AT_ITS_NOISE)
        for level in use.tried_levels
    )
    if use.batch_norm is None:
        verdict = CANNOT_TELL if declared is None else judge_collapse(accuracies, declared)
        return Answer(
            question="sigma", declared=declared, trials=accuracies, verdict=verdict, by="accuracy lost"
        )
    mismatches = tuple(use.mismatch(sigma_name(level), images, level) for level in use.tried_levels)
    return Answer(
        question="sigma",
        declared=declared,
        trials=(*accuracies, *mismatches),
        verdict=judge(mismatches, declared, margin=moments.LEVEL_MARGIN),
        by=BY_MOMENTS,
    )


def sigma_name(level: float) -> str:
    """Return the reading's name of a noise level."""
    return "clean images" if level == 0 else f"sigma {level:g}"


def _ask_time(
    use: Use, sigma: float, images: Images, others: Mapping[str, Callable[[float], float]]
) -> Answer:
    """Return whether the network looks told another time than the declared one, the noise being that of sigma.

    Args:
        others: readings of the time that the network's own method knows; see `Fed`.
    """
    told = {
        "told sigma": sigma,
        "told sigma / 2": sigma / 2,
        "told 2 sigma": 2 * sigma,
        **{name: rule(sigma) for name, rule in others.items()},
    }
    trials = tuple(use.trial(name, images, sigma, told=value) for name, value in told.items())
    verdict = judge(trials, "told sigma")
    return Answer(question="time", declared="told sigma", trials=trials, verdict=verdict, by="accuracy")
