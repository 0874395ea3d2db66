"""One comparison of methods, of one run or of several: which methods and sigmas, and the tables that say so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.config.labels import DISPLAYED, Labels
from bench.config.levels import written
from bench.config.names import nearest_hint, split_names
from bench.errors import UsageError
from bench.records.columns import Columns, columns_of
from bench.report.comparison import Comparison, compare
from bench.report.markup import Table
from bench.report.tables.accuracy import acr_frame, acr_table, main_table
from bench.report.tables.paired import (
    assured_frame,
    assured_table,
    gap_frame,
    gap_table,
    paired_frame,
    paired_table,
    pairs_of,
)
from bench.report.tables.protocol import with_protocol
from bench.report.tables.variants import variants_frame, variants_of, variants_table
from bench.report.write import remove, write
from bench.types import Run, RunHeader


def compare_runs(
    runs: Sequence[Run],
    *,
    methods: str | None,
    sigmas: str | None,
    has_all: bool = False,
    against: str | None = None,
    out: Path | None,
    chosen: Labels = DISPLAYED,
) -> tuple[list[Table], list[Path], str]:
    """Return the tables of a comparison, the files written to `out` if any, and why nothing was compared, else "".

    The tables are certified accuracy and ACR with their intervals, high-probability accuracy, then the paired
    comparisons and the gaps between training runs where there are any. With `against` they are the means of the
    variants over their training runs instead of the comparisons.

    Args:
        runs: runs that may be compared (see `bench.records.file`).
        methods, sigmas: names and noise levels, separated by commas; None stands for all.
        has_all: compare also different methods of several runs.
        out: folder of the files; None: nothing is written.
        chosen: names in place of the display names.
        against: a variant: runs NAME-0, NAME-1, ... are training runs of NAME, and each NAME is compared with this one.

    Raises:
        UsageError: a method, sigma or variant that no run holds.
        RecordsError, ProtocolError: as `bench.report.comparison.compare` and
            `bench.report.tables.variants.variants_frame`.
    """
    comparison = compare(restricted(runs, methods, sigmas), chosen)
    return compare_all(comparison, has_all=has_all, against=against, out=out)


def compare_all(
    comparison: Comparison, *, has_all: bool = False, against: str | None = None, out: Path | None
) -> tuple[list[Table], list[Path], str]:
    """Return the tables of a comparison, the files and why nothing was compared, as `compare_runs`."""
    assured = assured_frame(comparison)
    frames: dict[str, tuple[pd.DataFrame, Table]] = {
        "assured": (assured, assured_table(assured, comparison.warnings))
    }
    if against is not None:
        variants = variants_frame(comparison, against)
        frames["variants"] = (variants, variants_table(variants, comparison, against))
    else:
        paired = paired_frame(comparison, pairs_of(comparison, has_all=has_all))
        if len(paired):
            frames["paired"] = (paired, paired_table(paired))
    gaps = gap_frame(comparison)
    if len(gaps) and against is None:
        frames["trainings"] = (gaps, gap_table(gaps))
    frames = {name: (frame, comparison.cautioned(table)) for name, (frame, table) in frames.items()}
    files: list[Path] = []
    if out is not None:
        for name, (frame, table) in frames.items():
            files += write(out, name, frame, with_protocol(table, comparison), has_latex=True)
        if against is None:
            remove(out, [name for name in ("paired", "trainings") if name not in frames])
        if against is not None:
            from bench.report.figures.variants import (
                write_variants,
            )  # here, so that tables need no matplotlib

            files += write_variants(comparison, against, out)
    main, radii = main_table(comparison), acr_table(acr_frame(comparison), comparison)
    nothing = "" if {"paired", "trainings"} & frames.keys() else _why_nothing(comparison, against)
    return [main, radii, *(table for _, table in frames.values())], files, nothing


def _why_nothing(comparison: Comparison, against: str | None) -> str:
    """Return one sentence on why a comparison without paired tests compared nothing; "" where variants were."""
    if against is not None:
        if any(len(variants) > 1 for variants in variants_of(comparison, against).values()):
            return ""
        return f"Nothing was compared: {against!r} is the only variant; give runs of another beside it."
    if not pairs_of(comparison):
        held = ", ".join(comparison.labels)
        return f"Nothing was compared: no sigma has two rows ({held}); give several methods, or several runs."
    return "Nothing was compared: every radius of the table is beyond what n samples can certify."


def restricted(runs: Sequence[Run], methods: str | None, sigmas: str | None) -> list[Run]:
    """Return the runs with the methods and sigmas that are asked for, in records and headers."""
    kept_methods = _chosen("method", methods, [name for run in runs for name in run.header.methods])
    levels = [f"{sigma:g}" for run in runs for sigma in run.header.sigmas]
    names = levels if sigmas is None else split_names(sigmas)
    kept_sigmas = {sigma for run in runs for sigma in run.header.sigmas if written(sigma, names)}
    others = [name for name in names if not any(written(sigma, [name]) for sigma in kept_sigmas)]
    _chosen("sigma", ",".join(others) or None, levels)
    return [
        replace(
            run,
            header=replace(
                run.header,
                methods=tuple(name for name in run.header.methods if name in kept_methods),
                sigmas=tuple(sigma for sigma in run.header.sigmas if sigma in kept_sigmas),
                **_of_rows(run.header, kept_methods, kept_sigmas),
            ),
            records=_kept(columns_of(run.records), kept_methods, kept_sigmas),
        )
        for run in runs
    ]


def _of_rows(header: RunHeader, methods: Collection[str], sigmas: Collection[float]) -> dict[str, Any]:
    """Return the fields of a header that are about single rows, with these alone."""
    rows = [(method, f"{sigma:g}") for method in methods for sigma in sigmas]
    found: dict[str, Any] = {
        name: {
            key: value for key, value in getattr(header, name).items() if tuple(key.split("/")[:2]) in rows
        }
        for name in ("unfinished", "weights", "logs")
    }
    return found


def _kept(records: Columns, methods: Collection[str], sigmas: Collection[float]) -> Columns:
    groups = records.groups.items()
    rows = [rows for (method, sigma), rows in groups if method in methods and sigma in sigmas]
    return records.take(np.sort(np.concatenate([np.array([], np.int64), *rows])))


def _chosen(kind: str, text: str | None, held: Sequence[str]) -> set[str]:
    names = held if text is None else split_names(text)
    for name in names:
        if name not in held:
            raise UsageError(
                f"no run here holds {kind} {name!r}; {nearest_hint(name, list(dict.fromkeys(held)))}"
            )
    return set(names)
