"""Rates of measured costs: samples per second, seconds per certificate, speedups paired by round; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.errors import ProtocolError
from bench.types import CostRecord

REFERENCE = "dds"
"""Method whose throughput the others' is divided by: diffusion denoised smoothing."""

MAX_SPREAD = 0.05
"""Difference of the quartiles of VALID timings over their median, at most."""


@dataclass(frozen=True, kw_only=True)
class Quartiles:
    """Median and quartiles over repetitions, interpolated linearly."""

    first: float
    median: float
    third: float

    def times(self, factor: float) -> Quartiles:
        """Return these values in a unit that is `factor` times smaller."""
        return Quartiles(first=factor * self.first, median=factor * self.median, third=factor * self.third)


def quartiles(values: Sequence[float] | np.ndarray) -> Quartiles:
    """Return median and quartiles of some values."""
    first, median, third = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Quartiles(first=first, median=median, third=third)


def samples_per_second(cost: CostRecord) -> Quartiles:
    """Return the throughput in noisy samples per second, over the repetitions."""
    return quartiles(_rates(cost))


def seconds_per_certificate(cost: CostRecord) -> Quartiles:
    """Return the time that the n0 + n samples of one certificate take, over the repetitions."""
    scale = cost.samples_per_certificate / cost.samples_per_repetition
    return quartiles(scale * np.asarray(cost.repetition_seconds))


def speedups(costs: Sequence[CostRecord]) -> dict[tuple[str, float], Quartiles]:
    """Return (method, sigma) -> throughput over that of REFERENCE at the same sigma, paired by round.

    Args:
        costs: costs of one run; those at a sigma without REFERENCE have no speedup, REFERENCE itself has 1.

    Raises:
        ProtocolError: a cost was measured on another device, or in other rounds, than REFERENCE.
    """
    references = {cost.sigma: cost for cost in costs if cost.method == REFERENCE}
    return {
        (cost.method, cost.sigma): _speedup(cost, references[cost.sigma])
        for cost in costs
        if cost.sigma in references
    }


def _speedup(cost: CostRecord, base: CostRecord) -> Quartiles:
    for name, own, other in (
        ("device", cost.device, base.device),
        ("number of rounds", len(cost.repetition_seconds), len(base.repetition_seconds)),
    ):
        if own != other:
            raise ProtocolError(
                f"{cost.method} and {REFERENCE} at sigma {cost.sigma:g} differ in {name} ({own!r} and "
                f"{other!r}): measure both in one run"
            )
    return quartiles(_rates(cost) * np.asarray(base.repetition_seconds) / base.samples_per_repetition)


def _rates(cost: CostRecord) -> np.ndarray:
    return cost.samples_per_repetition / np.asarray(cost.repetition_seconds)
