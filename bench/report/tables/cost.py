"""Measured costs and certificate timings -> one DataFrame and its two printed tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from bench.records.columns import Columns
from bench.report.comparison import Comparison, MeasuredCost, Named
from bench.report.markup import BRACKETS, Block, Cell, Row, Table, format_significant
from bench.report.rates import REFERENCE, Quartiles, samples_per_second, seconds_per_certificate

SPEEDUP = f"speedup_relative_to_{REFERENCE}"
_PERCENTILES = (50, 90, 95, 99)
_COUNTS = (
    "parameters",
    "batch_size",
    "repetitions",
    "samples_per_certificate",
    "peak_memory_bytes",
    "certificates",
)


def cost_frame(comparison: Comparison) -> pd.DataFrame:
    """Return costs, one row per run, method and sigma that has certificates or a measured cost, unrounded.

    Columns: label, run, method, sigma; device, batch_size, repetitions, parameters, samples_per_certificate
    (n0 + n), peak_memory_bytes, and as `_first_quartile`, `_median`, `_third_quartile` over the repetitions
    samples_per_second, seconds_per_certificate and, where REFERENCE was measured, SPEEDUP; then
    of the real seconds of the certificates their count (certificates), seconds_mean, seconds_p50 to
    seconds_p99, which are missing for logs without times. What was not measured is missing.
    """
    named: dict[tuple[int, str, float], Named] = {}
    rows: dict[tuple[int, str, float], dict[str, Any]] = {}
    for measured in comparison.costs:
        named[_key(measured)] = measured
        rows.setdefault(_key(measured), {}).update(_cost_columns(measured))
    for entry in comparison.everything:
        named[_key(entry)] = entry
        rows.setdefault(_key(entry), {}).update(_latency_columns(entry.columns))
    labels = list(dict.fromkeys([*comparison.labels, *(one.label for one in comparison.costs)]))
    order = sorted(named, key=lambda key: (named[key].sigma, labels.index(named[key].label)))
    frame = pd.DataFrame([_names(named[key]) | rows[key] for key in order])
    return frame.astype({column: "Int64" for column in _COUNTS if column in frame})


def cost_tables(frame: pd.DataFrame, comparison: Comparison) -> tuple[Table, ...]:
    """Return the printed tables of a `cost_frame`: measured cost, if any, and seconds per certificate."""
    reference = comparison.name_of(REFERENCE)
    latency = Table(
        caption="Wall time of the certificates as they were made (seconds)",
        headers=("method", "certificates", "mean", *(f"p{percentile}" for percentile in _PERCENTILES)),
        blocks=_blocks(frame[frame["certificates"].notna()], _latency_rows),
        notes=()
        if "device" in frame
        else ("No inference cost was measured in these runs, so no speedup either.",),
    )
    if "device" not in frame:
        return (latency,)
    has_memory = all(run.header.device_type == "cuda" for run in comparison.runs if run.costs)
    return _throughput_table(frame, reference, has_memory), latency


def _throughput_table(frame: pd.DataFrame, reference: str, has_memory: bool) -> Table:
    has_speedup = f"{SPEEDUP}_median" in frame
    headers = [
        "method",
        "parameters",
        "samples/s",
        "samples per image (n0 + n)",
        "seconds per certified image",
    ]
    notes = [
        "Median over interleaved repetitions after a warm-up, all on one device in one run."
        if frame["run"].nunique() == 1
        else "Median over repetitions after a warm-up, interleaved within a run; times of different runs are not.",
        f"{BRACKETS}quartiles over the repetitions.",
    ]
    if has_speedup:
        headers.append(f"speedup relative to {reference}")
        notes.append(f"Speedup: throughput over that of {reference} at the same σ, paired by repetition.")
    else:
        notes.append(
            f"No speedup column: it is relative to {reference}, which was not measured in these runs."
        )
    if has_memory:
        notes.append("Peak memory: that of tensors on the GPU.")
    measured = frame[frame["device"].notna()]
    notes.append(f"Measured on {', '.join(measured['device'].unique())}.")
    return Table(
        caption="Inference cost",
        headers=(*headers, *(["peak memory (MiB)"] if has_memory else []), "repetitions"),
        blocks=_blocks(measured, lambda part: _throughput_rows(part, has_speedup, has_memory)),
        notes=tuple(notes),
    )


def _throughput_rows(part: pd.DataFrame, has_speedup: bool, has_memory: bool) -> Iterable[Row]:
    for _, row in part.iterrows():
        memory = row["peak_memory_bytes"]
        yield (
            row["label"],
            f"{row['parameters']:,}",
            _cell_of(row, "samples_per_second"),
            f"{row['samples_per_certificate']:,}",
            _cell_of(row, "seconds_per_certificate"),
            *([_cell_of(row, SPEEDUP)] if has_speedup else []),
            *(["–" if pd.isna(memory) else f"{memory / 2**20:,.0f}"] if has_memory else []),
            str(row["repetitions"]),
        )


def _latency_rows(part: pd.DataFrame) -> Iterable[Row]:
    for _, row in part.iterrows():
        seconds = ["seconds_mean", *(f"seconds_p{percentile}" for percentile in _PERCENTILES)]
        yield (
            row["label"],
            str(row["certificates"]),
            *("–" if pd.isna(row[column]) else format_significant(row[column]) for column in seconds),
        )


def quartile_cell(value: Quartiles | None) -> Cell:
    """Return a median with its quartiles, or – for None."""
    if value is None:
        return Cell(text="–")
    first, median, third = map(format_significant, (value.first, value.median, value.third))
    return Cell(text=median, interval=(first, third))


def quartile_columns(name: str, value: Quartiles | None) -> dict[str, float | None]:
    """Return the columns of a value in a frame: `_first_quartile`, `_median` and `_third_quartile` behind its name."""
    parts = (None, None, None) if value is None else (value.first, value.median, value.third)
    suffixes = ("first_quartile", "median", "third_quartile")
    return {f"{name}_{suffix}": part for suffix, part in zip(suffixes, parts, strict=True)}


def _cell_of(row: Any, name: str) -> Cell:
    """Return the cell of a row's three columns of `quartile_columns`."""
    first, median, third = (row[column] for column in quartile_columns(name, None))
    return quartile_cell(None if pd.isna(median) else Quartiles(first=first, median=median, third=third))


