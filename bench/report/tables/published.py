"""Published numbers beside measured ones -> one DataFrame and its printed table; they enter no ranking."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from bench.report.comparison import Comparison, Entry
from bench.report.markup import Block, Cell, Row, Table, format_percent, format_radius
from bench.report.published import NOT_AVAILABLE, Claim, PublishedNumber
from bench.report.tables.accuracy import BEST
from bench.types import Run, RunHeader


def published_frame(comparison: Comparison, numbers: Iterable[PublishedNumber]) -> pd.DataFrame:
    """Return one row per published number whose method, sigma and radius were measured too, unrounded.

    Columns: label, run, method, selection ("fixed", or "best" where the source gives the best sigma of each
    radius), sigma, radius; reported, measured (shares in [0,1]), low, high (exact 95% interval of the measured
    share), reported_against_measured ("inside" that interval, "above" or "below" it, "out of reach" with measured NaN
    beyond R_max, or "same log" where all that was recomputed from a published log is what the imported one gives),
    differences (what of subset, n and alpha is not
    the same, or not stated); images, subset, n and alpha of both; paper, variant, kind, table, source.

    Args:
        numbers: published for the runs' data set.
    """
    rows = [
        _row(entry, number)
        for number in numbers
        if number.radius in comparison.radii
        for entry in _measured(comparison, number)
    ]
    _from_same_log(rows, {entry.label for entry in comparison.entries if entry.header.logs})
    order = {label: position for position, label in enumerate(comparison.labels)}
    rows.sort(key=lambda row: (row["selection"] == "best", row["sigma"], order[row["label"]]))
    return pd.DataFrame(rows)


def published_table(frame: pd.DataFrame, comparison: Comparison, claims: Iterable[Claim]) -> Table:
    """Return the printed table of a `published_frame` that has rows; `claims` are stated in its notes."""
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
            Block(title=str(title), rows=tuple(_rows(part)))
            for title, part in frame.groupby(titles, sort=False)
        ),
        notes=(
            *comparison.warnings,
            *_protocols(comparison.runs),
            *_NOTES,
            *_sources(frame),
            *map(_claim, claims),
        ),
    )


def claimed_sentences(comparison: Comparison, stated: Iterable[Claim]) -> list[str]:
    """Return one sentence for each claim of an abstract on a measured method, and for each number that is not there."""
    measured = {entry.method for entry in comparison.everything}
    shown = (one for one in stated if one.is_of_abstract or one.kind == NOT_AVAILABLE)
    return [_claim(one) for one in shown if one.method in measured]


def published_sentence(frame: pd.DataFrame, dataset: str, numbers: Sequence[PublishedNumber]) -> str:
    """Return one sentence on how the reported numbers lie against the measured, or on why none is compared."""
    if not numbers:
        return f"Published: no number is known for {dataset}."
    if frame.empty:
        methods = ", ".join(dict.fromkeys(number.method for number in numbers))
        return (
            f"Published: none of the {len(numbers)} numbers for {dataset} ({methods}) has a method, sigma and "
            "radius of these runs."
        )
    counts = frame["reported_against_measured"].value_counts()
    places = ", ".join(f"{counts.get(place, 0)} {place}" for place in ("inside", "above", "below"))
    beyond = counts.get(OUT_OF_REACH, 0)
    unmeasured = f"; {beyond} beyond the radii that n samples can certify" if beyond else ""
    same = counts.get(SAME_LOG, 0)
    circular = f"; {same} from the log that was imported, which compare it with itself" if same else ""
    return (
        f"Published: {len(frame)} numbers beside ours, {places} our 95% interval{unmeasured}{circular}; see "
        "published.md."
    )


def _measured(comparison: Comparison, number: PublishedNumber) -> Iterable[Entry]:
    """Return what was measured of the number's method, at its sigma or at the best one at its radius."""
    if number.sigma is not None:
        entries: Iterable[Entry | None] = comparison.at_sigma(number.sigma)
    else:
        entries = (comparison.best_at(label, number.radius) for label in comparison.labels)
    return (entry for entry in entries if entry is not None and entry.method == number.method)


