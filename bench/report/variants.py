"""Several trainings of each variant of a method -> means, and differences of means, over images and trainings; pure.

A table of one training says what one checkpoint certifies. Whether a change of the method helps is a question about
trainings, and its interval must hold what another seed would change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.errors import RecordsError
from bench.report.metrics import Certified, certified
from bench.types import Record

Score = Callable[[Certified], NDArray[np.float64]]
"""What each image counts, (I,): 1 or 0 at a radius, or its radius for the ACR."""


@dataclass(frozen=True, kw_only=True)
class TrainingVariance:
    """What another training changes in the mean score of one, pooled over variants that were trained several times.

    Attributes:
        variance: sum of squared deviations of the trainings' means from their variant's, over `freedom`.
        freedom: trainings, less one for each variant that was trained several times; > 0.
    """

    variance: float
    freedom: int


Holds = Literal["images and training runs", "images and training runs, pooled", "images"]
"""What would vary in an interval: pooled where a variant that was trained once borrows the variance of others."""

Pooled = TrainingVariance | tuple[TrainingVariance | None, TrainingVariance | None] | None
"""What variants that were trained once borrow: one variance for all, or one of each of two, of unlike methods."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over images and trainings, or a difference of two such means, with its interval.

    Attributes:
        value: in the score's units: a share, or a radius in pixel units.
        low, high: ends of the interval.
        p: two-sided, of the same Student's t, or of the sign test where the interval is exact, that the value is 0; for
            a difference.
        holds: what it is over; "images" alone tells nothing of another training.
        is_exact: whether nothing varied, so that the interval is exact and over images, whatever `holds` is.
    """

    value: float
    low: float
    high: float
    p: float
    holds: Holds
    is_exact: bool = False


def at_radius(radius: float) -> Score:
    """Return the score whose mean is the certified accuracy at an L2 radius in pixel units."""
    return lambda images: (images.radii >= radius).astype(np.float64)


def certified_radius(images: Certified) -> NDArray[np.float64]:
    """Return the radius (I,) of each right certificate, else 0; its mean is the ACR."""
    return np.maximum(images.radii, 0.0)


def scores(trainings: Sequence[Sequence[Record]], score: Score) -> NDArray[np.float64]:
    """Return the scores (S, I) float64 of S trainings on the same I images, by ascending image index.

    Raises:
        RecordsError: there are no trainings of two images at least, or they hold different images.
    """
    if not trainings or len(trainings[0]) < 2:
        raise RecordsError("an interval over images needs two at least: give runs that hold them")
    rows = [certified(records) for records in trainings]
    if not all(np.array_equal(row.indices, rows[0].indices) for row in rows):
        raise RecordsError("the trainings hold different images: restrict them to their common images")
    return np.array(list(map(score, rows)))


def pooled_variance(variants: Iterable[NDArray[np.float64]]) -> TrainingVariance | None:
    """Return the variance between trainings of one variant, pooled over variants; None where all were trained once.

    Args:
        variants: scores (S, I) of each variant's trainings; those with S = 1 tell nothing.
    """
    means = [scores.mean(axis=1) for scores in variants if len(scores) > 1]
    if not means:
        return None
    freedom = sum(len(values) - 1 for values in means)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in means)
    return TrainingVariance(variance=squares / freedom, freedom=freedom)


def estimate(
    first: NDArray[np.float64],
    second: NDArray[np.float64] | None = None,
    pooled: Pooled = None,
    *,
    most: float = 1.0,
) -> Estimate:
    """Return the mean of one variant's scores, or of the first's minus the second's, with a 95% interval.

    Images and trainings are crossed random effects. The variance is that of the images' means, plus that of each
    variant's trainings' means (which counts what is left of both in each, so that the interval is a little wide);
    Student's t has the degrees of freedom of Welch and Satterthwaite. Where a variant was trained once, the variance
    between trainings is the pooled one for both, `pooled.variance` (1/S + 1/S'), as if all variants had the same;
    without it the interval is over images alone, and too narrow for any statement on trainings.

    Where all images have one score and nothing else varies, no variance can be estimated. The interval is then that of
    Clopper and Pearson for the share of images that are otherwise, each as far away as scores reach; p is that of the
    exact sign test.

    Args:
        first, second: scores (S, I) of trainings on the same images, I > 1; the numbers of trainings may differ.
        pooled: what trainings of such variants vary by. Of a pair, one for each variant, each counts for its own alone,
            and a variant that was trained several times has its own variance.
        most: the largest score that an image can have; the least is 0.
    """
    variants = [first] if second is None else [first, -second]
    per_image = np.sum([scores.mean(axis=0) for scores in variants], axis=0)
    parts = [(float(np.var(per_image, ddof=1)) / len(per_image), len(per_image) - 1)]
    trainings, holds = _between_trainings(variants, pooled)
    parts += trainings
    total, value = sum(variance for variance, _ in parts), float(per_image.mean())
    if _is_constant(per_image) and all(_is_constant(scores.mean(axis=1)) for scores in variants):
        images = len(per_image)
        others = 1 - 0.025 ** (1 / images)
        low = value - others * (value - (0.0 if second is None else -most))
        p = 1.0 if value == 0 else 2 * 0.5**images
        high = value + others * (most - value)
        return Estimate(value=value, low=low, high=high, p=p, holds=holds, is_exact=True)
    freedom = total**2 / sum(variance**2 / freedom for variance, freedom in parts)
    half = float(special.stdtrit(freedom, 0.975)) * total**0.5
    p = 2 * float(special.stdtr(freedom, -abs(value) / total**0.5))
    return Estimate(value=value, low=value - half, high=value + half, p=p, holds=holds)


def _is_constant(values: NDArray[np.float64]) -> bool:
    """Return whether numbers differ by rounding alone."""
    return float(np.ptp(values)) <= 1e-12 * max(1.0, float(np.abs(values).max()))


def _between_trainings(
    variants: Sequence[NDArray[np.float64]], pooled: Pooled
) -> tuple[list[tuple[float, int]], Holds]:
    """Return (variance of a mean, its degrees of freedom) of each independent part, and what the interval holds."""
    if all(len(scores) > 1 for scores in variants):
        own = [
            (float(np.var(scores.mean(axis=1), ddof=1)) / len(scores), len(scores) - 1) for scores in variants
        ]
        return own, "images and training runs"
    if pooled is None:
        return [], "images"
    if isinstance(pooled, tuple):
        borrowed = [
            TrainingVariance(variance=float(np.var(scores.mean(axis=1), ddof=1)), freedom=len(scores) - 1)
            if len(scores) > 1
            else own
            for scores, own in zip(variants, pooled, strict=True)
        ]
        known = [one for one in borrowed if one is not None]
        if len(known) < len(borrowed):
            return [], "images"
        parts = [
            (one.variance / len(scores), one.freedom) for one, scores in zip(known, variants, strict=True)
        ]
        return parts, "images and training runs, pooled"
    share = sum(1 / len(scores) for scores in variants)
    return [(pooled.variance * share, pooled.freedom)], "images and training runs, pooled"


def variant_of(run: str) -> str:
    """Return the variant whose training a run's folder is named after: NAME for NAME-0, NAME_1, ..., else the name."""
    return re.sub(r"[-_]\d+$", "", run)
