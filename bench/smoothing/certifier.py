"""The certifier: counts of classes under seeded noise, and what they certify (arXiv 1902.02918, Alg. 1).

One certifier serves every method; what a method sees, and how its classes are counted, is in counting.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from bench.errors import ModelError, UsageError, shown
from bench.smoothing.classifiers import COMPOSES, as_classifier
from bench.smoothing.counting import (
    Draws,
    Stop,
    check_images,
    checked_count,
    checked_sigma,
    clean_classes,
    count_classes,
    count_group,
    is_number,
)
from bench.smoothing.estimation import bounds_fault, certified_radius, composed, stopping_rule
from bench.smoothing.noise import BLOCK_BITS, INDEX_BITS, NOISE_BLOCK, Stage, bound_uniform, part_protocol
from bench.smoothing.stats import binomial_two_sided_p
from bench.types import (
    ABSTAIN,
    LEAST_ALPHA,
    Bound,
    Certificate,
    CertifyPart,
    Classifier,
    PartBound,
    Protocol,
    RunEstimation,
)


@dataclass(frozen=True, kw_only=True)
class Smoothed:
    """A classifier under Gaussian noise: its class is the one it gives most noisy copies (arXiv 1902.02918, Eq. 1).

    Attributes:
        classifier: from noisy pixels to logits; it runs under inference mode.
        sigma: standard deviation of the noise in pixel units, > 0.
        num_classes: columns of the logits, >= 2.
        batch_size: samples per call of the classifier, >= 1; the noise does not depend on it.
    """

    classifier: Classifier
    sigma: float
    num_classes: int
    batch_size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", checked_sigma(self.sigma))
        for name, least in (("batch_size", 1), ("num_classes", 2)):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), least))

    def certify(self, x: Tensor, index: int, protocol: Protocol, label: int | None = None) -> Certificate:
        """Return the certificate of one image (CERTIFY of arXiv 1902.02918, Alg. 1).

        With probability at least 1 - alpha over the noise, the smoothed classifier returns `predict` everywhere
        within L2 distance `radius` of x, or `predict` is ABSTAIN. The guarantee holds for each image by itself.

        Args:
            x: (C, H, W) float32 in [0,1], on the device of the classifier.
            index: identity of the image; it picks the noise.
            protocol: sample counts, level and seed.
            label: the true class. Estimation other than "fixed" draws no estimation samples where the selected class
                is another, and abstains: the image counts as incorrect whatever they would say. None: never skip.

        Returns:
            Class, radius in pixel units and the counts of both stages; the lowest class wins a tie in selection.
            Sequential estimation may stop early; its radius is 0 or one of protocol.radii.

        Raises:
            DataError: x is not a finite (C, H, W) float32 image in [0,1].
            UsageError: another argument, or an attribute, lies outside its range.
            ModelError: the logits do not have shape (B, num_classes).
            NumericalError: a logit is NaN or infinite.
        """
        [certificate] = self.certify_group([x], [index], protocol, [label])
        return certificate

    def certify_group(
        self,
        images: Sequence[Tensor],
        indices: Sequence[int],
        protocol: Protocol,
        labels: Sequence[int | None],
    ) -> list[Certificate]:
        """Return the certificate of each of G images of one shape, as `certify` does, in batches that span images.

        Their noise is that of each image by itself. Sequential estimation goes image by image.

        Args: as in `certify`, with G images, indices and labels; batch_size may be more than one image has samples.
        Raises: as in `certify`.
        """
        indices, protocol = _checked(images, indices, protocol)
        group = torch.stack(list(images))
        selections = self.count(group, _draws(protocol, "selection", indices))
        selected = [counts.index(max(counts)) for counts in selections]
        kept = [
            position
            for position, label in enumerate(labels)
            if protocol.estimation == "fixed" or label is None or label == selected[position]
        ]
        counted = self._estimations(group, selected, indices, kept, protocol)
        return [
            certificate_of(
                selection,
                counted[i],
                sigma=self.sigma,
                protocol=protocol,
                uniform=bound_uniform(protocol, index),
            )
            if i in counted
            else _skipped(selection)
            for i, (index, selection) in enumerate(zip(indices, selections, strict=True))
        ]

    def predict(self, x: Tensor, index: int, protocol: Protocol) -> int:
        """Return the smoothed classifier's class, or ABSTAIN (PREDICT of arXiv 1902.02918, Alg. 1).

        The probability of returning another class than the smoothed classifier's is at most alpha. It counts the
        n estimation samples of `certify`; n0 is not used. A tie of the two most frequent classes abstains.

        Args, Raises: as in `certify`.
        """
        return self.vote(x, index, protocol)[1]

    def vote(self, x: Tensor, index: int, protocol: Protocol) -> tuple[int, int]:
        """Return the most frequent class of the samples of `predict`, and what it returns: this class or ABSTAIN."""
        [index], protocol = _checked([x], [index], protocol)
        [counts] = self.count(x[None], _draws(protocol, "estimation", [index]))
        second, first = sorted(counts)[-2:]
        p_value = binomial_two_sided_p(first, first + second)
        selected = counts.index(first)
        return selected, selected if p_value <= protocol.alpha else ABSTAIN

    @torch.inference_mode()
    def clean_classes(
        self, images: Sequence[Tensor], indices: Sequence[int], protocol: Protocol
    ) -> list[int]:
        """Return the class that the base classifier gives each image without noise, told the same sigma.

        It certifies nothing. A method with randomness of its own draws that of the image's first selection sample.

        Args, Raises: as in `certify_group`.
        """
        indices, protocol = _checked(images, indices, protocol)
        draws = _draws(replace(protocol, n0=1), "selection", indices)
        return clean_classes(self.classifier, torch.stack(list(images)), draws=draws, **self._numbers)

    def count(self, images: Tensor, draws: Sequence[Draws]) -> list[tuple[int, ...]]:
        """Return how often each class is predicted for each image (G, C, H, W) under noise; see `count_group`."""
        return count_group(self.classifier, images, draws=draws, **self._numbers)

    def _estimations(
        self,
        group: Tensor,
        selected: Sequence[int],
        indices: Sequence[int],
        kept: Sequence[int],
        protocol: Protocol,
    ) -> dict[int, tuple[int, ...]]:
        """Return the estimation counts of the images at the positions that are kept."""
        draws = _draws(protocol, "estimation", [indices[i] for i in kept])
        if protocol.estimation != "sequential":
            return dict(zip(kept, self.count(group[kept], draws), strict=True)) if kept else {}
        return {
            i: count_classes(
                self.classifier,
                group[i],
                draws=drawn,
                stop=self._stopping(selected[i], protocol, indices[i]),
                **self._numbers,
            )
            for i, drawn in zip(kept, draws, strict=True)
        }

    def _stopping(self, selected: int, protocol: Protocol, index: int) -> Stop:
        rule = stopping_rule(protocol, self.sigma, bound_uniform(protocol, index))
        return lambda counts: rule.is_settled(counts[selected], sum(counts))

    @property
    def _numbers(self) -> dict[str, Any]:
        return {"sigma": self.sigma, "num_classes": self.num_classes, "batch_size": self.batch_size}


@dataclass(frozen=True, kw_only=True)
class Composed(Smoothed):
    """A method whose certificate several bounds make; see `bench.types.CertifyPart`. No image is skipped.

    Attributes:
        compose, prepared: the hook `compose_certificate`; a part -> how it computes here, such as its precision.
    """

    compose: Callable[[CertifyPart], None]
    prepared: Callable[[Classifier], Classifier]

    def certify_group(
        self,
        images: Sequence[Tensor],
        indices: Sequence[int],
        protocol: Protocol,
        labels: Sequence[int | None],
    ) -> list[Certificate]:
        """Return the composed certificate of each image, one after the other; see `Smoothed.certify_group`."""
        indices, protocol = _checked(images, indices, protocol)
        return [
            _composed_certificate(self._bounds(_Bounds(self, x, index, protocol)))
            for x, index in zip(images, indices, strict=True)
        ]

    def predict(self, x: Tensor, index: int, protocol: Protocol) -> int:
        """Return the class of the last part, or ABSTAIN where PREDICT abstains for any part at its share of alpha."""
        [index], protocol = _checked([x], [index], protocol)
        return composed(self._bounds(_Bounds(self, x, index, protocol, predicts=True)))[0]

    def _bounds(self, parts: _Bounds) -> list[PartBound]:
        self.compose(parts)
        if not parts.made or parts.made[-1].num_classes != self.num_classes:
            last = f"of {parts.made[-1].num_classes} classes" if parts.made else "missing"
            raise ModelError(
                f"the last bound of {COMPOSES} is {last}, expected one of {self.num_classes} classes"
            )
        return parts.made


class _Bounds:
    """The bounds that a method asks for on one image, each under noise of its own: a `CertifyPart`."""

    def __init__(
        self, whole: Composed, x: Tensor, index: int, protocol: Protocol, *, predicts: bool = False
    ) -> None:
        self.whole, self.x, self.index, self.protocol, self.predicts = whole, x, index, protocol, predicts
        self.made: list[PartBound] = []

    def __call__(
        self, name: str, classifier: Classifier, *, sigma: float, share: float, num_classes: int
    ) -> int:
        asked = [*((one.name, one.share) for one in self.made), (name, share)]
        if (fault := bounds_fault(asked)) is not None:
            raise ModelError(f"{COMPOSES} asks for a bound that it cannot have: {fault}")
        one = Smoothed(
            classifier=self.whole.prepared(classifier),
            sigma=sigma,
            num_classes=num_classes,
            batch_size=self.whole.batch_size,
        )
        part = part_protocol(self.protocol, len(self.made), share)
        if self.predicts:
            selected, predict = one.vote(self.x, self.index, part)
            found = Certificate(
                predict=predict,
                radius=0.0,
                counts_selection=((selected, 1),),
                counts_estimation=(),
                samples=0,
            )
        else:
            found = one.certify(self.x, self.index, part)
        bound = PartBound(
            name=name,
            sigma=sigma,
            share=share,
            num_classes=num_classes,
            predict=found.predict,
            radius=found.radius,
            counts_selection=found.counts_selection,
            counts_estimation=found.counts_estimation,
        )
        self.made.append(bound)
        return self.made[-1].selected


def _composed_certificate(bounds: Sequence[PartBound]) -> Certificate:
    predict, radius = composed(bounds)
    counts, last = [one.counts_selection + one.counts_estimation for one in bounds], bounds[-1]
    return Certificate(
        predict=predict,
        radius=radius,
        counts_selection=last.counts_selection,
        counts_estimation=last.counts_estimation,
        samples=sum(count for pairs in counts for _, count in pairs),
        certified_sigma=last.sigma,
        bounds=tuple(bounds),
    )


def smoothed_of(built: Classifier, prepared: Callable[[Classifier], Classifier], **numbers: Any) -> Smoothed:
    """Return a built classifier under noise, composed where it has the hook `compose_certificate`.

    Args:
        prepared: the classifier, or a part of it -> how it computes here.
        numbers: sigma, num_classes and batch_size of `Smoothed`.
    """
    compose = getattr(built, COMPOSES, None)
    if compose is None:
        return Smoothed(classifier=prepared(built), **numbers)
    made: dict[int, tuple[Classifier, Classifier]] = {}

    def part(classifier: Classifier) -> Classifier:
        whole = as_classifier(classifier, COMPOSES)
        if not isinstance(classifier, nn.Module):
            return prepared(whole)
        if (
            id(classifier) not in made
        ):  # modules are kept: each is compiled once, and none takes over its identity
            made[id(classifier)] = classifier, prepared(whole)
        return made[id(classifier)][1]

    return Composed(classifier=prepared(built), compose=compose, prepared=part, **numbers)


def _checked(
    images: Sequence[Tensor], indices: Sequence[int], protocol: Protocol
) -> tuple[list[int], Protocol]:
    """Return the indices and the protocol of images that can be certified, as numbers of Python's own."""
    check_images(images)
    return [checked_count("index", index, 0, INDEX_BITS) for index in indices], checked_protocol(protocol)


