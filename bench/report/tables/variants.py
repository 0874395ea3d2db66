"""Comparison of several training runs -> the table of what each variant certifies, beside a reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import pandas as pd

from bench.config.names import nearest_hint
from bench.errors import RecordsError, UsageError
from bench.report.comparison import Comparison, Entry
from bench.report.markup import Cell, Row, Table, blocks_of, format_percent, format_radius, signed
from bench.report.tables.accuracy import ABOUT_ACR, SIGNIFICANT, radius_headers
from bench.report.tables.paired import BEYOND, is_significant
from bench.report.variants import (
    Estimate,
    Holds,
    at_radius,
    certified_radius,
    estimate,
    pooled_variance,
    scores,
    variant_of,
)
from bench.smoothing.stats import holm

NO_ACR = "No ACR: sequential estimation leaves it a lower bound, which is not compared."

Variants = dict[str, list[Entry]]
"""Variant -> its training runs."""


def variants_frame(comparison: Comparison, reference: str) -> pd.DataFrame:
    """Return means over training runs, and differences to the reference, one row per (sigma, method, variant, radius).

    Radii that no certificate reaches are left out, and in each group those that one of its runs cannot certify; the ACR
    is left out where `Comparison.compares_acr` is False.
    Columns: sigma, method, variant, trainings, images, quantity ("certified accuracy" or "ACR"), radius (NaN for the
    ACR), mean with mean_low, mean_high, mean_interval_holds and mean_is_exact, then the same of difference, p
    (Student's t, or the sign test where the difference is exact) and p_holm (corrected for every difference of the
    frame), empty for the reference. What an interval holds, and what a variant that was trained once borrows, are at
    `bench.report.variants.estimate`; the variance is pooled over the variants of one method in a group of
    `variants_of`.

    Args:
        reference: a variant that every group has; the others are compared with it.

    Raises:
        UsageError: no run is a training of the reference.
        RecordsError: two runs of one variant hold the same checkpoint, a group lacks the reference, or no certificate
            reaches a radius of the table.
    """
    rows: list[dict[str, Any]] = []
    reach = max(float(entry.columns.radius.max()) for entry in comparison.entries)
    radii = [radius for radius in comparison.radii if radius <= reach]
    for (sigma, _), variants in variants_of(comparison, reference).items():
        within = [radius for radius in radii if radius <= _common_reach(variants)]
        for radius in (*within, None) if comparison.compares_acr else within:
            score = certified_radius if radius is None else at_radius(radius)
            values = {
                name: scores([one.records for one in entries], score) for name, entries in variants.items()
            }
            methods = {name: entries[0].method for name, entries in variants.items()}
            pooled = {
                method: pooled_variance(values[name] for name in methods if methods[name] == method)
                for method in set(methods.values())
            }
            most = 1.0 if radius is not None else _longest(variants)
            quantity = {"quantity": "ACR" if radius is None else "certified accuracy", "radius": radius}
            for name, value in values.items():
                own, other = pooled[methods[name]], pooled[methods[reference]]
                shared = own if methods[name] == methods[reference] else (own, other)
                against = None if name == reference else estimate(value, values[reference], shared, most=most)
                rows.append(
                    {"sigma": sigma, "method": methods[name], "variant": name}
                    | {"trainings": value.shape[0], "images": value.shape[1]}
                    | quantity
                    | _columns("mean", estimate(value, pooled=pooled[methods[name]], most=most))
                    | _columns("difference", against)
                    | {"p": None if against is None else against.p}
                )
    if not rows:
        raise RecordsError("no certificate reaches a radius of the table: give --radii 0 to the runs as well")
    return _corrected(pd.DataFrame(rows))


def _common_reach(variants: Variants) -> float:
    """Return the largest radius that all runs of a group can certify."""
    return min(entry.reach for entries in variants.values() for entry in entries)


def _longest(variants: Variants) -> float:
    """Return the largest radius that an image of a group can have."""
    return max(entry.reach for entries in variants.values() for entry in entries)


def _corrected(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with p_holm: p by Holm's method, for all rows that have one."""
    tested = frame["p"].notna()
    frame["p_holm"] = math.nan
    frame.loc[tested, "p_holm"] = holm(frame.loc[tested, "p"].tolist())
    return frame


