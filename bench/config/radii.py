"""Radii at which tables state certified accuracy, where nobody names any: steps up to the largest certifiable one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

from bench.types import Protocol

STEPS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Distances between radii that are chosen: tables show two decimals."""

MOST_STEPS = 9
"""Radii above 0, at most: more columns do not fit a page."""


def reached(protocol: Protocol, sigma: float) -> float:
    """Return R_max = sigma Φ⁻¹(alpha^(1/n)) in pixel units, 0 where n samples certify nothing.

    Args:
        protocol: its n and alpha; the Clopper-Pearson bound of n successes is taken, whatever its bound.
        sigma: noise level in pixel units, > 0.
    """
    tail = -math.expm1(math.log(protocol.alpha) / protocol.n)  # exact where alpha^(1/n) is next to 1
    return max(0.0, -sigma * NormalDist().inv_cdf(tail)) if tail < 1 else 0.0


def chosen_radii(protocol: Protocol, sigmas: Iterable[float]) -> tuple[float, ...]:
    """Return 0 and equal steps up to the largest radius that n samples certify at one of the sigmas, ascending."""
    most = max(reached(protocol, sigma) for sigma in sigmas)
    step = next((one for one in STEPS if most / one < MOST_STEPS + 1), most / MOST_STEPS)
    return tuple(round(step * place, 9) for place in range(int(most / step) + 1))


def radii_sentence(protocol: Protocol, sigmas: Iterable[float]) -> str:
    """Return which radii a protocol's tables have, and that they were chosen."""
    largest = max(sigmas)
    listed = ", ".join(f"{radius:g}" for radius in protocol.radii)
    return (
        f"radii of the tables: {listed}, chosen up to R_max = {math.floor(1000 * reached(protocol, largest)) / 1000:g} "
        f"at sigma {largest:g}; --radii names others"
    )
