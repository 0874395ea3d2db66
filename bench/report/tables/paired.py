"""Comparison -> what papers leave out: high-probability accuracies, paired comparisons, gaps between training runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from bench.report.comparison import Comparison, Entry
from bench.report.markup import (
    Cell,
    Row,
    Table,
    blocks_of,
    format_at_least,
    format_percent,
    format_radius,
    signed,
)
from bench.report.metrics import assured_accuracy
from bench.report.paired import PairedDifference, paired_differences
from bench.report.tables.accuracy import ABOUT_ACR, SIGNIFICANT, radius_headers
from bench.smoothing.stats import holm

BEYOND = "–: beyond R_max, the largest radius that n samples can certify."

CONFIDENCE = 0.99
"""Of the high-probability accuracies, over the noise."""

Pair = tuple[Entry, Entry]


def pairs_of(comparison: Comparison, *, has_all: bool = False) -> tuple[Pair, ...]:
    """Return the pairs of entries to compare, at each sigma, in the order of the runs and their headers.

    Within one run these are all pairs of methods. Of several runs they are the pairs of one method in two runs, or
    all pairs of two runs where no method is in both.

    Args:
        has_all: take every pair.
    """
    chosen: list[Pair] = []
    for sigma in comparison.sigmas:
        pairs = list(itertools.combinations(comparison.at_sigma(sigma), 2))
        across = [pair for pair in pairs if pair[0].run_number != pair[1].run_number]
        same = [pair for pair in across if pair[0].method == pair[1].method]
        chosen += pairs if has_all else same or across or pairs
    return tuple(chosen)


def paired_frame(comparison: Comparison, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Return the paired comparisons, one row per (pair, radius within reach), unrounded.

    Columns: sigma, first, second (rows), first_label, second_label, images, radius (L2, pixel units), first_accuracy,
    second_accuracy, only_first, only_second (counts of images), difference with its 95% interval low, high (shares),
    p (exact McNemar), p_holm (corrected by Holm's method for all `tests` rows: every pair, sigma and radius).
    """
    rows: list[dict[str, Any]] = []
    for first, second in pairs:
        radii = _within_reach((first, second), comparison.radii)
        for paired in paired_differences(first.certified, second.certified, radii):
            rows.append(_names(first, second) | _paired_columns(paired))
    corrected = holm([row["p"] for row in rows])
    return pd.DataFrame(
        [row | {"p_holm": p, "tests": len(rows)} for row, p in zip(rows, corrected, strict=True)]
    )


def assured_frame(comparison: Comparison) -> pd.DataFrame:
    """Return certified and assured accuracies, one row per (sigma, label, radius), unrounded.

    Columns: sigma, label (the row), shown (its label), run, method, radius, images, certified (a count), assured (a
    count), accuracy, assured_accuracy (shares), confidence (of the latter), is_reachable (radius at most R_max).
    """
    rows = []
    for entry, radius in itertools.product(comparison.entries, comparison.radii):
        share = entry.curve.at(radius)
        assured = assured_accuracy(share, entry.header.alpha, CONFIDENCE)
        rows.append(
            {"sigma": entry.sigma, "label": entry.row, "shown": entry.label, "run": entry.run}
            | {"method": entry.method, "radius": radius}
            | {"images": share.images, "certified": share.count, "assured": assured.count}
            | {"accuracy": share.value, "assured_accuracy": assured.value, "confidence": CONFIDENCE}
            | {"is_reachable": radius <= entry.reach}
        )
    return pd.DataFrame(rows)


def gap_frame(comparison: Comparison) -> pd.DataFrame:
    """Return the gaps between training runs, one row per (sigma, method, radius or ACR), unrounded; perhaps empty.

    The ACR is left out where `Comparison.compares_acr` is False.

    Trainings are checkpoints of one method at one sigma that differ between the runs. Columns: sigma, method,
    shown (what readers call the method), trainings (how many), images, quantity ("certified accuracy" or "ACR"),
    radius (NaN for the ACR), lowest, highest, gap, is_reachable (radius at most R_max of each; True for the ACR).
    """
    rows: list[dict[str, Any]] = []
    for (sigma, method), entries in _trainings(comparison).items():
        reach = min(one.reach for one in entries)
        for radius in (*comparison.radii, None) if comparison.compares_acr else comparison.radii:
            values = [one.acr.value if radius is None else one.curve.at(radius).value for one in entries]
            rows.append(
                {"sigma": sigma, "method": method, "shown": comparison.name_of(method)}
                | {"trainings": len(entries), "images": len(entries[0].records)}
                | {"quantity": "ACR" if radius is None else "certified accuracy", "radius": radius}
                | {"lowest": min(values), "highest": max(values), "gap": max(values) - min(values)}
                | {"is_reachable": radius is None or radius <= reach}
            )
    return pd.DataFrame(rows)


def paired_table(frame: pd.DataFrame) -> Table:
    """Return the printed table of a `paired_frame`: a block per pair and sigma, a row per radius."""
    return Table(
        caption="Paired comparison: certified accuracy (%) of two methods on the same images",
        headers=("radius", "first", "second", "only first", "only second", "difference", "p", "p (Holm)"),
        blocks=blocks_of(
            frame, _paired_rows, ["sigma", "first_label", "second_label"], title="σ = {:g}: {} against {}"
        ),
        notes=(
            "Only first, only second: images that one certifies at the radius and the other does not. Difference: "
            "first minus second in points, with the paired 95% score interval (Tango 1998), which is not "
            "corrected.",
            f"p: exact McNemar test; p (Holm): corrected for all {len(frame)} tests of this comparison, those of every "
            f"pair, σ and radius. Bold: p (Holm) below {SIGNIFICANT:g}. Radii out of reach are left out.",
            "Intervals and tests are over images: they say whether two trained classifiers differ on images like "
            "these, and do not cover the variation between training runs.",
        ),
    )