def _row(entry: Entry, number: PublishedNumber) -> dict[str, Any]:
    header, share = entry.header, entry.curve.at(number.radius)
    value, (low, high) = share.value, share.interval()
    reported = number.certified_accuracy
    place = "below" if reported < low else "above" if reported > high else "inside"
    if number.radius > entry.reach and not header.logs:
        value, low, high, place = math.nan, math.nan, math.nan, OUT_OF_REACH
    return (
        {"label": entry.label, "run": entry.run, "method": entry.method}
        | {
            "selection": "best" if number.sigma is None else "fixed",
            "sigma": entry.sigma,
            "radius": number.radius,
        }
        | {"reported": reported, "measured": value, "low": low, "high": high}
        | {"reported_against_measured": place}
        | {"differences": ", ".join(_differences(number, header, share.images))}
        | {"reported_images": number.images, "images": share.images}
        | {"reported_subset": number.subset, "subset": header.subset}
        | {"reported_n": number.n, "n": header.n, "reported_alpha": number.alpha, "alpha": header.alpha}
        | {"paper": number.paper, "variant": number.variant}
        | {"kind": number.kind, "table": number.table, "source": number.source}
    )


def _from_same_log(rows: list[dict[str, Any]], imported: set[str]) -> None:
    """Mark the rows of each published log whose numbers are all those of an imported one of as many images."""
    series: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        is_measured = row["reported_against_measured"] != OUT_OF_REACH
        if row["label"] in imported and "log" in row["kind"] and is_measured:
            names = ("label", "paper", "variant", "table", "selection", "sigma")
            series.setdefault(tuple(row[name] for name in names), []).append(row)
    for same in series.values():
        if all(
            row["reported_images"] == row["images"]
            and abs(row["reported"] - row["measured"]) < 0.5 / row["images"]
            for row in same
        ):
            for row in same:
                row["reported_against_measured"] = SAME_LOG


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


SAME_LOG = "same log"
OUT_OF_REACH = "out of reach"

_NOTES = (
    "Brackets: exact two-sided Clopper-Pearson 95% intervals over our images. Reported against measured: whether the "
    "reported value lies inside that interval, above or below it; it has an error of its own.",
    f"{SAME_LOG.capitalize()}: the reported value was recomputed from a log that gives what the imported one does at "
    "every radius; it is compared with itself, which confirms nothing.",
    f"{OUT_OF_REACH.capitalize()}: beyond the largest radius that our n samples can certify; nothing was measured.",
    "Differs in: what of subset, n and α is not that of our run, or not stated. Networks and training differ too.",
)


def _rows(part: pd.DataFrame) -> Iterable[Row]:
    for _, row in part.iterrows():
        published = f"{row['paper']} ({row['variant']})" if row["variant"] else row["paper"]
        yield (
            row["label"],
            published,
            format_radius(row["radius"], 2),
            format_percent(row["reported"]),
            Cell(
                text=format_percent(row["measured"]),
                interval=(format_percent(row["low"]), format_percent(row["high"])),
            )
            if row["reported_against_measured"] != OUT_OF_REACH
            else "–",
            row["reported_against_measured"],
            row["differences"].replace("alpha", "α") or "–",
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
    if claim.kind == NOT_AVAILABLE:
        return (
            f"Not available: {claim.method}, {claim.quantity} ({claim.paper}: {claim.source}); {claim.value} "
            f"{claim.unit}."
        )
    manner = "Claimed, as no cell of a table" if claim.is_of_abstract else "Also published"
    return (
        f"{manner}, and not compared: {claim.method}, {claim.quantity}, {claim.value} {claim.unit} "
        f"({claim.paper}: {claim.source}, {claim.kind})."
    )