def variants_table(frame: pd.DataFrame, comparison: Comparison, reference: str) -> Table:
    """Return the printed table of a `variants_frame`: a block per group of `variants_of`, two rows per variant."""
    groups = variants_of(comparison, reference)
    titles = {
        (sigma, entries[0].method, name): group_title(comparison, sigma, method)
        for (sigma, method), variants in groups.items()
        for name, entries in variants.items()
    }
    rows = zip(frame["sigma"], frame["method"], frame["variant"], strict=True)
    frame = frame.assign(group=[titles[row] for row in rows])
    radii, acr = sorted(set(frame["radius"].dropna())), has_acr(frame)
    return Table(
        caption=f"Variants over their training runs: mean certified accuracy (%){', and ACR' if acr else ''}",
        headers=("variant", "training runs", *radius_headers(radii), *("ACR",) * acr),
        blocks=blocks_of(
            frame, lambda part: _rows(part, reference, (*radii, *(None,) * acr)), ["group"], title="{}"
        ),
        notes=(
            *_methods(frame, comparison, groups),
            *_unlike_options(groups),
            *(
                [BEYOND]
                if any(len(set(part["radius"])) < len(radii) + acr for _, part in frame.groupby("group"))
                else []
            ),
            "Mean over the training runs, with 95% intervals that are not corrected for the number of columns.",
            *_what_intervals_hold(frame),
            f"Second rows: difference to {reference!r} in points{' (ACR: in pixel units)' if acr else ''}; bold where "
            "its interval holds training runs and Student's t, corrected (Holm) for all "
            f"{int(frame['p'].count())} differences of this table, tells it from zero (p below {SIGNIFICANT:g}).",
            ABOUT_ACR if acr else NO_ACR,
        ),
    )


def _methods(
    frame: pd.DataFrame, comparison: Comparison, groups: Mapping[tuple[float, str], Variants]
) -> Iterator[str]:
    """Yield a sentence on whose method each variant is, where a group holds several."""
    if any(method == "" for _, method in groups):
        held: dict[str, list[str]] = {}
        for method, variant in dict.fromkeys(zip(frame["method"], frame["variant"], strict=True)):
            held.setdefault(comparison.name_of(method), []).append(variant)
        named = [f"{name} in {', '.join(own)}" for name, own in held.items()]
        yield f"Methods: {'; '.join(named)}."


def _unlike_options(groups: Mapping[tuple[float, str], Variants]) -> Iterator[str]:
    """Yield a sentence for each variant whose runs were given unlike options, as a folder of ablations holds them."""
    unlike: dict[str, set[str]] = {}
    for variants in groups.values():
        for name, entries in variants.items():
            given = [entry.header.config.get("options", {}).get(entry.method, {}) for entry in entries]
            options = {option for one in given for option in one}
            unlike.setdefault(name, set()).update(
                option for option in options if any(one.get(option) != given[0].get(option) for one in given)
            )
    for name, options in unlike.items():
        if options:
            yield (
                f"The runs {name}-0, {name}-1, ... count as training runs of {name} by their names, but differ in "
                f"{', '.join(sorted(options))}: name settings otherwise."
            )


def has_acr(frame: pd.DataFrame) -> bool:
    """Return whether a frame with a column `quantity` holds the ACR."""
    return bool((frame["quantity"] == "ACR").any())


def group_title(comparison: Comparison, sigma: float, method: str) -> str:
    """Return how a group of `variants_of` is called."""
    return f"σ = {sigma:g}" + (f": {comparison.name_of(method)}" if method else "")


def variants_of(comparison: Comparison, reference: str) -> dict[tuple[float, str], Variants]:
    """Return (sigma, method) -> the variants and their training runs, in the order of the runs.

    Where each variant holds one method, and not all the same one, the variants of a sigma are one group, whose method
    is "": the variants are what is compared then, such as a method beside another's ablations.

    Raises:
        UsageError, RecordsError: as in `variants_frame`.
    """
    held: dict[str, set[str]] = {}
    for entry in comparison.entries:
        held.setdefault(variant_of(entry.run), set()).add(entry.method)
    are_methods = len(set().union(*held.values())) > 1 and all(len(methods) == 1 for methods in held.values())
    groups: dict[tuple[float, str], Variants] = {}
    for entry in comparison.entries:
        variants = groups.setdefault((entry.sigma, "" if are_methods else entry.method), {})
        variants.setdefault(variant_of(entry.run), []).append(entry)
    names = list(dict.fromkeys(name for variants in groups.values() for name in variants))
    if reference not in names:
        raise UsageError(
            f"no run here is called {reference!r} or {reference}-0, {reference}-1, ...; "
            f"{nearest_hint(reference, names)}"
        )
    for (sigma, method), variants in groups.items():
        if reference not in variants:
            raise RecordsError(
                f"no run of {reference!r} holds {method or 'anything'} at sigma {sigma:g}: give --methods and "
                "--sigmas that it has"
            )
        for entries in variants.values():
            _check_distinct(entries)
    return groups


