"""Comparison -> DataFrames of accuracies, ACR and samples drawn, and their tables rounded for reading."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pandas as pd

from bench.report.comparison import Comparison, Entry
from bench.report.markup import (
    BRACKETS,
    Cell,
    Row,
    Table,
    blocks_of,
    format_percent,
    format_radius,
    format_significant,
)
from bench.report.metrics import Mean, SamplesUsed, Share, is_whole, samples_used
from bench.report.paired import paired_differences
from bench.report.tables.protocol import protocol_notes
from bench.report.tables.training import REFERRED, has_training, training_columns, typed
from bench.smoothing.stats import holm

SIGNIFICANT = 0.05
"""Level of the corrected tests: what they tell from the best is not bold."""

LEADING = (
    "Bold: not significantly below the highest of its column and block (exact McNemar test on the same images, Holm, "
    f"{SIGNIFICANT:g}); another training may change the order."
)

UNREACHABLE = "–: beyond R_max, the largest radius that n samples can certify"


BEST = "best over σ"
"""Title of the block that picks each method's sigma at each radius."""

ROUNDED = "Percentages are rounded to nearest, radii down."

AT_ZERO = "certified accuracy at radius 0"
"""What is called so everywhere; clean accuracy is that of the base classifier without noise."""

ABOUT_ACR = (
    "ACR alone misleads: easy images outweigh hard ones in it, it depends on n, and a trivial classifier can have any "
    "ACR (arXiv 2410.06895). The distribution of the lower bound of p_A (p_lower, by bench report) shows all images."
)
"""Stands in the notes wherever an ACR is printed."""

ABOUT_CLEAN = (
    f"Clean accuracy: of the base classifier without noise (–: not recorded); {AT_ZERO} is another number."
)


def accuracy_frame(comparison: Comparison) -> pd.DataFrame:
    """Return certified accuracies, one row per (block, label, radius), unrounded.

    Columns: block and label (of the printed table), is_leading (not significantly below the highest of its block and
    radius, see `leading`), run, method, selection ("fixed", or "best" where sigma is chosen), sigma, radius (L2, pixel
    units), images, certified (a count), accuracy, low, high (shares in [0,1]; exact 95% interval),
    interval_is_optimistic (sigma was chosen among several on these very images), is_reachable (radius at most R_max;
    beyond it accuracy, low and high are 0 for whatever images). Where a header says it, what the row took to train, as
    in `bench.report.tables.training.training_frame`.
    """
    rows: list[dict[str, Any]] = []
    for sigma in comparison.sigmas:
        entries = comparison.at_sigma(sigma)
        ahead = {radius: leading(entries, radius) for radius in comparison.radii}
        for entry, radius in itertools.product(entries, comparison.radii):
            rows.append(_accuracy_row(entry, f"σ = {sigma:g}", radius, ahead[radius]))
    chosen = {
        radius: [one for label in comparison.labels if (one := comparison.best_at(label, radius)) is not None]
        for radius in comparison.radii
    }
    ahead = {radius: leading(entries, radius) for radius, entries in chosen.items()}
    for label, radius in itertools.product(comparison.labels, comparison.radii):
        for best in (one for one in chosen[radius] if one.label == label):
            has_choice = len(comparison.best_of(label)) > 1
            chosen_columns = {"selection": "best", "interval_is_optimistic": has_choice}
            rows.append(_accuracy_row(best, BEST, radius, ahead[radius]) | chosen_columns)
    return typed(pd.DataFrame(rows))


