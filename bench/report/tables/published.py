"""Published numbers beside measured ones -> one DataFrame -> CSV, Markdown, LaTeX; they enter no ranking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report.comparison import Comparison, Entry, compare
from bench.report.markup import Block, Cell, Table, format_percent, format_radius, to_latex, to_markdown
from bench.report.metrics import Share, best_sigma
from bench.report.published import Claim, PublishedNumber
from bench.types import Run, RunHeader

FILES = ("published.csv", "published.md", "published.tex")
"""Names of the files that `write_published` writes."""

BEST = "best over σ"
"""Title of the block of numbers that state no sigma."""


def published_frame(
    runs: Sequence[Run], comparison: Comparison, numbers: Iterable[PublishedNumber]
) -> pd.DataFrame:
    """Return one row per published number whose method, sigma and radius were measured too, unrounded.

    Columns: label, run, method, selection ("fixed", or "best" where the source gives the best sigma of each
    radius), sigma, radius; reported, measured (shares in [0,1]), low, high (exact 95% interval of the measured
    share), reported_against_measured ("inside" that interval, "above" or "below" it), differences (what of subset,
    n and alpha is not the same, or not stated); images, subset, n and alpha of both; paper, variant, kind, table,
    source.

    Args:
        runs: what `comparison` was made of.
        numbers: published for the runs' data set.
    """
    rows = [
        _row(entry, runs[entry.run_number].header, number, sigma, share)
        for number in numbers
        if number.radius in comparison.radii
        for entry, sigma, share in _measured(comparison, number)
    ]
    order = {label: position for position, label in enumerate(comparison.labels)}
    rows.sort(key=lambda row: (row["selection"] == "best", row["sigma"], order[row["label"]]))
    return pd.DataFrame(rows)


def write_published(
    runs: Sequence[Run], numbers: Sequence[PublishedNumber], claims: Sequence[Claim], folder: Path
) -> tuple[list[Path], str]:
    """Write `FILES`; return their paths, and one sentence on how the reported numbers lie against the measured.

    Where no published number has a method, sigma and radius of the runs, files of these names are removed.

    Args:
        runs: of one data set.
        numbers, claims: published for that data set.
        folder: made where missing.

    Raises:
        RecordsError, ProtocolError: as in `bench.report.comparison.compare`.
    """
    frame = published_frame(runs, compare(runs), numbers)
    paths = [folder / name for name in FILES]
    if frame.empty:
        for path in paths:
            path.unlink(missing_ok=True)
        return [], _no_row(runs[0].header.dataset, numbers)
    table = _table(frame, runs, claims)
    folder.mkdir(parents=True, exist_ok=True)
    csv = frame.drop(columns="label").to_csv(index=False, lineterminator="\n")
    for path, text in zip(paths, (csv, to_markdown(table), to_latex(table)), strict=True):
        path.write_text(text, encoding="utf-8", newline="\n")
    counts = frame["reported_against_measured"].value_counts()
    places = ", ".join(f"{counts.get(place, 0)} {place}" for place in ("inside", "above", "below"))
    return paths, f"Published: {len(frame)} numbers beside ours, {places} our 95% interval; see {FILES[1]}."


def _no_row(dataset: str, numbers: Sequence[PublishedNumber]) -> str:
    if not numbers:
        return f"Published: no number is known for {dataset}."
    methods = ", ".join(dict.fromkeys(number.method for number in numbers))
    return (
        f"Published: none of the {len(numbers)} numbers for {dataset} ({methods}) has a method, sigma and radius of "
        "these runs."
    )


def _measured(comparison: Comparison, number: PublishedNumber) -> Iterable[tuple[Entry, float, Share]]:
    """Yield what was measured for the number's method: entry, sigma and share at the number's radius."""
    if number.sigma is not None:
        for entry in comparison.at_sigma(number.sigma):
            if entry.method == number.method:
                yield entry, entry.sigma, entry.curve.at(number.radius)
        return
    for label in comparison.labels:
        entries = [entry for entry in comparison.best_of(label) if entry.method == number.method]
        if entries:
            best = best_sigma({entry.sigma: entry.curve for entry in entries}, number.radius)
            yield entries[0], best.sigma, best.share


def _row(
    entry: Entry, header: RunHeader, number: PublishedNumber, sigma: float, share: Share
) -> dict[str, Any]:
    low, high = share.interval()
    reported = number.certified_accuracy
    place = "below" if reported < low else "above" if reported > high else "inside"
    return (
        {"label": entry.label, "run": entry.run, "method": entry.method}
        | {"selection": "best" if number.sigma is None else "fixed", "sigma": sigma, "radius": number.radius}
        | {"reported": reported, "measured": share.value, "low": low, "high": high}
        | {"reported_against_measured": place}
        | {"differences": ", ".join(_differences(number, header, share.images))}
        | {"reported_images": number.images, "images": share.images}
        | {"reported_subset": number.subset, "subset": header.subset}
        | {"reported_n": number.n, "n": header.n, "reported_alpha": number.alpha, "alpha": header.alpha}
        | {"paper": number.paper, "variant": number.variant}
        | {"kind": number.kind, "table": number.table, "source": number.source}
    )


def _differences(number: PublishedNumber, header: RunHeader, images: int) -> list[str]:
    """Return the names of what differs in the protocol, "not stated" behind what the source leaves open."""
    same_subset: bool | None = number.images == images and number.subset in ("all", header.subset)
    if number.images is None or (number.images == images and not number.subset):
        same_subset = None
    same_n = None if number.n is None else number.n == header.n
    same_alpha = None if number.alpha is None else number.alpha == header.alpha
    answers = {"subset": same_subset, "n": same_n, "alpha": same_alpha}
    return [
        name if same is False else f"{name} not stated" for name, same in answers.items() if same is not True
    ]


def _table(frame: pd.DataFrame, runs: Sequence[Run], claims: Sequence[Claim]) -> Table:
    titles = frame["sigma"].map("σ = {:g}".format).where(frame["selection"] == "fixed", BEST)
    return Table(
        caption="Published beside measured certified accuracy (%) at L2 radius, pixels in [0,1]",
        headers=(
            "method",
            "published with",
            "radius",
            "reported",
            "measured",
            "reported against measured",
            "differs in",
        ),
        blocks=tuple(
            Block(title=str(title), rows=tuple(_cells(part)))
            for title, part in frame.groupby(titles, sort=False)
        ),
        notes=(*_protocols(runs), *_NOTES, *_sources(frame), *map(_claim, claims)),
    )


_NOTES = (
    "Brackets: exact two-sided Clopper-Pearson 95% intervals over our images. Reported against measured: whether the "
    "reported value lies inside that interval, above or below it; it has an error of its own.",
    "Differs in: what of subset, n and α is not that of our run, or not stated. Networks and training differ too.",
)


def _cells(part: pd.DataFrame) -> Iterable[tuple[Cell, ...]]:
    for _, row in part.iterrows():
        published = f"{row['paper']} ({row['variant']})" if row["variant"] else row["paper"]
        yield (
            Cell(text=row["label"]),
            Cell(text=published),
            Cell(text=format_radius(row["radius"], 2)),
            Cell(text=format_percent(row["reported"])),
            Cell(
                text=format_percent(row["measured"]),
                interval=(format_percent(row["low"]), format_percent(row["high"])),
            ),
            Cell(text=row["reported_against_measured"]),
            Cell(text=row["differences"].replace("alpha", "α") or "–"),
        )


def _protocols(runs: Sequence[Run]) -> tuple[str, ...]:
    headers = [run.header for run in runs]
    return tuple(
        dict.fromkeys(
            f"Measured: {header.dataset}, subset {header.subset} of {len(header.indices)} images, n = {header.n}, "
            f"α = {header.alpha:g}."
            for header in headers
        )
    )


def _sources(frame: pd.DataFrame) -> Iterable[str]:
    """Return one sentence per paper and source: where its numbers stand, how they were obtained, the protocol."""
    columns = ["paper", "source", "kind", "reported_images", "reported_n", "reported_alpha"]
    for _, row in frame[columns].drop_duplicates().iterrows():
        facts = {"images": row["reported_images"], "n": row["reported_n"], "α": row["reported_alpha"]}
        stated = [f"{name} = {value:g}" for name, value in facts.items() if not pd.isna(value)]
        yield f"{row['paper']}: {row['source']}, {row['kind']}; {', '.join(stated)}."


def _claim(claim: Claim) -> str:
    return (
        f"Also published, and not compared: {claim.method}, {claim.quantity}, {claim.value} {claim.unit} "
        f"({claim.paper}: {claim.source}, {claim.kind})."
    )
