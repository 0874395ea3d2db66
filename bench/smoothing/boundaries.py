"""Exact boundaries of sequential estimation: how many failures still certify a radius, and how many give it up.

A failure is a sample of another class than the selected one. A radius r is certified by the test of the null
hypothesis that the probability of a failure is at least 1 - Phi(r / sigma). The samples are looked at a few times; at
each look the radius counts as certified while the failures are few enough. The numbers of failures are computed by
the exact recursion over all paths of the count, so that under the null hypothesis the count is ever few enough with
probability alpha at most: group-sequential boundaries (Lan and DeMets 1983, doi 10.1093/biomet/70.3.659), for the
binomial distribution itself instead of its normal limit. Float64, no torch.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

BLOCK = 128
"""Looks are whole blocks of noise."""

GROWTH = 1.04
"""Samples of a look over those of the look before, where that is more than a block."""

COST_AT_N = 0.0025
"""How much less n samples may certify than Clopper-Pearson's bound does, in units of sigma, to pay for early looks."""

EARLINESS = 0.1
"""At look i of T, the share (i / T)^EARLINESS of what early looks may spend may be spent."""

GIVEN_UP = 0.04
"""Of the images that n samples certify half of the time: the share that is given up, and would have been certified."""

MARGIN = 1e-6
"""Part of alpha that is never spent: far more than the rounding errors of a recursion."""

Masses = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """When one radius is certified.

    Attributes:
        most: at each look, the most failures that certify the radius; -1: none do.
        luck: with the randomised bound, one failure more certifies it at n for an image whose uniform is at most this.
    """

    most: tuple[int, ...]
    luck: float


@functools.cache
def looks(n: int) -> tuple[int, ...]:
    """Return after how many samples the counts are looked at, ascending; the last is n."""
    found, samples = [], BLOCK
    while samples < n:
        found.append(samples)
        samples = max(samples + BLOCK, BLOCK * round(GROWTH * samples / BLOCK))
    return (*found, n)


@functools.lru_cache(maxsize=4096)
def boundary(n: int, alpha: float, tail: float) -> Boundary:
    """Return the boundary of the radius whose null hypothesis is that failures have probability `tail` or more.

    Where they do, the failures are ever within `most`, at n with the luck of an independent uniform, with probability
    alpha at most. Early looks spend what the count needed at n leaves of alpha; that count is nearly
    Clopper-Pearson's (see COST_AT_N), so that an image that comes to n loses little.

    Args:
        n: samples at the last look, >= 1.
        alpha: level, in (0, 1).
        tail: probability of a failure, in [0, 1/2].
    """
    counts = looks(n)
    allowed = alpha * (1 - MARGIN)
    at_n = _most_at_n(n, allowed, tail)
    if at_n < 0:  # not even n successes certify the radius
        luck = math.exp(math.log(allowed) - n * math.log1p(-tail))
        return Boundary(most=(-1,) * len(counts), luck=luck)
    spare = allowed - float(special.bdtr(at_n, n, tail))
    first, mass, most = 0, np.ones(1), []
    crossed = wasted = 0.0  # P(ever within `most`); P(that, with more failures at n than certify there)
    for number, (before, samples) in enumerate(zip((0, *counts), counts, strict=False), 1):
        first, mass, dropped = _advanced(first, mass, samples - before, tail)
        crossed, wasted = crossed + dropped, wasted + dropped
        if samples == n:
            break
        few = mass[: np.searchsorted(crossed + np.cumsum(mass), allowed)]  # more cannot be afforded
        above = _above(at_n - first - np.arange(len(few)), n - samples, tail)
        waste = wasted + np.cumsum(few * above)
        kept = int(np.searchsorted(waste, spare * (number / len(counts)) ** EARLINESS, side="right"))
        most.append(first + kept - 1)
        crossed, wasted = crossed + float(mass[:kept].sum()), float(waste[kept - 1]) if kept else wasted
        first, mass = first + kept, mass[kept:]
        mass, dropped = _trimmed(mass, MARGIN * alpha / (2 * len(counts)))
        crossed, wasted = crossed + dropped, wasted + dropped
    certified = crossed + np.cumsum(mass)
    kept = int(np.searchsorted(certified, allowed, side="right"))
    left = allowed - (float(certified[kept - 1]) if kept else crossed)
    luck = left / float(mass[kept]) if kept < len(mass) else 0.0
    return Boundary(most=(*most, first + kept - 1), luck=luck)