def assured_table(frame: pd.DataFrame, warnings: Sequence[str] = ()) -> Table:
    """Return the printed table of an `assured_frame`: a row per label, a column per radius; `warnings` come first."""
    radii = sorted(set(frame["radius"]))
    return Table(
        caption=f"High-probability certified accuracy (%): the share that holds with probability {CONFIDENCE:g}",
        headers=("method", *radius_headers(radii)),
        blocks=blocks_of(frame, _assured_rows),
        notes=(
            *warnings,
            *([] if frame["is_reachable"].all() else [BEYOND]),
            "Each certificate is wrong with probability alpha at most; the number that may be wrong together is "
            "taken off (arXiv 1902.02918, appendix, with the exact binomial quantile). Rounded down.",
        ),
    )


def gap_table(frame: pd.DataFrame) -> Table:
    """Return the printed table of a `gap_frame` that is not empty: a block per sigma."""
    radii, acr = sorted(set(frame["radius"].dropna())), bool((frame["quantity"] == "ACR").any())
    return Table(
        caption="Between training runs of one method: lowest and highest certified accuracy (%)"
        + (", and ACR" if acr else ""),
        headers=("method", "training runs", *radius_headers(radii), *("ACR",) * acr),
        blocks=blocks_of(frame, _gap_rows),
        notes=(
            "Trainings: checkpoints of the method that differ between the runs.",
            *([] if frame["is_reachable"].all() else [BEYOND]),
            *([ABOUT_ACR] if acr else []),
        ),
    )


def _within_reach(pair: Pair, radii: Sequence[float]) -> tuple[float, ...]:
    """Return the radii that both can certify: beyond the reach of one, the difference is that of the protocols."""
    reach = min(entry.reach for entry in pair)
    return tuple(radius for radius in radii if radius <= reach)


def _trainings(comparison: Comparison) -> dict[tuple[float, str], list[Entry]]:
    """Return (sigma, method) -> entries with checkpoints that differ, where there are two or more."""
    found: dict[tuple[float, str], dict[str, Entry]] = {}
    for entry in comparison.entries:
        if entry.checkpoint is not None:
            found.setdefault((entry.sigma, entry.method), {}).setdefault(entry.checkpoint, entry)
    return {key: list(entries.values()) for key, entries in found.items() if len(entries) > 1}


def _names(first: Entry, second: Entry) -> dict[str, Any]:
    names = {"sigma": first.sigma, "first": first.row, "second": second.row}
    labels = {"first_label": first.label, "second_label": second.label}
    return names | labels | {"images": len(first.records)}


def _paired_columns(paired: PairedDifference) -> dict[str, Any]:
    low, high = paired.interval()
    return (
        {"radius": paired.radius}
        | {"first_accuracy": paired.first.value, "second_accuracy": paired.second.value}
        | {"only_first": paired.only_first, "only_second": paired.only_second}
        | {"difference": paired.difference, "low": low, "high": high, "p": paired.p}
    )


def _paired_rows(part: pd.DataFrame) -> Iterable[Row]:
    for radius, (_, row) in zip(radius_headers(part["radius"].tolist()), part.iterrows(), strict=True):
        yield (
            radius,
            format_percent(row["first_accuracy"]),
            format_percent(row["second_accuracy"]),
            str(row["only_first"]),
            str(row["only_second"]),
            difference_cell(row),
            format_p(row["p"]),
            Cell(text=format_p(row["p_holm"]), is_best=is_significant(row)),
        )


def is_significant(row: Any) -> bool:
    """Return whether a row of a `paired_frame` tells its two methods apart."""
    return bool(row["p_holm"] < SIGNIFICANT)


def difference_cell(row: Any) -> Cell:
    """Return the difference of a row of a `paired_frame` in points, bold where it is significant."""
    difference, *ends = (signed(100 * row[name], 1) for name in ("difference", "low", "high"))
    return Cell(text=difference, interval=(ends[0], ends[1]), is_best=is_significant(row))


def format_p(p: float) -> str:
    """Return a p-value with three decimals, or that it is below 0.001."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _assured_rows(part: pd.DataFrame) -> Iterable[Row]:
    for label, rows in part.groupby("shown", sort=False):
        yield (
            str(label),
            *(
                format_at_least(row["assured_accuracy"]) if row["is_reachable"] else "–"
                for _, row in rows.iterrows()
            ),
        )


def _gap_rows(part: pd.DataFrame) -> Iterable[Row]:
    for shown, rows in part.groupby("shown", sort=False):
        ranges = (_range(row) for _, row in rows.iterrows())
        yield str(shown), str(rows["trainings"].iloc[0]), *ranges


def _range(row: Any) -> str:
    if not row["is_reachable"]:
        return "–"
    is_acr = row["quantity"] == "ACR"
    ends = (row["lowest"], row["highest"])
    return " to ".join(format_radius(end, 3) if is_acr else format_percent(end) for end in ends)
