"""Runs -> what papers leave out: assured accuracies, paired comparisons of methods, gaps between trainings."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report.comparison import Comparison, Entry
from bench.report.markup import Block, Cell, Table, format_percent, format_radius, to_latex, to_markdown
from bench.report.metrics import assured_accuracy, certified_accuracy
from bench.report.paired import PairedDifference, paired_differences, training_gaps
from bench.smoothing.estimation import largest_radius
from bench.types import Run

CONFIDENCE = 0.99
"""Of the high-probability accuracies, over the noise."""

SIGNIFICANT = 0.05
"""Level of the corrected tests: differences with a smaller p are bold."""

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


def paired_frame(runs: Sequence[Run], comparison: Comparison, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Return the paired comparisons, one row per (pair, radius within reach), unrounded.

    Columns: sigma, first, second (labels), images, radius (L2, pixel units), first_accuracy, second_accuracy,
    only_first, only_second (counts of images), difference with its 95% interval low, high (shares), p (exact
    McNemar), p_holm (corrected for the radii of the pair, `radii_tested` of them).
    """
    rows: list[dict[str, Any]] = []
    for first, second in pairs:
        radii = _within_reach(runs, (first, second), comparison.radii)
        for paired in paired_differences(first.records, second.records, radii):
            rows.append(_names(first, second) | _paired_columns(paired) | {"radii_tested": len(radii)})
    return pd.DataFrame(rows)


def assured_frame(comparison: Comparison) -> pd.DataFrame:
    """Return certified and assured accuracies, one row per (sigma, label, radius), unrounded.

    Columns: sigma, label, run, method, radius, images, certified (a count), assured (a count), accuracy,
    assured_accuracy (shares), confidence (of the latter).
    """
    rows = []
    for entry, radius in itertools.product(comparison.entries, comparison.radii):
        share = certified_accuracy(entry.records, radius)
        assured = assured_accuracy(share, entry.alpha, CONFIDENCE)
        rows.append(
            {"sigma": entry.sigma, "label": entry.label, "run": entry.run, "method": entry.method}
            | {"radius": radius, "images": share.images, "certified": share.count, "assured": assured.count}
            | {"accuracy": share.value, "assured_accuracy": assured.value, "confidence": CONFIDENCE}
        )
    return pd.DataFrame(rows)


def gap_frame(runs: Sequence[Run], comparison: Comparison) -> pd.DataFrame:
    """Return the gaps between trainings, one row per (sigma, method, radius or ACR), unrounded; perhaps empty.

    The ACR is left out where `Comparison.compares_acr` is False.

    Trainings are checkpoints of one method at one sigma that differ between the runs. Columns: sigma, method,
    trainings (how many), images, quantity ("certified accuracy" or "ACR"), radius (NaN for the ACR), lowest,
    highest, gap.
    """
    rows: list[dict[str, Any]] = []
    for (sigma, method), entries in _trainings(runs, comparison).items():
        for gap in training_gaps([entry.records for entry in entries], comparison.radii):
            if gap.radius is None and not comparison.compares_acr:
                continue
            quantity = "ACR" if gap.radius is None else "certified accuracy"
            rows.append(
                {"sigma": sigma, "method": method, "trainings": len(entries)}
                | {"images": len(entries[0].records), "quantity": quantity, "radius": gap.radius}
                | {"lowest": min(gap.values), "highest": max(gap.values), "gap": gap.width}
            )
    return pd.DataFrame(rows)


def paired_table(frame: pd.DataFrame) -> Table:
    """Return the printed table of a `paired_frame`: a block per pair and sigma, a row per radius."""
    groups = frame.groupby(["sigma", "first", "second"], sort=False)
    return Table(
        caption="Paired comparison: certified accuracy (%) of two methods on the same images",
        headers=("radius", "first", "second", "only first", "only second", "difference", "p", "p (Holm)"),
        blocks=tuple(
            Block(
                title=f"σ = {part['sigma'].iloc[0]:g}: {part['first'].iloc[0]} against {part['second'].iloc[0]} "
                f"({part['images'].iloc[0]} images)",
                rows=tuple(_paired_row(row) for _, row in part.iterrows()),
            )
            for _, part in groups
        ),
        notes=(
            "Only first, only second: images that one certifies at the radius and the other does not. Difference: "
            "first minus second in points, with the paired 95% score interval (Tango 1998), which is not "
            "corrected.",
            "p: exact McNemar test; p (Holm): corrected for the radii of its block, not for the number of blocks. "
            f"Bold: p (Holm) below {SIGNIFICANT:g}. Radii beyond the reach of n draws are left out.",
            "These say whether two trained classifiers differ over images like these; how much of it another "
            "training would change, only several trainings can tell.",
        ),
    )


def assured_table(frame: pd.DataFrame) -> Table:
    """Return the printed table of an `assured_frame`: a row per label, a column per radius."""
    radii = sorted(set(frame["radius"]))
    return Table(
        caption=f"High-probability certified accuracy (%): the share that holds with probability {CONFIDENCE:g}",
        headers=("method", *(f"{radius:.2f}" for radius in radii)),
        blocks=tuple(
            Block(
                title=f"σ = {sigma:g} ({part['images'].iloc[0]} images)",
                rows=tuple(_assured_rows(part, radii)),
            )
            for sigma, part in frame.groupby("sigma", sort=False)
        ),
        notes=(
            "Each certificate is wrong with probability alpha at most; the number that may be wrong together is "
            "taken off (arXiv 1902.02918, appendix, with the exact binomial quantile).",
        ),
    )


