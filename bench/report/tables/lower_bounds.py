"""Comparison -> DataFrame and printed table of how the lower bound of p_A is distributed over the images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import special

from bench.report.comparison import Comparison, Entry
from bench.report.lower_bounds import LowerBounds
from bench.report.markup import BRACKETS, Block, Cell, Row, Table, format_percent
from bench.smoothing.estimation import largest_radius

BOUNDS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999)
"""Columns of the table, as far as n samples reach."""


def lower_bounds_frame(comparison: Comparison) -> pd.DataFrame:
    """Return the distribution, one row per (sigma, label, value of the bound), descending, unrounded.

    Columns: label, run, method, sigma, images, p_lower (the bound), tail (1 - p_lower at full precision), radius
    (the certified one, L2, pixel units; 0 where p_lower <= 1/2), images_at_least (how many images have at least this
    bound), share (of all images). Images that selection gave another class than their label have a bound of 0 and no
    row; bounds below 1/2 have none where they are unknown (`bench.report.lower_bounds.LowerBounds`).
    """
    columns = ["label", "run", "method", "sigma", "images", "p_lower", "tail", "radius", "images_at_least"]
    parts = [_part(entry) for entry in comparison.entries if entry.lower_bounds.tails]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame([], columns=[*columns, "share"])


def _part(entry: Entry) -> pd.DataFrame:
    """Return the rows of one entry."""
    bounds = entry.lower_bounds
    tails, places = np.unique(bounds.tails, return_index=True)
    counts = np.searchsorted(bounds.tails, tails, side="right")
    names = {"label": entry.label, "run": entry.run, "method": entry.method, "sigma": entry.sigma}
    return pd.DataFrame(
        names
        | {"images": bounds.images, "p_lower": 1 - tails, "tail": tails}
        | {"radius": np.array(bounds.radii)[places]}
        | {"images_at_least": counts, "share": counts / bounds.images}
    )


def lower_bounds_table(comparison: Comparison) -> Table:
    """Return the shares of images with at least each of `BOUNDS`: a row per label, a block per sigma."""
    reach = max(_reach(entry, entry.lower_bounds) for entry in comparison.entries)
    columns = [bound for bound in BOUNDS if bound <= reach]
    return Table(
        caption="Share of images (%) by the lower bound of p_A",
        headers=("method", *(f"≥ {bound:g}" for bound in columns)),
        blocks=tuple(_blocks(comparison, columns)),
        notes=(
            *comparison.warnings,
            "p_A: the probability that the base classifier gives a noisy copy of the image its label. Each bound holds "
            "with probability 1 - α by itself; it is 0 where selection chose another class.",
            "At Φ(r/σ) the share is the certified accuracy at radius r. A bound of 0.5 or less certifies nothing.",
            "–: more than n samples can show, or unknown: sequential estimation and published logs tell no bound below "
            "0.5.",
            *(
                ["–, too, for certificates that are composed of several bounds: no one p_A makes them."]
                if any(entry.is_composed for entry in comparison.entries)
                else []
            ),
            f"{BRACKETS}exact two-sided Clopper-Pearson 95% intervals over images.",
        ),
    )


def _blocks(comparison: Comparison, columns: list[float]) -> Iterator[Block]:
    for sigma in comparison.sigmas:
        entries = comparison.at_sigma(sigma)
        rows = tuple(_row(entry, entry.lower_bounds, columns) for entry in entries)
        yield Block(title=f"σ = {sigma:g} ({len(entries[0].records)} images)", rows=rows)


def _row(entry: Entry, bounds: LowerBounds, columns: list[float]) -> Row:
    if entry.is_composed:
        return (entry.label, *("–" for _ in columns))
    lowest, highest = 0.0 if bounds.has_uncertified else 0.5, _reach(entry, bounds)
    cells = (_cell(bounds, bound) if lowest <= bound <= highest else "–" for bound in columns)
    return (entry.label, *cells)


def _reach(entry: Entry, bounds: LowerBounds) -> float:
    """Return the largest bound that n samples give, or that a log claims."""
    reached = float(special.ndtr(largest_radius(entry.header, 1.0)))
    return max([reached, *(1 - tail for tail in bounds.tails[:1])])


def _cell(bounds: LowerBounds, bound: float) -> Cell:
    share = bounds.at_least(bound)
    low, high = share.interval()
    return Cell(text=format_percent(share.value), interval=(format_percent(low), format_percent(high)))
