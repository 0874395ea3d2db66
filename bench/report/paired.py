"""Two methods on the same images -> differences in certified accuracy, their intervals and tests; pure.

Every method sees the same images under the same noise, so that methods are compared image by image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.errors import ProtocolError
from bench.report.metrics import Certified, Share
from bench.smoothing.stats import binomial_two_sided_p, paired_interval


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Two methods at one radius, over the same images.

    Attributes:
        radius: L2, pixel units.
        first, second: certified accuracy of each.
        only_first, only_second: images that one of them certifies at the radius and the other does not.
        p: of the exact McNemar test that the two certify equally often, by itself.
    """

    radius: float
    first: Share
    second: Share
    only_first: int
    only_second: int
    p: float

    @property
    def difference(self) -> float:
        """Certified accuracy of the first minus that of the second, in [-1,1]."""
        return (self.only_first - self.only_second) / self.first.images

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the paired score interval of the difference; see `bench.smoothing.stats.paired_interval`."""
        return paired_interval(self.only_first, self.only_second, self.first.images, confidence)


def paired_differences(
    first: Certified, second: Certified, radii: Sequence[float]
) -> tuple[PairedDifference, ...]:
    """Return two methods compared at each radius by the exact McNemar test; whoever looks at several corrects for them.

    The test looks at the images that one of the two certifies and the other does not: were both equally good,
    each of those would be a fair coin.

    Args:
        first, second: certified radii of the same images.
        radii: L2, pixel units.

    Raises:
        ProtocolError: the two do not hold the same images.
    """
    _check_images(first, second)
    return tuple(_at(radius, first.radii >= radius, second.radii >= radius) for radius in radii)


def _at(radius: float, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> PairedDifference:
    only_first, only_second = (int(np.count_nonzero(one)) for one in (first & ~second, second & ~first))
    return PairedDifference(
        radius=radius,
        first=Share(count=int(np.count_nonzero(first)), images=len(first)),
        second=Share(count=int(np.count_nonzero(second)), images=len(second)),
        only_first=only_first,
        only_second=only_second,
        p=binomial_two_sided_p(only_first, only_first + only_second),
    )


def _check_images(first: Certified, second: Certified) -> None:
    if not np.array_equal(first.indices, second.indices):
        one_sided = len(np.setxor1d(first.indices, second.indices))
        raise ProtocolError(
            f"a paired comparison needs the same images on both sides, got {one_sided} that only one of them has; "
            "restrict both to their common images"
        )
