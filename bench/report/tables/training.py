"""What the rows of a comparison took to train -> columns, one DataFrame and its printed table.

The numbers are those of the runs' headers, so that no checkpoint is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from bench.report.comparison import Comparison, Entry
from bench.report.markup import Block, Row, Table

SUMS = ("images_seen", "forward_equivalents", "seconds", "shared")
"""Numbers that are added up over the files that a row is built from."""

COLUMNS = {
    "parameters": "parameters",
    "images_seen": "training_images",
    "forward_equivalents": "training_forward_passes",
    "seconds": "training_seconds",
    "shared": "training_forward_passes_shared",
    "training_runs": "training_runs",
}
"""Name in a header -> column of a CSV file."""

NOTES = (
    "Training images: repetitions counted. Forward passes: of the network that is trained, on one image; a gradient "
    "counts as two more. Both, and the seconds, include what the checkpoint starts from, such as a pre-training, which "
    "may serve every σ; seconds are of the hardware that trained it.",
    "Runs: independent training runs behind the row. –: the run or a checkpoint does not tell.",
)

REFERRED = "What each row took to train, and its parameters: the table Training (training.md)."
"""Note of the tables whose rows it is about."""


def training_of(entry: Entry) -> dict[str, int | float | None]:
    """Return what an entry took to train, all files that it is built from included; None: not all of them tell."""
    header, key = entry.header, f"{entry.method}/{entry.sigma:g}"
    files = [header.training.get(name, {}) for name in _names(entry)]

    def told(name: str) -> list[int | float]:
        values = [one[name] for one in files if name in one]
        return values if len(values) == len(files) else []

    sums = {name: sum(told(name)) if told(name) else None for name in SUMS}
    runs = min(told("training_runs"), default=None)
    return {"parameters": header.training.get(key, {}).get("parameters"), **sums, "training_runs": runs}


def _names(entry: Entry) -> list[str]:
    """Return the keys of the header for the files that an entry is built from."""
    key = f"{entry.method}/{entry.sigma:g}"
    return [name for name in entry.header.checkpoints if name == key or name.startswith(f"{key}/")]


def forward_passes(entries: Sequence[Entry]) -> float | None:
    """Return the forward passes that several entries took to train; None: not all of their files tell.

    A file that serves several of them counts once, and so does what their files share, such as a pre-training.
    """
    took = {
        one.header.checkpoints[name]: one.header.training.get(name, {})
        for one in entries
        for name in _names(one)
    }
    totals = [one.get("forward_equivalents") for one in took.values()]
    if not totals or None in totals:
        return None
    shared = [one.get("shared", 0) for one in took.values()]
    return sum(filter(None, totals)) - sum(shared) + sum(set(shared))


def has_training(comparison: Comparison) -> bool:
    """Return whether a header of the runs says anything of the training of its methods."""
    return any(run.header.training for run in comparison.runs)


def training_columns(entry: Entry) -> dict[str, int | float | None]:
    """Return `training_of` by the names that the columns of CSV files have."""
    return {COLUMNS[name]: value for name, value in training_of(entry).items()}


def training_frame(comparison: Comparison) -> pd.DataFrame:
    """Return what each row took to train, one row per (sigma, label), unrounded.

    Columns: label, run, method, sigma, parameters (of the whole method), training_images, training_forward_passes,
    training_seconds, training_forward_passes_shared (those that serve other checkpoints too), training_runs.
    """
    rows = [
        {"label": one.label, "run": one.run, "method": one.method, "sigma": one.sigma} | training_columns(one)
        for one in comparison.entries
    ]
    return typed(pd.DataFrame(rows))


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with `COLUMNS`, or without, as counts and seconds that may be missing."""
    kinds = {column: "Float64" if name == "seconds" else "Int64" for name, column in COLUMNS.items()}
    return frame.astype({column: kind for column, kind in kinds.items() if column in frame})


def training_table(comparison: Comparison) -> Table:
    """Return the printed table of what each row took to train: a row per label, a block per sigma."""
    return Table(
        caption="Training: parameters of the whole method, and what its checkpoints took",
        headers=("method", "parameters", "images", "forward passes", "seconds", "runs"),
        blocks=tuple(_blocks(comparison)),
        notes=NOTES,
    )


def _blocks(comparison: Comparison) -> Iterator[Block]:
    for sigma in comparison.sigmas:
        rows = tuple(_row(entry) for entry in comparison.at_sigma(sigma))
        yield Block(title=f"σ = {sigma:g}", rows=rows)


def _row(entry: Entry) -> Row:
    took: dict[str, Any] = training_of(entry)
    names = ("parameters", "images_seen", "forward_equivalents", "seconds", "training_runs")
    return (entry.label, *map(written, map(took.get, names)))


def written(value: int | float | None) -> str:
    """Return a count or a number of seconds in whole units, thousands separated; – for None."""
    return "–" if value is None else f"{value:,.0f}"