def leading(entries: Sequence[Entry], radius: float) -> frozenset[str]:
    """Return the labels that certify most at a radius, or not significantly less than the one that does.

    Each other entry is tested against the first of the highest by the exact McNemar test, corrected (Holm) for the
    entries tested; it leads where p is `SIGNIFICANT` or more. An entry that certifies nothing never leads.

    Args:
        entries: over the same images, of one label each.
    """
    counts = {entry.label: entry.curve.at(radius).count for entry in entries}
    able = [entry for entry in entries if counts[entry.label] > 0]
    if not able:
        return frozenset()
    top = max(able, key=lambda entry: counts[entry.label])
    others = [entry for entry in able if counts[entry.label] < counts[top.label]]
    values = [paired_differences(top.certified, entry.certified, [radius])[0].p for entry in others]
    behind = {entry.label for entry, p in zip(others, holm(values), strict=True) if p < SIGNIFICANT}
    return frozenset(entry.label for entry in able if entry.label not in behind)


def acr_frame(comparison: Comparison) -> pd.DataFrame:
    """Return ACR, accuracies without certificates and abstention, one row per (sigma, label), unrounded.

    Columns: label, run, method, sigma, images, acr, acr_is_lower_bound (of sequential estimation),
    standard_error, acr_low, acr_high (radius units; normal 95% interval), noisy_accuracy (of the base classifier
    under noise) with its normal 95% interval, then the share with its exact 95% interval of clean_accuracy (of the
    base classifier without noise; NaN where records do not hold it), certified_accuracy_at_0 (at radius 0) and
    abstention (NaN where images were skipped).
    """
    rows = []
    for entry in comparison.entries:
        mean = entry.acr
        low, high = mean.interval()
        rows.append(
            _names(entry)
            | {"sigma": entry.sigma, "images": mean.images, "acr": mean.value}
            | {"acr_is_lower_bound": entry.header.stops_early}
            | {"standard_error": mean.standard_error, "acr_low": max(low, 0.0), "acr_high": high}
            | _mean_columns("noisy_accuracy", entry.noisy_accuracy)
            | _share_columns("clean_accuracy", entry.clean_accuracy)
            | _share_columns("certified_accuracy_at_0", entry.curve.at(0.0))
            | _share_columns("abstention", entry.abstention)
        )
    return pd.DataFrame(rows)


def samples_frame(comparison: Comparison) -> pd.DataFrame:
    """Return samples used, one row per (sigma, label), unrounded; no row where all estimation is fixed.

    Columns: label, run, method, sigma, estimation, images, samples_asked (n0 + n for each image), samples_used,
    saved (share in [0,1]), median_ratio_to_least (see `bench.report.metrics.SamplesUsed`).
    """
    if all(entry.header.estimation == "fixed" for entry in comparison.entries):
        return pd.DataFrame()
    rows = []
    for entry in comparison.entries:
        used = samples_used(entry.records, entry.header.alpha, comparison.radii)
        rows.append(
            _names(entry)
            | {"sigma": entry.sigma, "estimation": entry.header.estimation, "images": used.images}
            | {"samples_asked": used.asked, "samples_used": used.used, "saved": used.saved}
            | {"median_ratio_to_least": used.median_ratio}
        )
    return pd.DataFrame(rows)


def main_table(comparison: Comparison) -> Table:
    """Return the certified accuracies as one table, as `accuracy_table` does of their frame."""
    return accuracy_table(accuracy_frame(comparison), comparison)


def accuracy_table(frame: pd.DataFrame, comparison: Comparison) -> Table:
    """Return the printed table of an `accuracy_frame`: a row per label, a column per radius.

    It has one block per sigma and, where there are several, one for the best sigma at each radius.
    """
    has_choice = bool(frame["interval_is_optimistic"].any())
    shown = frame if has_choice else frame[frame["selection"] == "fixed"]
    best = (
        f"{BEST.capitalize()}: σ is picked at each radius on the certified images themselves, so these intervals are "
        "optimistic."
    )
    return Table(
        caption=f"Certified accuracy (%) on {comparison.dataset} at L2 radius, pixels in [0,1]",
        headers=("method", *radius_headers(comparison.radii)),
        blocks=blocks_of(shown, _accuracy_rows, ["block"], "{}"),
        notes=(
            *comparison.warnings,
            *protocol_notes(comparison),
            f"{BRACKETS}exact two-sided Clopper-Pearson 95% intervals over images.",
            *([best] if has_choice else []),
            *([] if frame["is_reachable"].all() else [f"{UNREACHABLE}."]),
            LEADING,
            ROUNDED,
            *([REFERRED] if has_training(comparison) else []),
            *comparison.notes,
        ),
        details=(*protocol_notes(comparison), ROUNDED),
    )


