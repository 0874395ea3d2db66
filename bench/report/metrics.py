"""Records -> certified accuracy, ACR, clean accuracy, abstention and curves; pure, float64.

Every number carries the count of images it rests on. Radii are L2 radii in pixel units.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import ProtocolError, RecordsError
from bench.records.columns import Columns, columns_of
from bench.smoothing.estimation import table_tails
from bench.smoothing.stats import bernoulli_divergence, most_failures, proportion_interval, upper_tail
from bench.types import ABSTAIN, Record

NORMAL_QUANTILE = 1.959963984540054
"""Phi^-1(0.975): half-width, in standard errors, of a two-sided 95% interval."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of images: `count` of `images` of them, as counts, so that an exact interval can follow.

    Attributes:
        count: images with the property, 0 <= count <= images.
        images: images looked at, > 0.
    """

    count: int
    images: int

    @property
    def value(self) -> float:
        """The share, in [0,1]."""
        return self.count / self.images

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the exact two-sided Clopper-Pearson interval (low, high), in [0,1].

        It covers the share over the distribution that the images were drawn from with probability at least
        `confidence`; it says nothing of alpha, the failure probability of each certificate.
        """
        low, high = proportion_interval(self.count, self.images, confidence)
        return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over images with its standard error.

    Attributes:
        value: the mean.
        standard_error: sample standard deviation / sqrt(images); NaN for a single image.
        images: images averaged over, > 0.
    """

    value: float
    standard_error: float
    images: int

    def interval(self) -> tuple[float, float]:
        """Return the normal 95% interval, value -+ 1.96 standard errors; NaNs for a single image."""
        half = NORMAL_QUANTILE * self.standard_error
        return self.value - half, self.value + half


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Certified accuracy as the exact step function of the radius, without a grid.

    Attributes:
        radii: 0.0 followed by the distinct radii > 0 of the correct images, ascending.
        counts: correct images with radius >= radii[i]; constant on (radii[i-1], radii[i]], zero beyond.
        images: images looked at.
    """

    radii: tuple[float, ...]
    counts: tuple[int, ...]
    images: int

    def at(self, radius: float) -> Share:
        """Return the certified accuracy at `radius` >= 0."""
        position = bisect.bisect_left(self.radii, radius)
        count = self.counts[position] if position < len(self.counts) else 0
        return Share(count=count, images=self.images)

    def area(self) -> float:
        """Return the area under the curve, in radius units; it equals the ACR."""
        return float(np.dot(np.diff(self.radii), self.counts[1:])) / self.images


@dataclass(frozen=True, kw_only=True, eq=False)
class Certified:
    """The certified radii of some images, by ascending index.

    Attributes:
        indices: (I,) int64, of the images.
        radii: (I,) float64 in pixel units; -1 where the certified class is not the label.
    """

    indices: NDArray[np.int64]
    radii: NDArray[np.float64]


def certified(records: Sequence[Record]) -> Certified:
    """Return the certified radii of records of different images.

    Raises:
        RecordsError: there are no records.
    """
    _require(records)
    columns = columns_of(records)
    radii = np.where(columns.is_correct, columns.radius, -1.0)
    order = np.argsort(columns.indices, kind="stable")
    return Certified(indices=columns.indices[order], radii=radii[order])


def common_images(several: Sequence[Certified]) -> NDArray[np.int64]:
    """Return the indices, ascending, of the images that all of one or more hold."""
    common = several[0].indices
    for one in several[1:]:
        if not np.array_equal(common, one.indices):  # which takes a fraction of the intersection's time
            common = np.intersect1d(common, one.indices)
    return common


def certified_accuracy(records: Sequence[Record], radius: float) -> Share:
    """Return the share of ALL images that are correct with a certified radius >= `radius` (L2, pixel units).

    Raises:
        RecordsError: there are no records.
    """
    columns = columns_of(records)
    return _share(columns.is_correct & (columns.radius >= radius))


