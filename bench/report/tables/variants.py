"""Runs of several trainings -> the table of what each variant of a method certifies, beside a reference variant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from bench.config.names import nearest_hint
from bench.errors import RecordsError, UsageError
from bench.report.comparison import Comparison, Entry
from bench.report.markup import Block, Cell, Table, format_percent, format_radius
from bench.report.variants import Estimate, at_radius, certified_radius, estimate, scores, variant_of
from bench.types import Run

NO_ACR = "No ACR: sequential estimation leaves it a lower bound, which is not compared."

Variants = dict[str, list[Entry]]
"""Variant -> its trainings."""


def variants_frame(runs: Sequence[Run], comparison: Comparison, reference: str) -> pd.DataFrame:
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
    for (sigma, method), variants in variants_of(runs, comparison, reference).items():
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
    blocks = tuple(
        Block(
            title=f"σ = {sigma:g}: {method} ({part['images'].iloc[0]} images)",
            rows=tuple(_rows(part, radii, reference)),
        )
        for (sigma, method), part in frame.groupby(["sigma", "method"], sort=False)
    )
    return Table(
        caption=f"Variants over their trainings: mean certified accuracy (%){', and ACR' if acr else ''}",
        headers=("variant", "trainings", *(f"{radius:.2f}" for radius in radii), *("ACR",) * acr),
        blocks=blocks,
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


def variants_of(
    runs: Sequence[Run], comparison: Comparison, reference: str
) -> dict[tuple[float, str], Variants]:
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
            _check_distinct(entries, runs)
    return groups


def _check_distinct(entries: Sequence[Entry], runs: Sequence[Run]) -> None:
    seen: dict[str, Entry] = {}
    for entry in entries:
        checkpoint = runs[entry.run_number].header.checkpoints.get(f"{entry.method}/{entry.sigma:g}")
        if checkpoint is None:
            continue
        if (other := seen.setdefault(checkpoint, entry)) is not entry:
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


def _rows(part: pd.DataFrame, radii: Sequence[float], reference: str) -> Iterator[tuple[Cell, ...]]:
    for variant, rows in part.groupby("variant", sort=False):
        by_radius = rows.set_index("radius")
        accuracies = [by_radius.loc[radius] for radius in radii]
        acr = [row for _, row in rows[rows["quantity"] == "ACR"].iterrows()]
        yield (
            Cell(text=str(variant)),
            Cell(text=str(rows["trainings"].iloc[0])),
            *(_mean(row) for row in accuracies),
            *(_mean_radius(row) for row in acr),
        )
        if variant != reference:
            differences = (
                *(_difference(row, 100, ".1f") for row in accuracies),
                *(_difference(row, 1, ".3f") for row in acr),
            )
            yield Cell(text=f"- {reference}"), Cell(text=""), *differences


def _mean_radius(row: Any) -> Cell:
    return Cell(
        text=format_radius(row["mean"], 3),
        interval=(format_radius(row["low"], 3), format_radius(row["high"], 3)),
    )


def _mean(row: Any) -> Cell:
    low, high = max(0.0, row["low"]), min(1.0, row["high"])
    return Cell(text=format_percent(row["mean"]), interval=(format_percent(low), format_percent(high)))


def _difference(row: Any, scale: float, digits: str) -> Cell:
    value, low, high = (
        f"{scale * row[name]:+{digits}}" for name in ("difference", "difference_low", "difference_high")
    )
    has_effect = bool(row["difference_low"] > 0 or row["difference_high"] < 0)
    return Cell(text=value, interval=(low, high), is_best=has_effect)
