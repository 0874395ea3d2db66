"""Several trainings of each variant of a method -> means, and differences of means, over images and trainings; pure.

A table of one training says what one checkpoint certifies. Whether a change of the method helps is a question about
trainings, and its interval must hold what another seed would change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.errors import RecordsError
from bench.report.metrics import is_certified
from bench.types import Record

Score = Callable[[Record], float]
"""What one certificate counts: 1 or 0 at a radius, or its radius for the ACR."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over images and trainings, or a difference of two such means, with its interval.

    Attributes:
        value: in the score's units: a share, or a radius in pixel units.
        low, high: ends of the interval.
        has_trainings: False where a variant was trained once, so that the interval is over images alone.
    """

    value: float
    low: float
    high: float
    has_trainings: bool


def at_radius(radius: float) -> Score:
    """Return the score whose mean is the certified accuracy at an L2 radius in pixel units."""
    return lambda record: float(is_certified(record) and record.radius >= radius)


def certified_radius(record: Record) -> float:
    """Return the radius of a right certificate, else 0; its mean is the ACR."""
    return record.radius if is_certified(record) else 0.0


def scores(trainings: Sequence[Sequence[Record]], score: Score) -> NDArray[np.float64]:
    """Return the scores (S, I) float64 of S trainings on the same I images, by ascending image index.

    Raises:
        RecordsError: there are no trainings of two images at least, or they hold different images.
    """
    rows = [{record.index: score(record) for record in records} for records in trainings]
    if not rows or len(rows[0]) < 2:
        raise RecordsError("an interval over images needs two at least: give runs that hold them")
    if any(row.keys() != rows[0].keys() for row in rows):
        raise RecordsError("the trainings hold different images: restrict them to their common images")
    return np.array([[row[index] for index in sorted(row)] for row in rows])


def estimate(first: NDArray[np.float64], second: NDArray[np.float64] | None = None) -> Estimate:
    """Return the mean of one variant's scores, or of the first's minus the second's, with a 95% interval.

    Images and trainings are crossed random effects. The variance is that of the images' means, plus that of each
    variant's trainings' means (which counts what is left of both in each, so that the interval is a little wide);
    Student's t has the degrees of freedom of Welch and Satterthwaite.

    Args:
        first, second: scores (S, I) of trainings on the same images, I > 1; the numbers of trainings may differ.
    """
    variants = [first] if second is None else [first, -second]
    per_image = np.sum([scores.mean(axis=0) for scores in variants], axis=0)
    parts = [per_image, *(scores.mean(axis=1) for scores in variants if len(scores) > 1)]
    variances = np.array([np.var(values, ddof=1) / len(values) for values in parts])
    total, value = float(variances.sum()), float(per_image.mean())
    half = 0.0
    if total > 0:
        freedoms = [len(values) - 1 for values in parts]
        freedom = total**2 / float((variances**2 / freedoms).sum())
        half = float(special.stdtrit(freedom, 0.975)) * total**0.5
    return Estimate(
        value=value,
        low=value - half,
        high=value + half,
        has_trainings=all(len(scores) > 1 for scores in variants),
    )


def variant_of(run: str) -> str:
    """Return the variant whose training a run's folder is named after: NAME for NAME-0, NAME-1, ..., else the name."""
    return re.sub(r"[-_.]\d+$", "", run)
