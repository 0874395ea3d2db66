"""Records of `bench cost` -> DataFrames -> Markdown, CSV and LaTeX; nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.config.methods import kinds
from bench.cost.plan import splits_of_fastest
from bench.cost.records import FIRST_SCHEMA_VERSION, CostRun
from bench.cost.summary import BEST, PUBLISHED, Pair, Row, Speedup, pairs, reasons, rows, stage_names
from bench.errors import RecordsError
from bench.report import markup
from bench.report.markup import Block, Cell, Table, format_percent, format_significant
from bench.report.published import claims
from bench.report.rates import REFERENCE
from bench.report.tables.cost import quartile_cell, quartile_columns
from bench.report.write import write

NONE = "–"
"""Stands in a table for what was not measured."""

SPEEDUP = f"speedup relative to {REFERENCE}"


def comparison_frame(run: CostRun) -> pd.DataFrame:
    """Return one row per comparison and method, unrounded.

    Columns: comparison, method, verdict, reasons, setting, batch_size, repetitions, parameters, flops_per_sample,
    calls_per_sample; as `_first_quartile`, `_median` and `_third_quartile` over the repetitions samples_per_second,
    latency_seconds, speedup_relative_to_dds, and for each n seconds_per_image_<n>, which follows from throughput;
    joules_per_image_<n>, peak_memory_bytes, share_of_peak, whole_image_ratio, speedup_rounds (rounds that the speedup
    is paired by; 0: unpaired, see `bench.cost.summary.Speedup`). What was not measured is missing.
    """
    return pd.DataFrame([_columns(run, row) for row in rows(run)])


def _columns(run: CostRun, row: Row) -> dict[str, Any]:
    session = run.sessions[-1]
    columns: dict[str, Any] = {
        "comparison": row.comparison,
        "method": row.size.method,
        "verdict": row.verdict,
        "reasons": "; ".join(row.reasons),
        "setting": row.pair.setting,
        "batch_size": row.pair.batch_size,
        "repetitions": len(row.pair.repetitions),
        "parameters": row.size.parameters,
        "flops_per_sample": row.size.flops,
        "calls_per_sample": row.size.calls,
        "peak_memory_bytes": row.pair.peak_memory_bytes,
        "share_of_peak": row.share_of_peak,
        "whole_image_ratio": row.image_ratio,
        "speedup_rounds": None if row.speedup is None else row.speedup.rounds,
    }
    columns |= quartile_columns("samples_per_second", row.pair.throughput)
    columns |= quartile_columns("latency_seconds", row.latency)
    columns |= quartile_columns(
        f"speedup_relative_to_{REFERENCE}", None if row.speedup is None else row.speedup.ratio
    )
    for n in session.n:
        columns |= quartile_columns(f"seconds_per_image_{n}", row.seconds_per_image(session.n0 + n))
        joules = row.joules_per_sample
        columns[f"joules_per_image_{n}"] = None if joules is None else joules * (session.n0 + n)
    return columns


def sweep_frame(run: CostRun) -> pd.DataFrame:
    """Return one row per method, setting and batch size that was timed, and one for each that could not be."""
    timed = pairs(run)
    done = [
        {
            "method": pair.method,
            "setting": pair.setting,
            "batch_size": pair.batch_size,
            "repetitions": len(pair.repetitions),
            "peak_memory_bytes": pair.peak_memory_bytes,
            "reasons": "; ".join(reasons(run, timed, pair, None)),
        }
        | quartile_columns("samples_per_second", pair.throughput)
        for pair in timed
    ]
    return pd.DataFrame(done + [vars(one) for one in run.standing_failures]).rename(
        columns={"reason": "failure"}
    )


def stage_frame(run: CostRun) -> pd.DataFrame:
    """Return one row per method and setting: seconds of one sample by stage, as columns."""
    return pd.DataFrame(
        [
            {"method": one.method, "setting": one.setting, "batch_size": one.batch_size}
            | {f"{name}_seconds": seconds / one.batch_size for name, seconds in one.stages.items()}
            for one in splits_of_fastest(run)
        ]
    )


def comparison_table(run: CostRun) -> Table:
    """Return both comparisons as blocks of one table; columns of what was measured of no method are left out."""
    found = rows(run)
    if not found:
        raise RecordsError(f"{run.folder} holds no timings to compare: repeat the `bench cost` that began it")
    by_row = [_cells(run, row) for row in found]
    headers = [
        name for name in by_row[0] if any(markup.as_cell(cells[name]).text != NONE for cells in by_row)
    ]
    return _table(run, found, headers)


def short_table(run: CostRun) -> Table:
    """Return the `comparison_table` with the columns that fit on a screen."""
    seconds = f"s per image, n = {run.sessions[-1].n[0]:,}"
    headers = ["method", "setting, batch", "samples/s", seconds, SPEEDUP, "repetitions", "verdict"]
    return _table(run, rows(run), headers)


def _table(run: CostRun, found: Sequence[Row], headers: Sequence[str]) -> Table:
    blocks: dict[str, list[markup.Row]] = {}
    for row in found:
        cells = _cells(run, row)
        blocks.setdefault(row.comparison, []).append(tuple(cells[name] for name in headers))
    return Table(
        caption="Inference cost at the methods' sizes, random weights",
        headers=tuple(headers),
        blocks=tuple(Block(title=title, rows=tuple(cells)) for title, cells in blocks.items()),
        notes=(*_notes(run, found), *_invalid(found), *_means(run, found)),
    )


def _cells(run: CostRun, row: Row) -> dict[str, Cell | str]:
    """Return header -> cell, NONE where something was not measured."""
    session = run.sessions[-1]
    joules, memory, share = row.joules_per_sample, row.pair.peak_memory_bytes, row.share_of_peak
    cells: dict[str, Cell | str] = {
        "method": row.size.method,
        "parameters": f"{row.size.parameters:,}",
        "GFLOPs per sample": format_significant(row.size.flops / 1e9),
        "setting, batch": f"{row.pair.setting}, {row.pair.batch_size}",
        "samples/s": quartile_cell(row.pair.throughput),
        "latency (ms)": quartile_cell(row.latency and row.latency.times(1000)),
    }
    for n in session.n:
        cells[f"s per image, n = {n:,}"] = quartile_cell(row.seconds_per_image(session.n0 + n))
        cells[f"J per image, n = {n:,}"] = _cell(joules and joules * (session.n0 + n), format_significant)
    return cells | {
        "peak memory (MiB)": _cell(memory, _mebibytes),
        "% of peak": _cell(share, format_percent),
        SPEEDUP: _speedup_cell(row.speedup),
        "repetitions": str(len(row.pair.repetitions)),
        "verdict": row.verdict,
    }


def _cell(value: float | None, shown: Callable[[float], str]) -> str:
    return NONE if value is None else shown(value)


def _mebibytes(memory_bytes: float) -> str:
    return f"{memory_bytes / 2**20:,.0f}"


def _speedup_cell(value: Speedup | None) -> Cell:
    if value is None:
        return Cell(text=NONE)
    cell = quartile_cell(value.ratio)
    return cell if value.rounds else Cell(text=f"{cell.text} (unpaired)", interval=cell.interval)


def _notes(run: CostRun, found: Sequence[Row]) -> Iterable[str]:
    header, session = run.header, run.sessions[-1]
    yield f"Made by: {session.command}"
    if header.device_type == "cpu":
        yield (
            f"These are CPU numbers ({header.device}): they say nothing of a GPU. Peak memory is the weights and what "
            "the process grew by; it keeps what it has had before."
        )
    yield (
        f"{header.device}; σ = {header.sigma:g}; chains of {header.steps} steps, {header.votes} votes. Median "
        "[quartiles] over repetitions after a warm-up, interleaved in rounds within a call and a setting."
    )
    yield from _notes_on_pairing(run, found)
    if run.layouts:
        tried = (f"{one.method} {one.setting} {one.fastest}" for one in run.layouts)
        yield f"Convolutions are laid out as is fastest, by one trial on the device: {', '.join(tried)}."
    yield (
        f"{PUBLISHED}: float32 at the batch size of the method's program. {BEST}: the fastest setting and batch size. "
        f"Seconds and joules of an image follow from throughput, for n0 + n samples with n0 = {session.n0}."
    )
    checked = [f"{row.size.method} {row.image_ratio:.2f}" for row in found if row.image_ratio is not None]
    if checked:
        yield (
            "Whole images were certified; their time over that which follows from throughput: "
            f"{', '.join(dict.fromkeys(checked))}."
        )


def _notes_on_pairing(run: CostRun, found: Sequence[Row]) -> Iterable[str]:
    paired = [(row, row.speedup) for row in found if row.speedup is not None]
    if paired:
        yield "Speedups are paired by round: the median [quartiles] over the rounds in which both were timed."
    if any(speedup.rounds == 0 for _, speedup in paired):
        yield "Unpaired: timed in no common round; the ratio of the medians [of opposite quartiles]."
    fewer = [
        f"{row.size.method} {row.comparison} {speedup.rounds} of {len(row.pair.repetitions)}"
        for row, speedup in paired
        if 0 < speedup.rounds < len(row.pair.repetitions)
    ]
    if fewer:
        yield f"Repetitions that have such a round: {', '.join(fewer)}."
    if run.header.schema_version == FIRST_SCHEMA_VERSION:
        yield (
            "An earlier version made these records. Their repetitions do not name their call and are read as those of "
            f"a single call (the file has {len(run.sessions)}). In batches smaller than a block of noise they lack "
            "most of its drawing; the table of stages has its share."
        )


def _invalid(found: Sequence[Row]) -> Iterable[str]:
    for row in found:
        if row.reasons:
            yield f"INVALID: {row.size.method} {row.comparison}: {'; '.join(row.reasons)}."


def _means(run: CostRun, found: Sequence[Row]) -> Iterable[str]:
    """Return a sentence per comparison on the mean advantage over the purifiers, and what is published of it."""
    for comparison in (PUBLISHED, BEST):
        compared = [row for row in found if row.comparison == comparison]
        if sentence := mean_advantage(compared):
            invalid = [row.size.method for row in compared if row.speedup and row.reasons]
            yield f"{comparison}: {sentence}" + (
                f" INVALID: the rows of {', '.join(invalid)}." if invalid else ""
            )
    if operations := operations_ratio(run):
        yield operations
    for claim in claims(run.header.dataset):
        if claim.quantity.startswith("inference cost"):
            yield f"Published: {claim.quantity}, {claim.value} {claim.unit} ({claim.paper}: {claim.source})."


def mean_advantage(found: Sequence[Row]) -> str | None:
    """Return how many times faster our method is than the purifiers, on the mean of several; None without a side.

    It divides the medians of the speedups relative to REFERENCE, as their column has them; None without REFERENCE too.
    """
    ratios = _over_purifiers({row.size.method: row.speedup.ratio.median for row in found if row.speedup})
    if ratios is None:
        return None
    own, values = ratios
    if len(values) == 1:  # of one there is no mean
        return f"{own} is {format_significant(*values.values())} times as fast as {next(iter(values))}."
    mean = format_significant(sum(values.values()) / len(values))
    geometric = format_significant(math.prod(values.values()) ** (1 / len(values)))
    faster = f"{mean} times as fast as the purifiers on the mean, {geometric} times on the geometric mean"
    return f"{own} is {faster} ({_listed(values)})."


def operations_ratio(run: CostRun) -> str | None:
    """Return how many times the operations of our method the purifiers do for a sample, None as above."""
    ratios = _over_purifiers({size.method: 1 / size.flops for size in run.sizes})
    return ratios and f"Operations of a sample over those of {ratios[0]}: {_listed(ratios[1])}."


def _over_purifiers(values: Mapping[str, float]) -> tuple[str, dict[str, float]] | None:
    """Return our method, and its value over that of each method that denoises first; None where one side is missing."""
    kind = kinds(values)
    own = min(
        (name for name in values if kind[name] == "studied"), default=None
    )  # of two sizes "b" before "s"
    others = [name for name in values if kind[name] == "purifier"]
    return (own, {name: values[own] / values[name] for name in others}) if own and others else None


def _listed(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {format_significant(ratio)}" for name, ratio in ratios.items())


def sweep_table(run: CostRun) -> Table:
    """Return samples per second by batch size, one block per method."""
    timed = pairs(run)
    blocks = []
    for size in run.sizes:
        own = [pair for pair in timed if pair.method == size.method]
        failed = [one for one in run.standing_failures if one.method == size.method]
        lines = [_sweep_cells(pair, "; ".join(reasons(run, timed, pair, None))) for pair in own]
        lines += [
            (
                one.setting,
                str(one.batch_size),
                *[NONE] * 3,
                one.reason,
            )
            for one in failed
        ]
        if lines:
            blocks.append(Block(title=size.method, rows=tuple(lines)))
    return Table(
        caption="Throughput by batch size",
        headers=("setting", "batch size", "samples/s", "peak memory (MiB)", "repetitions", "INVALID because"),
        blocks=tuple(blocks),
        notes=tuple(_notes(run, ()))[:2],
    )


def _sweep_cells(pair: Pair, why: str) -> markup.Row:
    return (
        pair.setting,
        str(pair.batch_size),
        quartile_cell(pair.throughput),
        _cell(pair.peak_memory_bytes, _mebibytes),
        str(len(pair.repetitions)),
        why,
    )


def stage_table(run: CostRun) -> Table:
    """Return the share of each stage in the time of a sample."""
    splits = splits_of_fastest(run)
    names = stage_names(splits)
    lines = []
    for one in splits:
        total = sum(one.stages.values())
        cells = [(format_percent(one.stages[name] / total) if name in one.stages else NONE) for name in names]
        what, milliseconds = f"{one.method}, {one.setting}, {one.batch_size}", 1000 * total / one.batch_size
        lines.append((what, format_significant(milliseconds), *cells))
    return Table(
        caption="Time of a sample by stage (%)",
        headers=("method, setting, batch", "ms per sample", *names),
        blocks=(Block(title="", rows=tuple(lines)),),
        notes=(
            *tuple(_notes(run, ()))[:2],
            "One batch, not compiled, after a warm-up. Host: the rest of the wall time (launching, units, waiting).",
        ),
    )


def write_tables(run: CostRun, folder: Path) -> list[Path]:
    """Write cost, sweep and stages as .csv, .md and .tex, and return their paths.

    Raises:
        RecordsError: nothing was timed.
    """
    files = write(folder, "cost", comparison_frame(run), comparison_table(run), has_latex=True)
    files += write(folder, "sweep", sweep_frame(run), sweep_table(run), has_latex=True)
    if run.splits:
        files += write(folder, "stages", stage_frame(run), stage_table(run), has_latex=True)
    return files