def radius_headers(radii: Sequence[float]) -> tuple[str, ...]:
    """Return the radii as they head columns: with the same decimals, two or more, each exactly."""
    decimals = max(
        [2, *(-int(Decimal(repr(float(radius))).normalize().as_tuple().exponent) for radius in radii)]
    )
    return tuple(format_radius(radius, decimals) for radius in radii)


def _accuracy_rows(part: pd.DataFrame) -> Iterable[Row]:
    for label, rows in part.groupby("label", sort=False):
        yield (str(label), *(accuracy_cell(row) for _, row in rows.iterrows()))


def accuracy_cell(row: Any) -> Cell:
    """Return the cell of a row of an `accuracy_frame`: "–" beyond R_max, bold where the row leads."""
    if not row["is_reachable"]:
        return Cell(text="–")
    return replace(share_cell(row, "accuracy"), is_best=bool(row["is_leading"]))


def acr_table(frame: pd.DataFrame, comparison: Comparison) -> Table:
    """Return the printed table of an `acr_frame`: a row per label, a block per sigma."""
    return Table(
        caption=f"Average certified radius (ACR, L2, pixels in [0,1]), accuracies and abstention (%) on "
        f"{comparison.dataset}",
        headers=(
            "method",
            "ACR",
            "standard error",
            "accuracy under noise",
            "clean accuracy",
            AT_ZERO,
            "abstention",
        ),
        blocks=blocks_of(frame, _acr_rows),
        notes=(
            *comparison.warnings,
            *protocol_notes(comparison),
            "ACR: mean over all images of the certified radius where correct, else 0; rounded down. Standard "
            "error: over images.",
            ABOUT_ACR,
            _about_noisy(comparison),
            ABOUT_CLEAN,
            f"{BRACKETS}95% intervals over images, normal for the accuracy under noise, else exact two-sided "
            "Clopper-Pearson.",
            "Bold: the highest of its block.",
            *comparison.notes,
        ),
        details=protocol_notes(comparison),
    )


def _about_noisy(comparison: Comparison) -> str:
    """Return what the accuracies under noise are counted on, row by row where that differs."""
    by_samples: dict[str, list[str]] = {}
    for entry in comparison.entries:
        if entry.has_counts:
            samples = "n samples of estimation" if is_whole(entry.columns) else "n0 samples of selection"
            by_samples.setdefault(samples, []).append(f"{entry.label} at σ = {entry.sigma:g}")
    about = "Accuracy under noise: of the base classifier, the share of samples given the label"
    if len(by_samples) < 2:
        return f"{about}: the {next(iter(by_samples), 'n samples of estimation')} of each image."
    few = ", ".join(by_samples["n0 samples of selection"])
    return f"{about}: the n samples of estimation of each image, the n0 of selection for {few}."


def _acr_rows(part: pd.DataFrame) -> Iterable[Row]:
    for _, row in part.iterrows():
        has_error = row["images"] > 1
        yield (
            row["label"],
            _acr_cell(row, part),
            f"{row['standard_error']:.3f}" if has_error else "–",
            share_cell(row, "noisy_accuracy", part["noisy_accuracy"].max(), has_interval=has_error),
            share_cell(row, "clean_accuracy", part["clean_accuracy"].max()),
            share_cell(row, "certified_accuracy_at_0", part["certified_accuracy_at_0"].max()),
            "unknown" if pd.isna(row["abstention"]) else share_cell(row, "abstention"),
        )