def assured_accuracy(share: Share, alpha: float, confidence: float = 0.99) -> Share:
    """Return the share of the images that are certified and truly robust, at least, with probability `confidence`.

    Each of the certificates is wrong with probability alpha at most. How many are wrong together is no more than
    a binomial variable of all images, whose quantile is taken off the count; the probability is over the noise.
    Deviation: Cohen et al. (arXiv 1902.02918, appendix on the certified test-set accuracy) bound the same
    quantile by Bernstein's inequality, which gives a lower share.

    Args:
        share: a certified accuracy.
        alpha: failure probability of each certificate, in (0, 1).
        confidence: in (0, 1).
    """
    wrong = most_failures(share.images, alpha, confidence)
    return Share(count=max(0, share.count - wrong), images=share.images)


def clean_accuracy(records: Sequence[Record]) -> Share | None:
    """Return the share of images that the base classifier gives their label without noise.

    It certifies nothing: certified accuracy at radius 0 is that of the smoothed classifier. None where any record does
    not hold the class without noise, as those of older files and published logs.

    Raises:
        RecordsError: there are no records.
    """
    columns = columns_of(records)
    return _share(columns.clean == columns.label) if np.all(columns.has_clean) else None


def abstention(records: Sequence[Record]) -> Share | None:
    """Return the share of images on which the certifier abstained; None where skipped images leave it unknown.

    Raises:
        RecordsError: there are no records.
    """
    columns = columns_of(records)
    return None if np.any(columns.is_skipped) else _share(columns.predict == ABSTAIN)


def is_whole(columns: Columns) -> bool:
    """Return whether every image has all n samples of estimation."""
    return bool(np.all(columns.samples == columns.samples_asked))


def noisy_accuracy(records: Sequence[Record]) -> Mean:
    """Return the base classifier's accuracy under noise: the share of samples given the label, in [0,1].

    It is a mean over images and needs no certificate: few samples on many images measure it well. The samples
    are those of estimation; where any image has fewer than n of them, those of selection, for all images: how
    many estimation samples an image has depends on what they said. NaN where an
    image has no counts, as in a published log.

    Raises:
        RecordsError: there are no records.
    """
    columns = columns_of(records)
    if not np.all(columns.has_counts):
        return Mean(value=math.nan, standard_error=math.nan, images=len(records))
    counts = columns.estimation if is_whole(columns) else columns.selection
    return _mean(counts.of(columns.label) / counts.sums)


@dataclass(frozen=True, kw_only=True)
class SamplesUsed:
    """Noisy samples that certificates took.

    Attributes:
        images: images certified.
        used, asked: samples drawn, and n0 + n per image.
        median_ratio: median, over the images that drew estimation samples, of those samples over the least that
            any test of level alpha needs to settle the image, ln(1/alpha) / KL(p, nearest threshold), with p the
            image's own share; NaN where no image has a finite one. Composed certificates are left out.
    """

    images: int
    used: int
    asked: int
    median_ratio: float

    @property
    def saved(self) -> float:
        """The share of samples that were not drawn, in [0,1]."""
        return 1 - self.used / self.asked


def samples_used(records: Sequence[Record], alpha: float, radii: Sequence[float]) -> SamplesUsed:
    """Return what the records of one method at one sigma took, against the radii of the table.

    Raises:
        RecordsError: there are no records.
    """
    _require(records)
    columns = columns_of(records)
    plain = columns.take(np.flatnonzero((columns.estimation.lengths > 0) & ~columns.is_composed))
    return SamplesUsed(
        images=len(records),
        used=int(columns.samples.sum()),
        asked=int(columns.samples_asked.sum()),
        median_ratio=float(np.median(_ratios_to_least(plain, alpha, radii))) if plain else math.nan,
    )


