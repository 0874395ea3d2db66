"""Comparison -> the table that papers of certified robustness print: best over sigma, with the clean accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.report.comparison import Comparison
from bench.report.markup import Block, Row, Table, format_at_most, format_percent, format_significant
from bench.report.metrics import Share
from bench.report.rates import seconds_per_certificate
from bench.report.tables.accuracy import LEADING, UNREACHABLE, accuracy_cell, radius_headers


def best_frame(comparison: Comparison, accuracy: pd.DataFrame) -> pd.DataFrame:
    """Return certified accuracy at each radius > 0 at the sigma that is best for it, unrounded.

    Columns: those of `accuracy`, then clean_accuracy with clean_accuracy_low, clean_accuracy_high (shares, of the base
    classifier of that sigma without noise; NaN where records do not hold it), seconds_per_certificate_median (NaN
    where unknown) and cost_sigma, the measured sigma nearest to the chosen one. No rows where nothing is to be chosen.

    Args:
        accuracy: of `bench.report.tables.accuracy.accuracy_frame`.
    """
    if not accuracy["interval_is_optimistic"].any():
        return pd.DataFrame()
    chosen = accuracy[(accuracy["selection"] == "best") & (accuracy["radius"] > 0)].reset_index(drop=True)
    entries = {(one.label, one.sigma): one for one in comparison.best}
    more = []
    for _, row in chosen.iterrows():
        share = entries[row["label"], row["sigma"]].clean_accuracy
        cost = comparison.cost_near(row["label"], row["sigma"])
        more.append(
            _clean_columns(share)
            | {"seconds_per_certificate_median": cost and seconds_per_certificate(cost).median}
            | {"cost_sigma": cost and cost.sigma}
        )
    return pd.concat([chosen, pd.DataFrame(more, dtype=float)], axis=1)


def _clean_columns(share: Share | None) -> dict[str, float]:
    low, high = (math.nan, math.nan) if share is None else share.interval()
    value = math.nan if share is None else share.value
    return {"clean_accuracy": value, "clean_accuracy_low": low, "clean_accuracy_high": high}


def best_table(frame: pd.DataFrame, comparison: Comparison) -> Table:
    """Return the printed table of a `best_frame`: a row per label, a column per radius that some sigma reaches."""
    reached = frame[frame["is_reachable"]]
    radii = sorted(set(reached["radius"]))
    shown = frame[frame["radius"].isin(radii)]
    has_clean = bool(shown["clean_accuracy"].notna().any())
    has_cost = bool(shown["seconds_per_certificate_median"].notna().any())
    return Table(
        caption=_caption(comparison, reached, has_clean),
        headers=(
            "method",
            *radius_headers(radii or [0.0])[: len(radii)],
            *(["s / image"] if has_cost else []),
        ),
        blocks=(Block(rows=tuple(_rows(shown, has_cost))),),
        notes=(
            *comparison.warnings,
            "σ is chosen at each radius on the certified images themselves, so these accuracies are optimistic.",
            *([] if shown["is_reachable"].all() else [f"{UNREACHABLE}."]),
            LEADING,
            *(_cost_notes(comparison, shown) if has_cost else []),
            *comparison.notes,
        ),
    )


def _caption(comparison: Comparison, reached: pd.DataFrame, has_clean: bool) -> str:
    sigmas = ", ".join(f"{sigma:g}" for sigma in sorted({one.sigma for one in comparison.best}))
    protocols = {f"n = {run.header.n:,}, α = {run.header.alpha:g}": None for run in comparison.runs}
    below, above = reached["accuracy"] - reached["low"], reached["high"] - reached["accuracy"]
    widest = max(below.max(), above.max()) if len(reached) else 0.0
    clean = "; in parentheses the clean accuracy of the classifier with that σ" if has_clean else ""
    return (
        f"Certified accuracy (%) on {comparison.dataset} at L2 radius, best over σ of {sigmas}{clean}. "
        f"{len(comparison.best[0].records):,} images, {' or '.join(protocols)}; 95% intervals reach at most "
        f"{format_at_most(widest)} points to either side."
    )


def _rows(shown: pd.DataFrame, has_cost: bool) -> Iterator[Row]:
    for label, part in shown.groupby("label", sort=False):
        cells = [_cell(row) for _, row in part.iterrows()]
        seconds = part["seconds_per_certificate_median"].dropna()
        cost = [format_significant(seconds.iloc[0]) if len(seconds) else "–"] if has_cost else []
        yield (str(label), *cells, *cost)


def _cell(row: Any) -> Any:
    """Return the accuracy without its interval, which the caption bounds, and the clean accuracy beside it."""
    made = accuracy_cell(row)
    if made.interval is None or math.isnan(row["clean_accuracy"]):
        return replace(made, interval=None)
    return replace(made, interval=None, aside=format_percent(row["clean_accuracy"]))


def _cost_notes(comparison: Comparison, shown: pd.DataFrame) -> list[str]:
    sigmas = ", ".join(f"{sigma:g}" for sigma in sorted(set(shown["cost_sigma"].dropna())))
    devices = ", ".join(dict.fromkeys(one.cost.device for one in comparison.costs))
    samples = " or ".join(
        f"{count:,}" for count in sorted({one.cost.samples_per_certificate for one in comparison.costs})
    )
    return [
        f"s / image: median seconds of the {samples} samples of a certificate, at σ = {sigmas}, on {devices}."
    ]
