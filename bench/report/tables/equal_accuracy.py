"""Methods at equal certified accuracy -> one DataFrame and its printed table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import pandas as pd

from bench.report.comparison import Comparison
from bench.report.equal_accuracy import RESAMPLES, SHARES, EqualAccuracy
from bench.report.markup import BRACKETS, Block, Cell, Row, Table, format_percent, format_significant
from bench.report.rates import REFERENCE
from bench.report.tables.accuracy import radius_headers

NOT_REACHED = "–"


def equal_accuracy_frame(compared: Sequence[EqualAccuracy]) -> pd.DataFrame:
    """Return one row per radius, share and method, unrounded; empty cells where n samples do not reach the target.

    Columns: those of `bench.report.equal_accuracy.EqualAccuracy`, then speedup with speedup_low and speedup_high.
    """
    rows = []
    for one in compared:
        low, high = one.interval or (None, None)
        values = {name: value for name, value in asdict(one).items() if name != "interval"}
        rows.append(values | {"speedup": one.speedup, "speedup_low": low, "speedup_high": high})
    return pd.DataFrame(rows)


def equal_accuracy_table(comparison: Comparison, compared: Sequence[EqualAccuracy], command: str) -> Table:
    """Return the printed table: a block per radius, a row per method, columns for each of `SHARES`."""
    header = comparison.runs[0].header
    images = len(comparison.best[0].records)
    reference = comparison.name_of(REFERENCE)
    columns = [
        text for share in SHARES for text in (f"n for {share:.0%}", "s per image", f"speedup at {share:.0%}")
    ]
    return Table(
        caption=f"Speed at {' and '.join(f'{share:.0%}' for share in SHARES)} of the certified accuracy of {reference}",
        headers=("method", "certified (%)", *columns),
        blocks=tuple(_blocks(comparison, compared, images)),
        notes=(
            f"Made by: {command}",
            f"Certified: with all n = {header.n:,} samples. n for a share: the fewest samples with which a method is "
            f"expected to certify that share of what {reference} certifies with all n, at its best σ for them, chosen "
            "on the certified images; exactly, by the hypergeometric distribution of the counts. Every radius of the "
            f"run's table that {reference} certifies is here.",
            f"A ratio is of this n: where {reference} would certify more with more samples, the share moves with it.",
            f"Seconds of n0 + n samples (n0 = {header.n0}) by measured throughput ({comparison.costs[0].cost.device}); "
            f"speedup: those of {reference} over a method's.",
            f"{BRACKETS}95% intervals over images (bootstrap, {RESAMPLES:,} resamples, each choosing σ and n anew); "
            "they hold neither what other timings nor what other training runs would change.",
            f"{NOT_REACHED}: n samples do not reach it; as the end of an interval: not in that part of the resamples.",
        ),
    )


def _blocks(comparison: Comparison, compared: Sequence[EqualAccuracy], images: int) -> Iterator[Block]:
    for radius in dict.fromkeys(one.radius for one in compared):
        here = [one for one in compared if one.radius == radius]
        certified = format_percent(here[0].reference_accuracy)
        methods = dict.fromkeys(one.method for one in here)
        yield Block(
            title=f"radius {radius_headers([radius])[0]}: {comparison.name_of(REFERENCE)} certifies {certified}% "
            f"({images} images)",
            rows=tuple(
                _row(comparison.name_of(method), [one for one in here if one.method == method])
                for method in methods
            ),
        )


def _row(label: str, of_shares: Sequence[EqualAccuracy]) -> Row:
    cells: list[Cell | str] = [label, format_percent(of_shares[0].accuracy)]
    for one in of_shares:
        if one.samples is None or one.seconds is None or one.speedup is None:
            cells += [NOT_REACHED] * 3
            continue
        ends = one.interval and tuple(format_significant(end) if end else NOT_REACHED for end in one.interval)
        interval = (ends[0], ends[1]) if ends else None
        speedup = Cell(text=format_significant(one.speedup), interval=interval)
        cells += [f"{one.samples:,}", format_significant(one.seconds), speedup]
    return tuple(cells)
