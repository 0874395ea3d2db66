"""Comparison -> the sentences under its tables on how the certificates were made, run by run where that differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.report.comparison import Comparison, run_names
from bench.report.markup import Table, format_radius
from bench.smoothing.estimation import largest_radius
from bench.types import RunHeader

BETWEEN_RADII = (
    "Sequential estimation certifies radii of the table only, so that accuracy at a radius between them and ACR are "
    "lower bounds."
)
"""What it gives up, wherever its numbers are."""

UNTOLD = {
    "image_shape": None,
    "image_geometry": None,
    "image_digest": "",
    "noise_block": 0,
    "noise_version": None,
}
"""Fields of a header that no sentence on its protocol holds -> the value of one that is unknown."""


def with_protocol(table: Table, comparison: Comparison) -> Table:
    """Return a table with warnings and protocol before its notes, and what was left out behind, each once."""
    before = [*comparison.warnings, *protocol_notes(comparison)]
    behind = [one for one in comparison.notes if one not in table.notes]
    notes = (*(one for one in before if one not in table.notes), *table.notes, *behind)
    return replace(table, notes=notes, details=(*table.details, *protocol_notes(comparison)))


def protocol_notes(comparison: Comparison) -> tuple[str, ...]:
    """Return two or three sentences for each protocol among the runs, with the runs' names where there are several.

    The last one names what else the runs differ in.
    """
    doubted = {entry.run_number for entry in comparison.impossible}
    by_protocol: dict[tuple[str, ...], list[str]] = {}
    for number, (run, name) in enumerate(zip(comparison.runs, run_names(comparison.runs), strict=True)):
        by_protocol.setdefault(tuple(_sentences(run.header, number in doubted)), []).append(name)
    notes = [
        sentence if len(by_protocol) == 1 else f"{', '.join(names)}: {sentence}"
        for sentences, names in by_protocol.items()
        for sentence in sentences
    ]
    drawn = [run.header for run in comparison.runs if not run.header.logs]
    unlike = [
        name.replace("_", " ")
        for name, unknown in UNTOLD.items()
        if len({getattr(one, name) for one in drawn} - {unknown}) > 1
    ]
    if unlike:
        notes.append(f"The runs differ in {', '.join(unlike)}.")
    return tuple(notes)


def _sentences(header: RunHeader, is_denied: bool) -> Iterator[str]:
    seed = header.seed if header.seed >= 0 else "unknown"
    stated = f" as stated for {'a log that denies it' if is_denied else 'a log'}" if header.logs else ""
    yield (
        f"{header.dataset}, subset {header.subset} of {len(header.indices)} images; n0 = {header.n0:,}, "
        f"n = {header.n:,}, α = {header.alpha:g}{stated}, estimation {header.estimation}, bound {header.bound}, "
        f"seed {seed}, "
        f"precision {header.precision}."
    )
    limits = (
        f"{format_radius(largest_radius(header, sigma), 3)} at σ = {sigma:g}" for sigma in header.sigmas
    )
    yield f"Largest radius that n = {header.n:,} samples can certify: {', '.join(limits)}."
    if header.estimation == "sequential":
        yield BETWEEN_RADII
