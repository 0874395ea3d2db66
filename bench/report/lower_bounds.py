"""Certificates -> how the lower bound of p_A is distributed over the images; pure, float64.

p_A is the probability that the base classifier gives a noisy copy of an image its label (arXiv 1902.02918). How its
bound is distributed says more than the ACR, which one value of it can dominate (arXiv 2410.06895).
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.report.metrics import Share
from bench.smoothing.estimation import bound_tail
from bench.smoothing.stats import upper_tails

if TYPE_CHECKING:
    from bench.report.comparison import Entry


@dataclass(frozen=True, kw_only=True)
class LowerBounds:
    """The bounds of one entry as tails, 1 - bound, which keep their precision near a bound of 1.

    Attributes:
        tails: of the images whose label selection chose, ascending; every other image has a bound of 0.
        radii: certified by each, in pixel units, 0 where the bound is 1/2 or less; those of equal tails ascend.
        images: all images.
        has_uncertified: False where bounds below 1/2 are unknown: sequential estimation stops before it has one, and a
            published log holds no counts. Then tails are at most 1/2.
    """

    tails: tuple[float, ...]
    radii: tuple[float, ...]
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
        return LowerBounds(tails=(), radii=(), images=len(entry.records), has_uncertified=False)
    has_uncertified = not entry.header.stops_early and entry.has_counts
    radii = entry.certified.radii[entry.certified.radii >= 0]
    tails = special.ndtr(-radii / entry.sigma)
    if has_uncertified:
        others = _uncertified(entry)
        tails, radii = np.concatenate([tails, others]), np.concatenate([radii, np.zeros(len(others))])
    order = np.lexsort((radii, tails))
    return LowerBounds(
        tails=tuple(tails[order].tolist()),
        radii=tuple(radii[order].tolist()),
        images=len(entry.records),
        has_uncertified=has_uncertified,
    )


def _uncertified(entry: Entry) -> NDArray[np.float64]:
    """Return 1 - bound of the images that are not certified, as far as selection chose their label; no bound is 0."""
    columns, header = entry.columns, entry.header
    is_right = ~columns.is_correct & (columns.selected == columns.label) & (columns.estimation.lengths > 0)
    left = columns.take(np.flatnonzero(is_right))
    if header.bound == "clopper-pearson":
        kinds, places = np.unique(left.hits, return_inverse=True)
        tails = upper_tails(kinds, header.n, header.alpha)[places]
    else:
        pairs = zip(left.hits.tolist(), left.uniform.tolist(), strict=True)
        tails = np.array([bound_tail(hits, header.n, header, uniform) for hits, uniform in pairs], np.float64)
    return tails[tails < 1]
