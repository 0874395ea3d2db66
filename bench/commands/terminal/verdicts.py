"""Comparisons in words: how much faster, and by how many points more accurate, significantly or not."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from bench.report.markup import format_percent
from bench.report.rates import MAX_SPREAD, REFERENCE, seconds_per_certificate

if TYPE_CHECKING:
    import pandas as pd

    from bench.report.comparison import Comparison, Entry


def verdicts(comparison: Comparison) -> list[str]:
    """Return a sentence on each method against the reference of speedups; none where the runs lack it."""
    from bench.report.tables.paired import paired_frame

    pairs = [
        (one, other)
        for sigma in comparison.sigmas
        for one in comparison.at_sigma(sigma)
        for other in comparison.at_sigma(sigma)
        if other.method == REFERENCE != one.method and one.run_number == other.run_number
    ]
    return sentences(comparison, paired_frame(comparison, pairs), pairs)


def sentences(comparison: Comparison, frame: pd.DataFrame, pairs: Sequence[tuple[Entry, Entry]]) -> list[str]:
    """Return a sentence for each pair of labels of a `paired_frame`, over all sigmas, in the order of the frame."""
    if frame.empty:
        return []
    names = {one.row: one.label for pair in pairs for one in pair}
    found = []
    for pair, rows in frame.groupby(["first", "second"], sort=False):
        first, second = map(str, pair)
        speed = speed_of(comparison, first, second)
        told = {f"{sigma:g}": _difference(part) for sigma, part in rows.groupby("sigma", sort=True)}
        parts = [f"at σ = {sigma} {difference}" for sigma, difference in told.items() if difference]
        if alike := [sigma for sigma, difference in told.items() if not difference]:
            parts.append(f"no significant difference at σ = {', '.join(alike)}")
        who = f"{names[first]} {speed} {names[second]}. Its" if speed else f"{names[first]}'s"
        against = "" if speed else f" compared with {names[second]}'s"
        found.append(f"{who} accuracy{against}: {'; '.join(parts)}.")
    tests = len(frame)
    found.append(
        f"Accuracy is certified accuracy on the same images; significant: exact paired test, p < 0.05 after Holm's "
        f"correction for {tests} test{'s' * (tests > 1)}."
    )
    if any(map(speed_of, [comparison] * len(frame), frame["first"], frame["second"])):
        spread = spread_of(comparison, {*frame["first"], *frame["second"]})
        found += [f"Speeds rest on repetitions with {spread}: do not quote them."] if spread else []
    return found


def _difference(rows: pd.DataFrame) -> str:
    """Return in words at which radii of one sigma two methods differ significantly, and by how much; "" for none."""
    from bench.report.tables.paired import SIGNIFICANT

    parts = []
    for word, sign in (("higher", 1), ("lower", -1)):
        chosen = rows[(rows["p_holm"] < SIGNIFICANT) & (sign * rows["difference"] > 0)]
        if chosen.empty:
            continue
        points = sorted(abs(chosen["difference"]))
        span = dict.fromkeys(format_percent(points[end]) for end in (0, -1))
        radii = ", ".join(f"{radius:g}" for radius in chosen["radius"])
        parts.append(f"{word} by {' to '.join(span)} points at r = {radii}, significant")
    return " and ".join(parts)


def spread_of(comparison: Comparison, rows: Collection[str] | None = None) -> str:
    """Return how far repetitions of a cost lie apart where that is more than `bench cost` accepts, else ""."""
    costs = [one for one in comparison.costs if rows is None or one.row in rows]
    times = [seconds_per_certificate(one.cost) for one in costs]
    widest = max(((time.third - time.first) / time.median for time in times), default=0.0)
    if widest <= MAX_SPREAD:
        return ""
    return (
        f"quartiles up to {math.ceil(100 * widest - 1e-6)}% apart, which is not VALID (`bench cost`: at most "
        f"{100 * MAX_SPREAD:.0f}%)"
    )


def speed_of(comparison: Comparison, first: str, second: str) -> str:
    """Return how fast one is beside the reference of the same run, up to "as", "" where it was not measured."""
    for one in comparison.costs:
        references = {row.row for row in comparison.costs if (row.method, row.run) == (REFERENCE, one.run)}
        if one.row == first and one.speedup is not None and second in references - {first}:
            ratio = one.speedup.median
            fast, slow = f"is {ratio:.1f} times as fast as", f"takes {1 / ratio:.1f} times as long as"
            return fast if ratio >= 1 else slow
    return ""
