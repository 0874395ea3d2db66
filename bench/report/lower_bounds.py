"""Certificates -> how the lower bound of p_A is distributed over the images; pure, float64.

p_A is the probability that the base classifier gives a noisy copy of an image its label (arXiv 1902.02918). How its
bound is distributed says more than the ACR, which one value of it can dominate (arXiv 2410.06895).
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy import special

from bench.report.metrics import Share
from bench.smoothing.estimation import bound_tail
from bench.types import Record

if TYPE_CHECKING:
    from bench.report.comparison import Entry


@dataclass(frozen=True, kw_only=True)
class LowerBounds:
    """The bounds of one entry as tails, 1 - bound, which keep their precision near a bound of 1.

    Attributes:
        tails: of the images whose label selection chose, ascending; every other image has a bound of 0.
        images: all images.
        has_uncertified: False where bounds below 1/2 are unknown: sequential estimation stops before it has one, and a
            published log holds no counts. Then tails are at most 1/2.
    """

    tails: tuple[float, ...]
    images: int
    has_uncertified: bool

    def at_least(self, bound: float) -> Share:
        """Return the share of all images whose bound is at least `bound`, in (0,1)."""
        return self.within(1 - bound)

    def within(self, tail: float) -> Share:
        """Return the share of all images whose tail is at most `tail`: at 1 - Phi(r / sigma), the accuracy at r."""
        return Share(count=bisect.bisect_right(self.tails, tail), images=self.images)


def lower_bounds(entry: Entry) -> LowerBounds:
    """Return the bounds of an entry's images; each holds with probability 1 - alpha by itself.

    Composed certificates have none: no one p_A makes them.
    """
    if entry.is_composed:
        return LowerBounds(tails=(), images=len(entry.records), has_uncertified=False)
    has_uncertified = not entry.header.stops_early and entry.has_counts
    radii = entry.certified.radii
    tails = special.ndtr(-radii[radii >= 0] / entry.sigma).tolist()
    if has_uncertified:
        others = (_tail(record, entry) for record in entry.records if not record.is_correct)
        tails += [tail for tail in others if tail is not None]
    return LowerBounds(tails=tuple(sorted(tails)), images=len(entry.records), has_uncertified=has_uncertified)


def _tail(record: Record, entry: Entry) -> float | None:
    """Return 1 - bound of an image that has counts and is not certified; None for a bound of 0."""
    if record.selected != record.label or not record.counts_estimation:
        return None
    hits = dict(record.counts_estimation).get(record.label, 0)
    tail = bound_tail(hits, record.n, entry.header, record.uniform)
    return tail if tail < 1 else None