def _draws(protocol: Protocol, stage: Stage, indices: Sequence[int]) -> list[Draws]:
    samples = protocol.n0 if stage == "selection" else protocol.n
    return [Draws(seed=protocol.seed, index=index, stage=stage, samples=samples) for index in indices]


def certificate_of(
    selection: tuple[int, ...],
    estimation: tuple[int, ...],
    *,
    sigma: float,
    protocol: Protocol,
    uniform: float | None = None,
) -> Certificate:
    """Return what the counts of both stages, one per class, certify; see `Smoothed.certify`, `certified_radius`."""
    selected = selection.index(max(selection))
    certified = certified_radius(estimation[selected], sum(estimation), protocol, sigma, uniform)
    return Certificate(
        predict=ABSTAIN if certified is None else selected,
        radius=certified or 0.0,
        counts_selection=_sparse(selection),
        counts_estimation=_sparse(estimation),
        samples=sum(selection) + sum(estimation),
    )


def _skipped(selection: tuple[int, ...]) -> Certificate:
    return Certificate(
        predict=ABSTAIN,
        radius=0.0,
        counts_selection=_sparse(selection),
        counts_estimation=(),
        samples=sum(selection),
    )


def _sparse(counts: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((label, count) for label, count in enumerate(counts) if count)


def checked_protocol(protocol: Protocol) -> Protocol:
    """Return a protocol that can be run, its numbers being Python's own: those of numpy overflow.

    Raises:
        UsageError: it is no protocol, or n0, n, alpha or seed lies outside its range; the message names it.
    """
    if not isinstance(protocol, Protocol):
        raise UsageError(
            f"protocol is {shown(protocol)}, expected bench.types.Protocol(n0=100, n=1000), or other values"
        )
    for name, value, known in (
        ("estimation", protocol.estimation, get_args(RunEstimation)),
        ("bound", protocol.bound, get_args(Bound)),
    ):
        if value not in known:
            raise UsageError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if protocol.estimation == "sequential" and not protocol.radii:
        raise UsageError("sequential estimation needs the radii that it is to certify, got none")
    alpha, sample_bits = protocol.alpha, BLOCK_BITS + (NOISE_BLOCK - 1).bit_length()
    if not is_number(alpha) or not LEAST_ALPHA <= float(alpha) < 1:
        raise UsageError(f"alpha must lie between 0 and 1, such as 0.001, got {shown(alpha)}")
    return replace(
        protocol.protocol,
        n0=checked_count("n0", protocol.n0, 1, sample_bits),
        n=checked_count("n", protocol.n, 1, sample_bits),
        seed=checked_count("seed", protocol.seed, 0, 63),
        alpha=float(alpha),
    )