@functools.lru_cache(maxsize=4096)
def hopeless(n: int, most: int) -> tuple[int, ...]:
    """Return, at each look, the fewest failures with which it is given up to have at most `most` of them at n.

    It needs no part of alpha: an image that is given up is not certified. Of the images that would have at most `most`
    failures half of the time, the share GIVEN_UP is given up and would have had them.

    Args:
        n: samples at the last look, >= 1.
        most: -1 where n samples cannot certify: given up at once.
    """
    counts = looks(n)
    if most < 0:
        return (0,) * len(counts)
    tail = float(special.betaincinv(most + 1, n - most, 0.5)) if most < n else 1.0
    first, mass, fewest, lost = 0, np.ones(1), [], 0.0
    for number, (before, samples) in enumerate(zip((0, *counts), counts[:-1], strict=False), 1):
        first, mass, _ = _advanced(first, mass, samples - before, tail)
        start = min(
            max(0, math.ceil(most - (n - samples) * tail) - first), len(mass)
        )  # fewer are expected to do
        failures = first + np.arange(start, len(mass))
        losses = lost + np.cumsum((mass[start:] * (1 - _above(most - failures, n - samples, tail)))[::-1])
        ended = int(np.searchsorted(losses, GIVEN_UP * math.sqrt(number / len(counts)), side="right"))
        lost = float(losses[ended - 1]) if ended else lost
        mass = mass[: len(mass) - ended]
        fewest.append(min(first + len(mass), most + 1))
        kept, _ = _trimmed(mass[::-1], MARGIN / len(counts))
        first, mass = first + len(mass) - len(kept), kept[::-1]
    return (*fewest, most + 1)


def _most_at_n(n: int, alpha: float, tail: float) -> int:
    """Return the most failures of n that are to certify: Clopper-Pearson's number at alpha, or a little less."""
    if tail == 0.0 or n * math.log1p(-tail) > math.log(alpha):
        return -1
    most = int(special.bdtrik(alpha, n, tail))
    while special.bdtr(most, n, tail) > alpha:
        most -= 1
    while special.bdtr(most + 1, n, tail) <= alpha:
        most += 1
    quantiles = special.ndtri(np.arange(most + 1) / n)
    return int(np.searchsorted(quantiles, quantiles[-1] - COST_AT_N)) if most > 0 else most


def _advanced(first: int, mass: Masses, samples: int, tail: float) -> tuple[int, Masses, float]:
    """Return the masses of the failures after more samples, and the mass that is dropped.

    Args:
        first: failures of the first mass; those of the others follow.
        mass: probability of each number of failures.
        samples: how many more, >= 1.
        tail: probability of a failure.
    """
    mean = samples * tail
    reach = 9 * math.sqrt(mean * (1 - tail)) + 30  # beyond it, about 1e-18 of the mass
    low, high = max(0, math.floor(mean - reach)), min(samples, math.ceil(mean + reach))
    more = np.arange(low, high + 1)
    logs = special.gammaln(samples + 1) - special.gammaln(more + 1) - special.gammaln(samples - more + 1)
    logs += special.xlogy(more, tail) + special.xlog1py(samples - more, -tail)
    outside = float(special.bdtrc(high, samples, tail)) if high < samples else 0.0
    outside += float(special.bdtr(low - 1, samples, tail)) if low else 0.0
    return first + low, np.convolve(mass, np.exp(logs)), outside * float(mass.sum())


def _above(most: NDArray[np.int64], samples: int, tail: float) -> Masses:
    """Return the probability of more than `most` failures among so many samples, for each of `most`."""
    return np.where(most < 0, 1.0, special.bdtrc(np.clip(most, 0, samples), samples, tail))


def _trimmed(mass: Masses, negligible: float) -> tuple[Masses, float]:
    """Return the masses without the last ones that are negligible together, and how much these are."""
    behind = np.cumsum(mass[::-1])
    ended = int(np.searchsorted(behind, negligible, side="right"))
    return mass[: len(mass) - ended], float(behind[ended - 1]) if ended else 0.0
