"""A run in short, for a page: a table with a row per method, and the verdicts on the method under study."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bench.commands.terminal.verdicts import speed_of, spread_of
from bench.config.methods import MethodEntry, described

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from bench.report.comparison import Comparison
    from bench.types import RunHeader

FEWEST_RADII = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""Radii of the columns, as far as the run has them."""

_ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")


def summary(folder: Path) -> str:
    """Return table, note and verdicts of the run in a folder, in Markdown."""
    from bench.records.file import read_run
    from bench.report.comparison import compare

    comparison = compare([read_run(folder)])
    methods = {one.label: one.method for one in comparison.everything}
    described_methods = described(methods.values())
    entries = {label: described_methods[method] for label, method in methods.items()}
    studied = [label for label, entry in entries.items() if entry.kind == "studied"]
    bullets = "\n".join(f"- {one}" for one in _verdicts(comparison, studied))
    return "\n\n".join((_table(comparison, entries), _note(comparison), bullets))


def _verdicts(comparison: Comparison, studied: Sequence[str]) -> Iterator[str]:
    """Yield a sentence on each studied method beside each other one, over all sigmas and radii, then what it is."""
    from bench.report.markup import format_at_most
    from bench.report.tables.paired import SIGNIFICANT, paired_frame, pairs_of

    frame = paired_frame(comparison, pairs_of(comparison))
    found = frame[frame["p_holm"] < SIGNIFICANT]
    sides = [*(found["high"] - found["difference"]), *(found["difference"] - found["low"])]
    names = {entry.label: entry.row for entry in comparison.everything}
    is_valid = not spread_of(comparison)
    for one in studied:
        for other in (label for label in comparison.labels if label != one):
            signs = {(one, other): 1, (other, one): -1}
            rows = frame[
                [pair in signs for pair in zip(frame["first_label"], frame["second_label"], strict=True)]
            ]
            sign = rows["first_label"].map({one: 1, other: -1})
            speed = speed_of(comparison, names[one], names[other]) if is_valid else ""
            speed = speed.removeprefix("is ").removesuffix(" as")
            counts = _counts(rows.assign(difference=sign * rows["difference"]))
            yield f"{one} beside {other}: {f'{speed}; ' if speed else ''}{counts}."
    yield (
        f"Cells: σ and r. Higher, lower: certified accuracy differs significantly (exact paired test, p < 0.05 after "
        f"Holm's correction for {len(frame)} tests; 95% intervals of these differences within "
        f"{format_at_most(max(sides, default=0.0))} points)."
    )


def _counts(rows: pd.DataFrame) -> str:
    """Return in how many rows a method is significantly higher and in how many lower, and by how much."""
    from bench.report.markup import format_percent
    from bench.report.tables.paired import SIGNIFICANT

    parts = []
    for word, sign in (("higher", 1), ("lower", -1)):
        points = sorted(
            sign * rows["difference"][(rows["p_holm"] < SIGNIFICANT) & (sign * rows["difference"] > 0)]
        )
        span = " to ".join(dict.fromkeys(format_percent(point) for point in (*points[:1], *points[-1:])))
        among = f" of {len(rows)} cells" if sign < 0 else ""
        parts.append(f"{word} in {len(points) or 'none'}{among}{f' (by {span} points)' if points else ''}")
    return ", ".join(parts)


def _table(comparison: Comparison, entries: dict[str, MethodEntry]) -> str:
    radii = [radius for radius in FEWEST_RADII if radius in comparison.radii]
    headers = ["Method", *(f"r = {radius:g}" for radius in radii), "Training", "s per image"]
    has_speed = not spread_of(comparison)
    headers += ["Speed"] if has_speed else []
    lines = [headers, ["---", *["---:"] * (len(headers) - 1)]]
    for label in comparison.labels:
        shares = [comparison.best_at(label, radius) for radius in radii]
        cells = [
            "–" if best is None else f"{100 * best.curve.at(radius).value:.1f}"
            for best, radius in zip(shares, radii, strict=True)
        ]
        lines.append(
            [
                _linked(label, entries[label]),
                *cells,
                _training(comparison, label),
                *_cost(comparison, label)[: 2 if has_speed else 1],
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _linked(label: str, entry: MethodEntry) -> str:
    paper = _ARXIV.search(entry.summary)
    return f"[{label}](https://arxiv.org/abs/{paper[1]})" if paper else label


def _cost(comparison: Comparison, label: str) -> tuple[str, str]:
    """Return the time of an image, and the speed relative to DDS."""
    from bench.report.markup import format_significant
    from bench.report.rates import seconds_per_certificate

    for one in comparison.costs:
        if one.label == label:
            ratio = None if one.speedup is None else one.speedup.median
            speed = "–" if ratio is None else f"{ratio:{'.1f' if ratio >= 1 else '.2g'}}x"
            return format_significant(seconds_per_certificate(one.cost).median), speed
    return "–", "–"


def _training(comparison: Comparison, label: str) -> str:
    from bench.report.tables.training import forward_passes

    passes = forward_passes([one for one in comparison.everything if one.label == label])
    return "–" if passes is None else f"{passes / 1e6:.1f}M"


def _note(comparison: Comparison) -> str:
    from bench.report.rates import REFERENCE

    header = comparison.runs[0].header
    sides = [
        max(high - best.curve.at(radius).value, best.curve.at(radius).value - low)
        for label in comparison.labels
        for radius in comparison.radii
        if (best := comparison.best_at(label, radius)) is not None
        for low, high in [best.curve.at(radius).interval()]
    ]
    costs = {f"{one.cost.device}, σ = {one.sigma:g}" for one in comparison.costs}
    where = "; ".join(sorted(costs))
    relative = f"speed relative to {comparison.name_of(REFERENCE)}"
    spread = spread_of(comparison)
    timed = (
        f" Time of {header.n0 + header.n:,} samples: {where}; {spread}; no {relative} is given."
        if spread
        else f" Time of {header.n0 + header.n:,} samples, {relative}: {where}."
    )
    sigmas = ", ".join(f"{sigma:g}" for sigma in header.sigmas)
    return (
        f"Certified accuracy (%) at ℓ2 radius r: {len(header.indices)} images of {comparison.dataset}, "
        f"{_samples(header)}, α = {header.alpha:g}, best σ of {sigmas}, chosen on these images; 95% intervals of "
        f"the accuracies within {math.ceil(1000 * max(sides) - 1e-6) / 10:.1f} points. Each model was "
        f"trained once. Training: forward passes for all σ, a gradient counted as two more.{timed if costs else ''}"
    )


def _samples(header: RunHeader) -> str:
    if header.estimation == "fixed":
        return f"n = {header.n:,}"
    return f"at most n = {header.n:,} ({header.estimation} estimation)"