def _acr_cell(row: Any, part: pd.DataFrame) -> Cell:
    """Return the ACR; a lower bound is not compared."""
    best = part.loc[~part["acr_is_lower_bound"], "acr"].max()
    is_best = not row["acr_is_lower_bound"] and bool(row["acr"] == best > 0)
    return Cell(text=acr_text(row), is_best=is_best)


def acr_text(row: Any) -> str:
    """Return the ACR of a row of an `acr_frame` as it is written, a lower bound marked as one."""
    return ("≥ " if row["acr_is_lower_bound"] else "") + format_radius(row["acr"], 3)


def samples_table(frame: pd.DataFrame) -> Table:
    """Return the printed table of a `samples_frame` that has rows."""
    return Table(
        caption="Noisy samples that the certificates took",
        headers=("method", "estimation", "samples", "saved (%)", "ratio to the least"),
        blocks=blocks_of(frame, _samples_rows),
        notes=(
            "Saved: share of the n0 + n samples per image that fixed estimation draws.",
            "Ratio to the least: median over the images that drew estimation samples of those samples over "
            "ln(1/α) / KL(p, nearest threshold), which any test of level α needs to settle the image; p is the "
            "image's own share of its class, the thresholds are those of the table's radii. Below 1: the image came "
            "to n samples, or was given up as not certifiable, before that.",
        ),
    )


def _samples_rows(part: pd.DataFrame) -> Iterable[Row]:
    for _, row in part.iterrows():
        yield (
            row["label"],
            row["estimation"],
            f"{row['samples_used']:,}",
            format_percent(row["saved"]),
            _ratio(row["median_ratio_to_least"]),
        )


def saved_sentence(used: Sequence[SamplesUsed], estimation: str) -> str:
    """Return one sentence on what a run's samples were beside fixed estimation."""
    drawn, asked = sum(one.used for one in used), sum(one.asked for one in used)
    return (
        f"Samples: {estimation} estimation drew {drawn:,} of the {asked:,} that fixed estimation draws "
        f"({format_percent(1 - drawn / asked)}% saved)."
    )


def _ratio(value: float) -> str:
    return "–" if math.isnan(value) else format_significant(value)


def share_cell(row: Any, name: str, best: float | None = None, *, has_interval: bool = True) -> Cell:
    """Return a percentage with its interval, in bold where the share equals `best` > 0 exactly; "–" for NaN."""
    if pd.isna(row[name]):
        return Cell(text="–")
    low, high = ("low", "high") if name == "accuracy" else (f"{name}_low", f"{name}_high")
    return Cell(
        text=format_percent(row[name]),
        interval=(format_percent(row[low]), format_percent(row[high])) if has_interval else None,
        is_best=best is not None and bool(row[name] == best > 0),
    )


def _accuracy_row(entry: Entry, block: str, radius: float, ahead: frozenset[str]) -> dict[str, Any]:
    """Return one row; beyond R_max the share is 0 for whatever images, so that its interval has no width."""
    share, is_reachable = entry.curve.at(radius), radius <= entry.reach
    low, high = share.interval() if is_reachable else (0.0, 0.0)
    return (
        {"block": block, "is_leading": entry.label in ahead}
        | _names(entry)
        | {"selection": "fixed", "sigma": entry.sigma, "radius": radius}
        | {"images": share.images, "certified": share.count, "accuracy": share.value}
        | {"low": low, "high": high, "interval_is_optimistic": False}
        | {"is_reachable": is_reachable}
        | (training_columns(entry) if entry.header.training else {})
    )


def _mean_columns(name: str, mean: Mean) -> dict[str, Any]:
    low, high = mean.interval()
    return {name: mean.value, f"{name}_low": max(low, 0.0), f"{name}_high": min(high, 1.0)}


def _share_columns(name: str, share: Share | None) -> dict[str, Any]:
    if share is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), math.nan)
    low, high = share.interval()
    return {name: share.value, f"{name}_low": low, f"{name}_high": high}


def _names(entry: Entry) -> dict[str, Any]:
    return {"label": entry.label, "run": entry.run, "method": entry.method}