def _ratios_to_least(records: Columns, alpha: float, radii: Sequence[float]) -> NDArray[np.float64]:
    """Return (I,) how many times the least number of samples each record took."""
    sigma, n = float(records.sigma[0]), int(records.n[0])
    drawn, hits = records.estimation.sums, records.estimation.of(records.selected)
    least = upper_tail(n, n, alpha)
    thresholds = np.array([1 - tail for tail in table_tails(radii, sigma) if tail >= least])
    if not len(thresholds):
        return np.zeros(len(records))
    nearest = bernoulli_divergence((hits / drawn)[:, None], thresholds).min(axis=1)
    return drawn * nearest / math.log(1 / alpha)


def acr(records: Sequence[Record]) -> Mean:
    """Return the average certified radius: mean over ALL images of the radius where correct, else 0.

    It is a lower bound where `Protocol.stops_early`.

    Raises:
        RecordsError: there are no records.
    """
    return acr_of(certified(records).radii)


def acr_of(certified_radii: NDArray[np.float64]) -> Mean:
    """Return the ACR of the radii (I,) of images, negative where an image is not certified; see `Certified`."""
    return _mean(np.maximum(certified_radii, 0.0))


def curve(records: Sequence[Record]) -> Curve:
    """Return the certified accuracy over all radii, exactly.

    Raises:
        RecordsError: there are no records.
    """
    return curve_of(certified(records).radii)


def curve_of(certified_radii: NDArray[np.float64]) -> Curve:
    """Return the curve of the radii (I,) of images, negative where an image is not certified; see `Certified`."""
    found = np.sort(certified_radii[certified_radii >= 0])
    radii = np.unique(np.concatenate([[0.0], found]))
    counts = len(found) - np.searchsorted(found, radii, side="left")
    return Curve(radii=tuple(radii.tolist()), counts=tuple(counts.tolist()), images=len(certified_radii))


def envelope(curves: Sequence[Curve]) -> Curve:
    """Return the upper envelope of the curves of one method at several sigmas, all over the same images.

    It is optimistic: at each radius the sigma is chosen on the certified images.

    Raises:
        ProtocolError: the curves rest on different numbers of images.
    """
    images = {one.images for one in curves}
    if len(images) != 1:
        raise ProtocolError(
            f"an envelope needs curves over the same images, got {sorted(images)} images; restrict them first"
        )
    radii = np.unique(np.concatenate([one.radii for one in curves]))
    counts = [np.array([*one.counts, 0])[np.searchsorted(one.radii, radii, side="left")] for one in curves]
    highest = np.max(counts, axis=0)
    return Curve(radii=tuple(radii.tolist()), counts=tuple(highest.tolist()), images=images.pop())


def group(records: Iterable[Record]) -> dict[tuple[str, float], Columns]:
    """Return (method, sigma) -> its records by ascending image index.

    Raises:
        ProtocolError: one image was certified twice by the same method at the same sigma.
    """
    columns = columns_of(records)
    return {key: _ordered(columns.take(rows), *key) for key, rows in columns.groups.items()}


def _ordered(records: Columns, method: str, sigma: float) -> Columns:
    steps = np.diff(records.indices)
    if np.all(steps > 0):  # as most files hold them
        return records
    order = np.argsort(records.indices, kind="stable")
    again = order[1:][np.diff(records.indices[order]) == 0]
    if len(again):
        raise ProtocolError(
            f"image {records.indices[again.min()]} was certified twice by {method} at sigma {sigma:g}; "
            "remove one of the two lines"
        )
    return records.take(order)


def _share(has_property: NDArray[np.bool_]) -> Share:
    _require(has_property)
    return Share(count=int(np.count_nonzero(has_property)), images=len(has_property))


def _mean(per_image: NDArray[np.float64]) -> Mean:
    _require(per_image)
    images = len(per_image)
    error = float(per_image.std(ddof=1)) / math.sqrt(images) if images > 1 else math.nan
    return Mean(value=float(per_image.mean()), standard_error=error, images=images)


def _require(records: Sequence[object] | NDArray[Any]) -> None:
    if not len(records):
        raise RecordsError("no records to count: certify at least one image first")
