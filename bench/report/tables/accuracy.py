"""Runs -> DataFrames -> CSV at full precision, and Markdown and LaTeX tables rounded for reading."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report.comparison import Comparison, Entry, compare
from bench.report.markup import Block, Cell, Table, format_percent, format_radius, to_latex, to_markdown
from bench.report.metrics import (
    Mean,
    Share,
    abstention,
    acr,
    best_sigma,
    clean_accuracy,
    noisy_accuracy,
)
from bench.report.tables.cost import cost_frame, cost_tables
from bench.report.tables.samples import samples_frame, samples_table
from bench.smoothing.estimation import largest_radius
from bench.types import Run

BEST = "best over σ"
"""Title of the block that picks each method's sigma at each radius."""


def write_tables(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write certified_accuracy.csv/.md/.tex, acr.csv/.md, cost.csv/.md; return their paths in that order.

    samples.csv/.md follow where a run's estimation is not fixed.

    Args:
        runs: runs that may be compared (see `bench.records.file`); rows name their run if there are several.
        folder: made where missing; files of these names in it are replaced.

    Raises:
        RecordsError: the runs hold no record.
        ProtocolError: a run is given twice, an image is certified twice, or two methods share no image.
    """
    comparison = compare(runs)
    accuracy, radii = accuracy_frame(comparison), acr_frame(comparison)
    costs = cost_frame(comparison)
    main = _accuracy_table(accuracy, runs, comparison)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "certified_accuracy.csv": _csv(accuracy),
        "certified_accuracy.md": to_markdown(main),
        "certified_accuracy.tex": to_latex(main),
        "acr.csv": _csv(radii),
        "acr.md": to_markdown(_acr_table(radii, runs, comparison)),
        "cost.csv": _csv(costs),
        "cost.md": "\n".join(map(to_markdown, cost_tables(costs))),
    }
    samples = samples_frame(comparison)
    if len(samples):
        texts |= {"samples.csv": _csv(samples), "samples.md": to_markdown(samples_table(samples))}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in texts]


def main_table(runs: Sequence[Run]) -> Table:
    """Return the certified accuracies as one table: a row per method, a column per radius.

    It has one block per sigma and one for the best sigma at each radius.

    Raises:
        RecordsError, ProtocolError: as `write_tables`.
    """
    comparison = compare(runs)
    return _accuracy_table(accuracy_frame(comparison), runs, comparison)


def acr_table(runs: Sequence[Run]) -> Table:
    """Return ACR, accuracies and abstention as one table, a row per method, a block per sigma.

    Raises:
        RecordsError, ProtocolError: as `write_tables`.
    """
    comparison = compare(runs)
    return _acr_table(acr_frame(comparison), runs, comparison)


def accuracy_frame(comparison: Comparison) -> pd.DataFrame:
    """Return certified accuracies, one row per (block, label, radius), unrounded.

    Columns: block and label (of the printed table), run, method, selection ("fixed", or "best" where sigma is
    chosen), sigma, radius (L2, pixel units), images, certified (a count), accuracy, low, high (shares in
    [0,1]; exact 95% interval), interval_is_optimistic (sigma was chosen among several on these very images).
    """
    rows = [
        _accuracy_row(entry, f"σ = {sigma:g}", sigma, radius, entry.curve.at(radius))
        for sigma in comparison.sigmas
        for entry in comparison.at_sigma(sigma)
        for radius in comparison.radii
    ]
    for label in comparison.labels:
        candidates = comparison.best_of(label)
        by_sigma = {entry.sigma: entry.curve for entry in candidates}
        for radius in comparison.radii if by_sigma else ():
            best = best_sigma(by_sigma, radius)
            row = _accuracy_row(candidates[0], BEST, best.sigma, radius, best.share)
            rows.append(row | {"selection": "best", "interval_is_optimistic": len(by_sigma) > 1})
    return pd.DataFrame(rows)


def acr_frame(comparison: Comparison) -> pd.DataFrame:
    """Return ACR, accuracy under noise, clean accuracy and abstention, one row per (sigma, label), unrounded.

    Columns: block, label, run, method, sigma, images, acr, acr_is_lower_bound (of sequential estimation),
    standard_error, acr_low, acr_high (radius units; normal 95% interval), noisy_accuracy with its normal 95%
    interval, then for clean_accuracy and abstention the share with its exact 95% interval (abstention is NaN
    where images were skipped).
    """
    rows = []
    for sigma in comparison.sigmas:
        for entry in comparison.at_sigma(sigma):
            mean = acr(entry.records)
            low, high = mean.interval()
            rows.append(
                _names(entry, f"σ = {sigma:g}")
                | {"sigma": sigma, "images": mean.images, "acr": mean.value}
                | {"acr_is_lower_bound": entry.estimation == "sequential"}
                | {"standard_error": mean.standard_error, "acr_low": low, "acr_high": high}
                | _mean_columns("noisy_accuracy", noisy_accuracy(entry.records))
                | _share_columns("clean_accuracy", clean_accuracy(entry.records))
                | _share_columns("abstention", abstention(entry.records))
            )
    return pd.DataFrame(rows)


def _accuracy_table(frame: pd.DataFrame, runs: Sequence[Run], comparison: Comparison) -> Table:
    columns = list(comparison.radii)
    decimals = max([2, *(-int(Decimal(repr(radius)).normalize().as_tuple().exponent) for radius in columns)])
    return Table(
        caption="Certified accuracy (%) at L2 radius, pixels in [0,1]",
        headers=("method", *(format_radius(radius, decimals) for radius in columns)),
        blocks=_blocks(frame, lambda part: _accuracy_rows(part, columns)),
        notes=(
            *_protocol_notes(runs),
            "Brackets: exact two-sided Clopper-Pearson 95% intervals over images.",
            f"{BEST.capitalize()}: σ is picked at each radius on the certified images themselves, so these "
            "intervals are optimistic.",
            "Bold: the highest in its column and block. Percentages are rounded to nearest, radii down.",
            *comparison.notes,
        ),
    )


def _accuracy_rows(part: pd.DataFrame, radii: Sequence[float]) -> Iterable[tuple[Cell, ...]]:
    best = part.groupby("radius")["accuracy"].max()
    for label, row in part.groupby("label", sort=False):
        by_radius = row.set_index("radius")
        yield (
            Cell(text=str(label)),
            *(_share_cell(by_radius.loc[radius], "accuracy", best[radius]) for radius in radii),
        )


def _acr_table(frame: pd.DataFrame, runs: Sequence[Run], comparison: Comparison) -> Table:
    return Table(
        caption="Average certified radius (ACR, L2, pixels in [0,1]), accuracies and abstention (%)",
        headers=(
            "method",
            "ACR",
            "standard error",
            "accuracy under noise",
            "clean accuracy",
            "abstention",
            "images",
        ),
        blocks=_blocks(frame, _acr_rows),
        notes=(
            *_protocol_notes(runs),
            "ACR: mean over all images of the certified radius where correct, else 0; rounded down. Standard "
            "error: over images. Accuracy under noise: the share of estimation samples given the label. Clean "
            "accuracy: correct predictions of the smoothed classifier at radius 0.",
            "Brackets: 95% intervals over images, normal for the accuracy under noise, else exact two-sided "
            "Clopper-Pearson. Bold: the highest of its block.",
            *comparison.notes,
        ),
    )


def _acr_rows(part: pd.DataFrame) -> Iterable[tuple[Cell, ...]]:
    for _, row in part.iterrows():
        has_error = row["images"] > 1
        yield (
            Cell(text=row["label"]),
            _acr_cell(row, part),
            Cell(text=f"{row['standard_error']:.3f}" if has_error else "–"),
            _share_cell(row, "noisy_accuracy", part["noisy_accuracy"].max(), has_interval=has_error),
            _share_cell(row, "clean_accuracy", part["clean_accuracy"].max()),
            Cell(text="unknown") if pd.isna(row["abstention"]) else _share_cell(row, "abstention"),
            Cell(text=str(row["images"])),
        )


def _acr_cell(row: Any, part: pd.DataFrame) -> Cell:
    """Return the ACR; a lower bound is marked and not compared."""
    text = format_radius(row["acr"], 3)
    if row["acr_is_lower_bound"]:
        return Cell(text=f"≥ {text}")
    best = part.loc[~part["acr_is_lower_bound"], "acr"].max()
    return Cell(text=text, is_best=bool(row["acr"] == best > 0))


def _blocks(
    frame: pd.DataFrame, make_rows: Callable[[pd.DataFrame], Iterable[tuple[Cell, ...]]]
) -> tuple[Block, ...]:
    return tuple(
        Block(title=f"{title} ({part['images'].iloc[0]} images)", rows=tuple(make_rows(part)))
        for title, part in frame.groupby("block", sort=False)
    )


def _share_cell(row: Any, name: str, best: float | None = None, *, has_interval: bool = True) -> Cell:
    """Return a percentage with its interval, in bold where the share equals `best` > 0 exactly; "–" for NaN."""
    if pd.isna(row[name]):
        return Cell(text="–")
    low, high = ("low", "high") if name == "accuracy" else (f"{name}_low", f"{name}_high")
    return Cell(
        text=format_percent(row[name]),
        interval=(format_percent(row[low]), format_percent(row[high])) if has_interval else None,
        is_best=best is not None and bool(row[name] == best > 0),
    )


def _accuracy_row(entry: Entry, block: str, sigma: float, radius: float, share: Share) -> dict[str, Any]:
    low, high = share.interval()
    return (
        _names(entry, block)
        | {"selection": "fixed", "sigma": sigma, "radius": radius}
        | {"images": share.images, "certified": share.count, "accuracy": share.value}
        | {"low": low, "high": high, "interval_is_optimistic": False}
    )


def _mean_columns(name: str, mean: Mean) -> dict[str, Any]:
    low, high = mean.interval()
    return {name: mean.value, f"{name}_low": low, f"{name}_high": min(high, 1.0)}


def _share_columns(name: str, share: Share | None) -> dict[str, Any]:
    if share is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), math.nan)
    low, high = share.interval()
    return {name: share.value, f"{name}_low": low, f"{name}_high": high}


def _names(entry: Entry, block: str) -> dict[str, Any]:
    return {"block": block, "label": entry.label, "run": entry.run, "method": entry.method}


def _protocol_notes(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return two sentences for each protocol among the runs."""
    sentences = []
    for run in runs:
        header = run.header
        seed = header.seed if header.seed >= 0 else "unknown"
        sentences.append(
            f"{header.dataset}, subset {header.subset} of {len(header.indices)} images; n0 = {header.n0}, "
            f"n = {header.n}, α = {header.alpha:g}, estimation {header.estimation}, bound {header.bound}, "
            f"seed {seed}, "
            f"precision {header.precision}."
        )
        limits = (
            f"{format_radius(largest_radius(header, sigma), 3)} at σ = {sigma:g}" for sigma in header.sigmas
        )
        sentences.append(f"Largest radius that n = {header.n} draws can certify: {', '.join(limits)}.")
    return tuple(dict.fromkeys(sentences))


def _csv(frame: pd.DataFrame) -> str:
    return frame.drop(columns=["block", "label"], errors="ignore").to_csv(index=False, lineterminator="\n")
