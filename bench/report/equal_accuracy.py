"""Certificates joined with cost: how fast methods reach the same certified accuracy; pure.

Of the n samples that a record counts, any n' are distributed as a certificate with n' samples would have drawn them:
how many show the class is hypergeometric. So the accuracy expected at any n' <= n follows exactly from the records.

Methods are compared at fixed shares of the accuracy that the reference has with all n samples, and at every radius of
the table. At its full accuracy the reference needs all n samples whatever n is, so that a ratio there grows with n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.errors import ProtocolError, RecordsError
from bench.records.columns import columns_of
from bench.report.comparison import Comparison, Entry
from bench.report.rates import REFERENCE, samples_per_second
from bench.smoothing.stats import upper_tail
from bench.types import Run

RATIO = 1.03
"""Between neighbouring sample counts that are tried."""

SHARES = (0.95, 0.99)
"""Of the accuracy that the reference has with all n samples: where methods are compared."""

RESAMPLES = 1000
"""Of the images, for the intervals."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """Expected accuracy of one method at one radius, by the samples drawn.

    Attributes:
        method: its name.
        samples: n' tried, (N,) ascending, the last being n.
        sigmas: noise levels, (S,).
        seconds: of n0 + n' samples at the measured throughput, (S, N).
        chances: that an image is certified with n' samples at that sigma, (S, N, I) in [0,1].
    """

    method: str
    samples: NDArray[np.int64]
    sigmas: Floats
    seconds: Floats
    chances: Floats

    def accuracy(self, weights: Floats | None = None) -> tuple[Floats, Floats]:
        """Return the accuracy and the seconds with each n' at the sigma that is best for it, both (B, N).

        Args:
            weights: of the images, (B, I), each row adding up to 1; None: one row, all alike.
        """
        images = self.chances.shape[-1]
        shares = np.full((1, images), 1 / images) if weights is None else weights
        by_sigma = np.einsum("sni,bi->bsn", self.chances, shares, optimize=True)
        best = by_sigma.argmax(axis=1)
        return by_sigma.max(axis=1), self.seconds[best, np.arange(len(self.samples))]

    def best_sigma(self, place: int) -> float:
        """Return the sigma with the highest accuracy at `samples[place]`."""
        return float(self.sigmas[self.chances[:, place].mean(axis=1).argmax()])


@dataclass(frozen=True, kw_only=True)
class EqualAccuracy:
    """A method and the reference where both reach a share of the accuracy that the reference has with n samples.

    Attributes:
        radius: L2, pixel units; share: one of `SHARES`.
        accuracy, reference_accuracy: of each with all n samples.
        target: what is to be reached, share * reference_accuracy.
        samples, sigma, seconds: the fewest samples with which the method is expected to reach it, at its best sigma for
            them, and the seconds of an image; None where n samples do not.
        reference_samples, reference_seconds: the same of the reference.
        interval: 95%, of the speedup over images, ends of 0 where the target is not reached; None where the reference
            certifies none of the images in some resample.
    """

    radius: float
    share: float
    method: str
    accuracy: float
    reference_accuracy: float
    target: float
    samples: int | None
    sigma: float | None
    seconds: float | None
    reference_samples: int
    reference_seconds: float
    interval: tuple[float, float] | None

    @property
    def speedup(self) -> float | None:
        """How many times the reference's seconds are the method's; None where the method does not get there."""
        return None if self.seconds is None else self.reference_seconds / self.seconds


def least_count(n: int, alpha: float, radius: float, sigma: float) -> int:
    """Return the fewest successes among n draws that certify the radius; n + 1 where none do.

    They are those whose Clopper-Pearson bound gives sigma Phi^-1(p_lower) >= radius (arXiv 1902.02918, Alg. 1).
    """
    allowed = float(special.ndtr(-radius / sigma))
    low, high = 0, n + 1
    while low < high:
        middle = (low + high) // 2
        if upper_tail(middle, n, alpha) <= allowed:
            high = middle
        else:
            low = middle + 1
    return low


def chances_of_at_least(needed: int, hits: NDArray[np.int64], total: int, drawn: int) -> Floats:
    """Return P(X >= needed) where X of `drawn` samples, taken from `total` of which `hits` succeed, succeed.

    With the samples numbered so that those that succeed come first, X >= needed where the needed-th smallest of the
    numbers drawn is at most `hits`: the distribution of that number, computed once, gives the chances of all hits.

    Args:
        needed: >= 0.
        hits: any shape, each in [0, total].

    Returns:
        Hypergeometric tails of the shape of `hits`, off by less than 1e-12.
    """
    if not 0 < needed <= drawn:
        return np.full(hits.shape, float(needed == 0))
    first, last = needed, total - drawn + needed
    scale = (total + 1) / (drawn + 1)
    spread = np.sqrt(needed * (drawn + 1 - needed) * (total - drawn) / (total + 1) / (drawn + 2)) * scale
    width = 8 * spread + 30 * scale  # by Bernstein's inequality e^-30 is beyond it at most
    low = max(first, int(needed * scale - width))
    high = min(last, int(needed * scale + width) + 1)
    numbers = np.arange(low, high, dtype=np.float64)
    growth = np.log(numbers * (last - numbers) / ((numbers - needed + 1) * (total - numbers)))
    logs = np.concatenate([[0.0], np.cumsum(growth)])
    below = np.cumsum(np.exp(logs - logs.max()))
    chances = np.concatenate([[0.0], below / below[-1]])
    return np.asarray(chances[np.clip(hits - low + 1, 0, high - low + 1)])


def curves(comparison: Comparison, radius: float) -> tuple[Curve, ...]:
    """Return the curve of each method that was certified and timed, in the order of the header.

    Args:
        comparison: of one run; methods are compared at the sigmas and on the images that all of them have.
        radius: L2, pixel units, >= 0.

    Raises:
        ProtocolError: the run's samples were not spent as fixed estimation with Clopper-Pearson does, or not stored.
        RecordsError: no method has both certificates and a measured cost at some sigma, or they share no sigma.
    """
    _check(comparison.runs[0])
    timed = {label for label in comparison.labels if comparison.cost_near(label, 0.0) is not None}
    entries = [entry for entry in comparison.best if entry.label in timed]
    if not entries:
        raise RecordsError(
            f"{comparison.runs[0].folder} has no method with certificates and a measured cost, at a sigma that all "
            "methods have: repeat its `bench run` with --cost-repetitions 10"
        )
    samples = _sample_counts(entries[0].header.n)
    return tuple(
        _curve(comparison, [entry for entry in entries if entry.method == method], samples, radius)
        for method in dict.fromkeys(entry.method for entry in entries)
    )


def _curve(
    comparison: Comparison, entries: Sequence[Entry], samples: NDArray[np.int64], radius: float
) -> Curve:
    costs = [comparison.cost_near(entry.label, entry.sigma) for entry in entries]
    rates = np.array([samples_per_second(cost).median for cost in costs if cost is not None])
    return Curve(
        method=entries[0].method,
        samples=samples,
        sigmas=np.array([entry.sigma for entry in entries]),
        seconds=(entries[0].header.n0 + samples) / rates[:, None],
        chances=np.array([_chances(entry, samples, radius) for entry in entries]),
    )


def _chances(entry: Entry, samples: NDArray[np.int64], radius: float) -> Floats:
    """Return the chance (N, I) that each image is certified at the radius with each number of samples."""
    n, alpha = entry.header.n, entry.header.alpha
    hits, is_selected = entry.columns.hits, entry.columns.selected == entry.columns.label
    needed = [least_count(int(few), alpha, radius, entry.sigma) for few in samples]
    rows = [chances_of_at_least(count, hits, n, int(few)) for count, few in zip(needed, samples, strict=True)]
    return np.array(rows) * is_selected


def _check(run: Run) -> None:
    header = run.header
    if (header.estimation, header.bound) != ("fixed", "clopper-pearson"):
        raise ProtocolError(
            f"{run.folder} has {header.estimation} estimation and the {header.bound} bound: equal accuracy needs "
            "fixed estimation with clopper-pearson"
        )
    columns = columns_of(run.records)
    if columns.is_composed.any():
        raise ProtocolError(
            f"{run.folder} holds certificates that are composed of several bounds: equal accuracy needs one for each"
        )
    if not columns.has_counts.all():
        raise ProtocolError(f"{run.folder} holds records without counts: equal accuracy follows from counts")


def _sample_counts(n: int) -> NDArray[np.int64]:
    """Return counts from 1 to n, neighbours about RATIO apart."""
    steps = int(np.ceil(np.log(n) / np.log(RATIO))) + 1
    return np.unique(np.round(np.geomspace(1, n, steps)).astype(np.int64))


def at_equal_accuracy(
    found: Sequence[Curve],
    radius: float,
    *,
    reference: str = REFERENCE,
    resamples: int = RESAMPLES,
) -> tuple[EqualAccuracy, ...]:
    """Return every method beside the reference, itself among them, at each of `SHARES` of the reference's accuracy.

    Intervals are of the percentile bootstrap over images, from a generator seeded with 0: each resample chooses
    sigmas, target and samples anew for all methods.

    Args:
        found: curves at the radius, of the same images.
        radius: theirs.
        resamples: of the images.

    Returns:
        Nothing where the reference certifies no image at the radius.

    Raises:
        RecordsError: the reference is not among the curves.
    """
    base = next((curve for curve in found if curve.method == reference), None)
    if base is None:
        raise RecordsError(
            f"no certificates and measured cost of {reference}: equal accuracy is relative to it; run it too"
        )
    if base.accuracy()[0][0, -1] == 0:
        return ()
    images = base.chances.shape[-1]
    draws = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=resamples)
    weights = draws / images
    whole = [curve.accuracy() for curve in found]
    resampled = [curve.accuracy(weights) for curve in found]
    place = found.index(base)
    pairs = [
        _Pair(
            curve=curve,
            base=base,
            whole=whole[number],
            base_whole=whole[place],
            resampled=resampled[number],
            base_resampled=resampled[place],
        )
        for number, curve in enumerate(found)
    ]
    return tuple(pair.at(share, radius) for share in SHARES for pair in pairs)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """A method and the reference: their curves, and what `Curve.accuracy` gives of all images and of each resample."""

    curve: Curve
    base: Curve
    whole: tuple[Floats, Floats]
    base_whole: tuple[Floats, Floats]
    resampled: tuple[Floats, Floats]
    base_resampled: tuple[Floats, Floats]

    def at(self, share: float, radius: float) -> EqualAccuracy:
        """Return the two where they reach a share of the reference's accuracy."""
        base_accuracy = self.base_whole[0][:, -1]
        [first], [seconds] = _reaching(self.whole, share * base_accuracy)
        [base_first], [base_seconds] = _reaching(self.base_whole, share * base_accuracy)
        is_reached = first >= 0
        return EqualAccuracy(
            radius=radius,
            share=share,
            method=self.curve.method,
            accuracy=float(self.whole[0][0, -1]),
            reference_accuracy=float(base_accuracy[0]),
            target=float(share * base_accuracy[0]),
            samples=int(self.curve.samples[first]) if is_reached else None,
            sigma=self.curve.best_sigma(first) if is_reached else None,
            seconds=float(seconds) if is_reached else None,
            reference_samples=int(self.base.samples[base_first]),
            reference_seconds=float(base_seconds),
            interval=self._interval(share),
        )

    def _interval(self, share: float) -> tuple[float, float] | None:
        targets = share * self.base_resampled[0][:, -1]
        if targets.min() == 0:
            return None
        speedups = _reaching(self.base_resampled, targets)[1] / _reaching(self.resampled, targets)[1]
        low, high = np.quantile(speedups, [0.025, 0.975], method="nearest")
        return float(low), float(high)


def _reaching(curve: tuple[Floats, Floats], targets: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return positions (B,) of the fewest samples that reach each target (B,), and their seconds; -1, inf for none."""
    accuracy, seconds = curve
    reached = accuracy >= targets[:, None] - 1e-12
    first, ever = reached.argmax(axis=1), reached.any(axis=1)
    return np.where(ever, first, -1), np.where(ever, seconds[np.arange(len(first)), first], np.inf)
