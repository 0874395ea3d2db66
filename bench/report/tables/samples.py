"""Samples that certificates took under skip-wrong and sequential estimation -> one DataFrame and its printed table."""

from __future__ import annotations

import math

import pandas as pd

from bench.report.comparison import Comparison
from bench.report.markup import Block, Cell, Table, format_percent, format_significant
from bench.report.metrics import SamplesUsed, samples_used


def samples_frame(comparison: Comparison) -> pd.DataFrame:
    """Return samples used, one row per (sigma, label), unrounded; no row where all estimation is fixed.

    Columns: block, label, run, method, sigma, estimation, images, samples_asked (n0 + n for each image),
    samples_used, saved (share in [0,1]), median_ratio_to_least (see `bench.report.metrics.SamplesUsed`).
    """
    if all(entry.estimation == "fixed" for entry in comparison.entries):
        return pd.DataFrame()
    rows = []
    for sigma in comparison.sigmas:
        for entry in comparison.at_sigma(sigma):
            used = samples_used(entry.records, entry.alpha, comparison.radii)
            rows.append(
                {"block": f"σ = {sigma:g}", "label": entry.label, "run": entry.run, "method": entry.method}
                | {"sigma": sigma, "estimation": entry.estimation, "images": used.images}
                | {"samples_asked": used.asked, "samples_used": used.used, "saved": used.saved}
                | {"median_ratio_to_least": used.median_ratio}
            )
    return pd.DataFrame(rows)


def samples_table(frame: pd.DataFrame) -> Table:
    """Return the printed table of a `samples_frame` that has rows."""
    blocks = tuple(
        Block(
            title=f"{title} ({part['images'].iloc[0]} images)",
            rows=tuple(
                (
                    Cell(text=row["label"]),
                    Cell(text=row["estimation"]),
                    Cell(text=f"{row['samples_used']:,}"),
                    Cell(text=format_percent(row["saved"])),
                    Cell(text=_ratio(row["median_ratio_to_least"])),
                )
                for _, row in part.iterrows()
            ),
        )
        for title, part in frame.groupby("block", sort=False)
    )
    return Table(
        caption="Noisy samples that the certificates took",
        headers=("method", "estimation", "samples", "saved (%)", "ratio to the least"),
        blocks=blocks,
        notes=(
            "Saved: share of the n0 + n samples per image that fixed estimation draws.",
            "Ratio to the least: median over the images that drew estimation samples of those samples over "
            "ln(1/α) / KL(p, nearest threshold), which any test of level α needs to settle the image; p is the "
            "image's own share of its class, the thresholds are those of the table's radii. Below 1: the n samples "
            "ended before the image was settled.",
        ),
    )


def _ratio(value: float) -> str:
    return "–" if math.isnan(value) else format_significant(value)


def saved_sentence(used: list[SamplesUsed], estimation: str) -> str:
    """Return one sentence on what a run's samples were beside fixed estimation."""
    drawn, asked = sum(one.used for one in used), sum(one.asked for one in used)
    return (
        f"Samples: {estimation} estimation drew {drawn:,} of the {asked:,} that fixed estimation draws "
        f"({format_percent(1 - drawn / asked)}% saved)."
    )