def gap_table(frame: pd.DataFrame) -> Table:
    """Return the printed table of a `gap_frame` that is not empty: a block per sigma."""
    radii, acr = sorted(set(frame["radius"].dropna())), bool((frame["quantity"] == "ACR").any())
    return Table(
        caption="Between trainings of one method: lowest and highest certified accuracy (%)"
        + (", and ACR" if acr else ""),
        headers=("method", "trainings", *(f"{radius:.2f}" for radius in radii), *("ACR",) * acr),
        blocks=tuple(
            Block(
                title=f"σ = {sigma:g} ({part['images'].iloc[0]} images)", rows=tuple(_gap_rows(part, radii))
            )
            for sigma, part in frame.groupby("sigma", sort=False)
        ),
        notes=("Trainings: checkpoints of the method that differ between the runs.",),
    )


def write_comparison(frames: dict[str, tuple[pd.DataFrame, Table]], folder: Path) -> list[Path]:
    """Write each frame as CSV at full precision, and its table as Markdown and LaTeX; return the paths.

    Args:
        frames: file name without suffix -> frame and table.
        folder: made where missing; files of these names in it are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (frame, table) in frames.items():
        texts = {".csv": frame.to_csv(index=False, lineterminator="\n")}
        texts |= {".md": to_markdown(table), ".tex": to_latex(table)}
        for suffix, text in texts.items():
            written.append(folder / (name + suffix))
            written[-1].write_text(text, encoding="utf-8", newline="\n")
    return written


def _within_reach(runs: Sequence[Run], pair: Pair, radii: Sequence[float]) -> tuple[float, ...]:
    """Return the radii that the protocol can certify, or that a log says to be certified."""
    headers = [runs[entry.run_number].header for entry in pair]
    reach = max(largest_radius(header, pair[0].sigma) for header in headers)
    reach = max(reach, *(record.radius for entry in pair for record in entry.records))
    return tuple(radius for radius in radii if radius <= reach)


def _trainings(runs: Sequence[Run], comparison: Comparison) -> dict[tuple[float, str], list[Entry]]:
    """Return (sigma, method) -> entries with checkpoints that differ, where there are two or more."""
    found: dict[tuple[float, str], dict[str, Entry]] = {}
    for entry in comparison.entries:
        checkpoints = runs[entry.run_number].header.checkpoints
        checkpoint = checkpoints.get(f"{entry.method}/{entry.sigma:g}")
        if checkpoint is not None:
            found.setdefault((entry.sigma, entry.method), {}).setdefault(checkpoint, entry)
    return {key: list(entries.values()) for key, entries in found.items() if len(entries) > 1}


def _names(first: Entry, second: Entry) -> dict[str, Any]:
    names = {"sigma": first.sigma, "first": first.label, "second": second.label}
    return names | {"images": len(first.records)}


def _paired_columns(paired: PairedDifference) -> dict[str, Any]:
    low, high = paired.interval()
    return (
        {"radius": paired.radius}
        | {"first_accuracy": paired.first.value, "second_accuracy": paired.second.value}
        | {"only_first": paired.only_first, "only_second": paired.only_second}
        | {"difference": paired.difference, "low": low, "high": high, "p": paired.p, "p_holm": paired.p_holm}
    )


def _paired_row(row: Any) -> tuple[Cell, ...]:
    is_significant = bool(row["p_holm"] < SIGNIFICANT)
    return (
        Cell(text=f"{row['radius']:.2f}"),
        Cell(text=format_percent(row["first_accuracy"])),
        Cell(text=format_percent(row["second_accuracy"])),
        Cell(text=str(row["only_first"])),
        Cell(text=str(row["only_second"])),
        Cell(
            text=_points(row["difference"]),
            interval=(_points(row["low"]), _points(row["high"])),
            is_best=is_significant,
        ),
        Cell(text=format_p(row["p"])),
        Cell(text=format_p(row["p_holm"]), is_best=is_significant),
    )


def format_p(p: float) -> str:
    """Return a p-value with three decimals, or two significant digits below 0.001."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _assured_rows(part: pd.DataFrame, radii: Sequence[float]) -> Iterable[tuple[Cell, ...]]:
    for label, row in part.groupby("label", sort=False):
        shares = row.set_index("radius")["assured_accuracy"]
        yield Cell(text=str(label)), *(Cell(text=format_percent(shares[radius])) for radius in radii)


def _gap_rows(part: pd.DataFrame, radii: Sequence[float]) -> Iterable[tuple[Cell, ...]]:
    for method, rows in part.groupby("method", sort=False):
        by_radius = rows.set_index("radius")
        acr = (row for _, row in rows[rows["quantity"] == "ACR"].iterrows())
        yield (
            Cell(text=str(method)),
            Cell(text=str(rows["trainings"].iloc[0])),
            *(Cell(text=_range(by_radius.loc[radius], format_percent)) for radius in radii),
            *(Cell(text=_range(row, lambda value: format_radius(value, 3))) for row in acr),
        )


def _range(row: Any, written: Any) -> str:
    return f"{written(row['lowest'])} to {written(row['highest'])}"