def _check_distinct(entries: Sequence[Entry]) -> None:
    seen: dict[str, Entry] = {}
    for entry in entries:
        if entry.checkpoint is None:
            continue
        if (other := seen.setdefault(entry.checkpoint, entry)) is not entry:
            raise RecordsError(
                f"runs {other.run} and {entry.run} hold the same checkpoint of {entry.method} at sigma "
                f"{entry.sigma:g}, which is one training: leave one of them out"
            )


def _columns(name: str, found: Estimate | None) -> dict[str, Any]:
    names = (name, f"{name}_low", f"{name}_high", f"{name}_interval_holds", f"{name}_is_exact")
    values = (
        [None] * 5 if found is None else [found.value, found.low, found.high, found.holds, found.is_exact]
    )
    return dict(zip(names, values, strict=True))


def _what_intervals_hold(frame: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence for each way in which intervals of the frame hold what another training would change."""
    ways: dict[str, set[str]] = {}
    for way, variant in zip(frame["mean_interval_holds"], frame["variant"], strict=True):
        ways.setdefault(variant, set()).add(way)
    held: dict[str, list[str]] = {}
    for way, variant, sigma in zip(
        frame["mean_interval_holds"], frame["variant"], frame["sigma"], strict=True
    ):
        held.setdefault(way, []).append(variant if len(ways[variant]) == 1 else f"{variant} at σ = {sigma:g}")
    several, once, alone = (", ".join(dict.fromkeys(held.get(way, []))) for way in get_args(Holds))
    if several:
        yield f"Intervals of {several} hold images and training runs (crossed random effects, Student's t)."
    if once:
        yield (
            f"Trained once: {once}. Their intervals, and those of differences to them, hold images and training runs "
            "by the variance between training runs that is pooled over the variants of their method trained several "
            "times, as if theirs were the same."
        )
    if alone:
        yield (
            f"Trained once: {alone}. Their intervals, and those of differences to them, hold images only, since no "
            "variant of their method here was trained several times: nothing of them is bold."
        )
    if (frame["mean_is_exact"] | (frame["difference_is_exact"] == True)).any():  # noqa: E712
        yield (
            "Where every image has one score in all training runs, the interval is Clopper and Pearson's over images "
            "alone, and such a difference is not bold."
        )


def _rows(part: pd.DataFrame, reference: str, columns: Sequence[float | None]) -> Iterator[Row]:
    for variant, rows in part.groupby("variant", sort=False):
        held = {None if math.isnan(row["radius"]) else row["radius"]: row for _, row in rows.iterrows()}
        cells = [held.get(column) for column in columns]
        yield (
            str(variant),
            str(rows["trainings"].iloc[0]),
            *("–" if one is None else _mean(one) for one in cells),
        )
        if variant != reference:
            differences = ("–" if one is None else _difference(one) for one in cells)
            yield f"Δ vs. {reference}", "", *differences


def _mean(row: Any) -> Cell:
    values = (row["mean"], row["mean_low"], row["mean_high"])
    if row["quantity"] == "ACR":
        value, low, high = (format_radius(max(one, 0.0), 3) for one in values)
    else:
        value, low, high = (format_percent(min(max(one, 0.0), 1.0)) for one in values)
    return Cell(text=value, interval=(low, high))


def _difference(row: Any) -> Cell:
    names = ("difference", "difference_low", "difference_high")
    is_acr = row["quantity"] == "ACR"
    value, low, high = (signed(row[name], 3) if is_acr else signed(100 * row[name], 1) for name in names)
    holds_runs = row["difference_interval_holds"] != "images" and not row["difference_is_exact"]
    is_told = is_significant(row) and holds_runs
    return Cell(text=value, interval=(low, high), is_best=is_told)
