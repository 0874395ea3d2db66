"""Comparison of several trainings -> the table of what each variant of a method certifies, beside a reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from bench.config.names import nearest_hint
from bench.errors import RecordsError, UsageError
from bench.report.comparison import Comparison, Entry
from bench.report.markup import Cell, Row, Table, blocks_of, format_percent, format_radius
from bench.report.variants import Estimate, at_radius, certified_radius, estimate, scores, variant_of

NO_ACR = "No ACR: sequential estimation leaves it a lower bound, which is not compared."

Variants = dict[str, list[Entry]]
"""Variant -> its trainings."""


def variants_frame(comparison: Comparison, reference: str) -> pd.DataFrame:
    """Return means over trainings, and differences to the reference, one row per (sigma, method, variant, radius).

    Radii that no certificate reaches are left out, and so is the ACR where `Comparison.compares_acr` is False.
    Columns: sigma, method, variant, trainings, images, quantity ("certified accuracy" or "ACR"), radius (NaN for the
    ACR), mean with low, high, then difference with difference_low, difference_high (empty for the reference), and
    covers_trainings (False where a variant has one training, so that the interval is over images alone).

    Args:
        reference: a variant that every method and sigma has; the others are compared with it.

    Raises:
        UsageError: no run is a training of the reference.
        RecordsError: two runs of one variant hold the same checkpoint, or a group lacks the reference.
    """
    rows: list[dict[str, Any]] = []
    reach = max(record.radius for entry in comparison.entries for record in entry.records)
    radii = [radius for radius in comparison.radii if radius <= reach]
    for (sigma, method), variants in variants_of(comparison, reference).items():
        for radius in (*radii, None) if comparison.compares_acr else radii:
            score = certified_radius if radius is None else at_radius(radius)
            values = {
                name: scores([one.records for one in entries], score) for name, entries in variants.items()
            }
            quantity = {"quantity": "ACR" if radius is None else "certified accuracy", "radius": radius}
            for name, value in values.items():
                against = None if name == reference else estimate(value, values[reference])
                rows.append(
                    {"sigma": sigma, "method": method, "variant": name}
                    | {"trainings": value.shape[0], "images": value.shape[1]}
                    | quantity
                    | _columns(estimate(value), against)
                )
    return pd.DataFrame(rows)


def variants_table(frame: pd.DataFrame, reference: str) -> Table:
    """Return the printed table of a `variants_frame`: a block per sigma and method, two rows per variant."""
    radii, acr = sorted(set(frame["radius"].dropna())), has_acr(frame)
    return Table(
        caption=f"Variants over their trainings: mean certified accuracy (%){', and ACR' if acr else ''}",
        headers=("variant", "trainings", *(f"{radius:.2f}" for radius in radii), *("ACR",) * acr),
        blocks=blocks_of(
            frame, lambda part: _rows(part, reference), ["sigma", "method"], title="σ = {:g}: {}"
        ),
        notes=(
            "Mean over the trainings; 95% intervals hold both what other images and what other trainings would "
            "change (crossed random effects, Student's t), or only images where a variant was trained once. They "
            "are not corrected for the number of columns.",
            f"Second rows: difference to {reference!r} in points{' (ACR: in pixel units)' if acr else ''}; bold where "
            "its interval leaves out zero.",
            *([] if acr else [NO_ACR]),
        ),
    )


def has_acr(frame: pd.DataFrame) -> bool:
    """Return whether a frame with a column `quantity` holds the ACR."""
    return bool((frame["quantity"] == "ACR").any())


def variants_of(comparison: Comparison, reference: str) -> dict[tuple[float, str], Variants]:
    """Return (sigma, method) -> the variants and their trainings, in the order of the runs.

    Raises:
        UsageError, RecordsError: as in `variants_frame`.
    """
    groups: dict[tuple[float, str], Variants] = {}
    for entry in comparison.entries:
        variants = groups.setdefault((entry.sigma, entry.method), {})
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
                f"no run of {reference!r} holds {method} at sigma {sigma:g}: give --methods and --sigmas that it has"
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


def _columns(mean: Estimate, against: Estimate | None) -> dict[str, Any]:
    columns = {"mean": mean.value, "low": mean.low, "high": mean.high}
    if against is None:
        nothing = dict.fromkeys(("difference", "difference_low", "difference_high"))
        return columns | nothing | {"covers_trainings": mean.has_trainings}
    columns |= {"difference": against.value}
    columns |= {"difference_low": against.low, "difference_high": against.high}
    return columns | {"covers_trainings": against.has_trainings}


def _rows(part: pd.DataFrame, reference: str) -> Iterator[Row]:
    for variant, rows in part.groupby("variant", sort=False):
        cells = [row for _, row in rows.iterrows()]
        yield str(variant), str(rows["trainings"].iloc[0]), *map(_mean, cells)
        if variant != reference:
            yield f"- {reference}", "", *map(_difference, cells)


def _mean(row: Any) -> Cell:
    values = (row["mean"], row["low"], row["high"])
    if row["quantity"] == "ACR":
        value, low, high = (format_radius(one, 3) for one in values)
    else:
        value, low, high = (format_percent(min(max(one, 0.0), 1.0)) for one in values)
    return Cell(text=value, interval=(low, high))


def _difference(row: Any) -> Cell:
    names = ("difference", "difference_low", "difference_high")
    is_acr = row["quantity"] == "ACR"
    value, low, high = (f"{row[name]:+.3f}" if is_acr else f"{100 * row[name]:+.1f}" for name in names)
    has_effect = bool(row["difference_low"] > 0 or row["difference_high"] < 0)
    return Cell(text=value, interval=(low, high), is_best=has_effect)
