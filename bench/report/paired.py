"""Two methods on the same images -> differences in certified accuracy, their intervals and tests; pure.

Every method sees the same images under the same noise, so that methods are compared image by image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.errors import ProtocolError
from bench.report.metrics import Share, certified_accuracy, is_certified
from bench.smoothing.stats import binomial_two_sided_p, paired_interval
from bench.types import Record


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
    first: Sequence[Record], second: Sequence[Record], radii: Sequence[float]
) -> tuple[PairedDifference, ...]:
    """Return two methods compared at each radius by the exact McNemar test; whoever looks at several corrects for them.

    The test looks at the images that one of the two certifies and the other does not: were both equally good,
    each of those would be a fair coin.

    Args:
        first, second: records of the same images, each image once, in any order.
        radii: L2, pixel units.

    Raises:
        ProtocolError: the two do not hold the same images.
        RecordsError: there are no records.
    """
    pairs = _pairs(first, second)
    only = [
        (
            sum(_holds(a, radius) and not _holds(b, radius) for a, b in pairs),
            sum(_holds(b, radius) and not _holds(a, radius) for a, b in pairs),
        )
        for radius in radii
    ]
    return tuple(
        PairedDifference(
            radius=radius,
            first=certified_accuracy(first, radius),
            second=certified_accuracy(second, radius),
            only_first=only_first,
            only_second=only_second,
            p=binomial_two_sided_p(only_first, only_first + only_second),
        )
        for radius, (only_first, only_second) in zip(radii, only, strict=True)
    )


def _pairs(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[Record, Record]]:
    by_index: tuple[Mapping[int, Record], ...] = tuple(
        {record.index: record for record in records} for records in (first, second)
    )
    if by_index[0].keys() != by_index[1].keys():
        one_sided = len(by_index[0].keys() ^ by_index[1].keys())
        raise ProtocolError(
            f"a paired comparison needs the same images on both sides, got {one_sided} that only one of them has; "
            "restrict both to their common images"
        )
    return [(record, by_index[1][index]) for index, record in by_index[0].items()]


def _holds(record: Record, radius: float) -> bool:
    return is_certified(record) and record.radius >= radius