def _blocks(frame: pd.DataFrame, make_rows: Callable[[pd.DataFrame], Iterable[Row]]) -> tuple[Block, ...]:
    parts = frame.groupby("sigma", sort=False)
    return tuple(Block(title=f"σ = {sigma:g}", rows=tuple(make_rows(part))) for sigma, part in parts)


def _cost_columns(measured: MeasuredCost) -> dict[str, Any]:
    cost = measured.cost
    columns = {
        "device": cost.device,
        "batch_size": cost.batch_size,
        "repetitions": len(cost.repetition_seconds),
        "parameters": cost.parameters,
        "samples_per_certificate": cost.samples_per_certificate,
        "peak_memory_bytes": cost.peak_memory_bytes,
    }
    columns |= quartile_columns("samples_per_second", samples_per_second(cost))
    columns |= quartile_columns("seconds_per_certificate", seconds_per_certificate(cost))
    if measured.speedup is not None:
        columns |= quartile_columns(SPEEDUP, measured.speedup)
    return columns


def _latency_columns(records: Columns) -> dict[str, float]:
    seconds = records.seconds if records.seconds.any() else np.full(len(records), np.nan)
    percentiles = np.percentile(seconds, _PERCENTILES).tolist()
    return {"certificates": len(seconds), "seconds_mean": float(seconds.mean())} | {
        f"seconds_p{percentile}": value for percentile, value in zip(_PERCENTILES, percentiles, strict=True)
    }


def _key(one: Named) -> tuple[int, str, float]:
    return one.run_number, one.method, one.sigma


def _names(one: Named) -> dict[str, Any]:
    return {"label": one.label, "run": one.run, "method": one.method, "sigma": one.sigma}
