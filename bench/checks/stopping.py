"""The stopping rule of sequential estimation by exact recursion over every path: how often it certifies too much."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.smoothing.estimation import StoppingRule, stopping_rule, table_tails
from bench.smoothing.noise import NOISE_BLOCK
from bench.types import Protocol

JUST_ABOVE = 1 + 1e-9
"""Factor from the largest probability of a failure at which a radius is true to one at which it is false."""

NEGLIGIBLE = 1e-16
"""Counts of this probability, at most, are left out at either end; they are counted as wrong."""

Masses = NDArray[np.float64]


def worst_failure(protocol: Protocol, sigma: float) -> float:
    """Return the highest probability of a wrong certificate, over all radii of the table at once.

    The probability of a failure, a sample of another class than the selected one, is put just above what each radius
    allows, where the risk is highest, and between these.

    Args:
        protocol: with sequential estimation and the bound of Clopper and Pearson.
        sigma: standard deviation of the noise.
    """
    rule = stopping_rule(protocol, sigma)
    allowed = table_tails(rule.radii, sigma)
    between = [(larger + smaller) / 2 for larger, smaller in itertools.pairwise(allowed)]
    return max(
        wrong_probability(rule, sigma, tail) for tail in (*(t * JUST_ABOVE for t in allowed), *between)
    )


def wrong_probability(rule: StoppingRule, sigma: float, tail: float) -> float:
    """Return the probability that an image is certified beyond its true radius.

    After each whole block of noise the rule is asked whether to stop, as the certifier asks it, and where it does, or
    at n samples, what is certified.

    Args:
        rule: that certifies images.
        sigma: standard deviation of the noise.
        tail: probability of a failure, in (0, 1).
    """
    allowed = table_tails(rule.radii, sigma)
    too_far = next((radius for radius, most in zip(rule.radii, allowed, strict=True) if most < tail), None)
    if too_far is None:
        return 0.0
    first, mass, wrong, before = 0, np.ones(1), 0.0, 0
    for samples in (*range(NOISE_BLOCK, rule.n, NOISE_BLOCK), rule.n):
        first, mass, left_out = _drawn(first, mass, samples - before, tail)
        before, wrong = samples, wrong + left_out
        for place in range(len(mass)):
            k = samples - first - place
            if samples == rule.n or rule.is_settled(k, samples):
                radius = rule.certified(k, samples)
                wrong += float(mass[place]) if radius is not None and radius >= too_far else 0.0
                mass[place] = 0.0
        if not mass.any():
            break
    return wrong


def _drawn(first: int, mass: Masses, samples: int, tail: float) -> tuple[int, Masses, float]:
    """Return the masses of the failures after more samples, as first failures and masses, and the mass left out."""
    chances = np.diff(special.bdtr(np.arange(samples + 1), samples, tail), prepend=0.0)
    masses = np.convolve(mass, chances)
    kept = np.flatnonzero(masses > NEGLIGIBLE)
    low, high = (int(kept[0]), int(kept[-1]) + 1) if len(kept) else (0, 0)
    return first + low, masses[low:high], float(masses[:low].sum() + masses[high:].sum())
