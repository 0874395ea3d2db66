"""Results for programs: JSON values of tables, runs and files, with the field names of the CSV files."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from bench.commands.terminal.streams import holds_all

if TYPE_CHECKING:
    import pandas as pd

    from bench.report.comparison import Comparison
    from bench.report.markup import Table

JSON_OPTION = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of tables and sentences."
)
"""The option of every command whose results a program may read."""


def quiet_option(text: str) -> Callable[..., Any]:
    """Return the option -q of a command that has more than progress and notes to leave out, which `text` tells."""
    return click.option("-q", "--quiet", "is_quiet", is_flag=True, help=text)


RESULTS = "results.json"
"""File of a run's folder that holds its results as one JSON object."""


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as JSON values, column -> value; what is no finite number is null."""
    return [json_value(row) for row in frame.to_dict(orient="records")]


def json_value(value: Any) -> Any:
    """Return a value of a frame or a dataclass as JSON holds it; NaN and infinities are null."""
    if isinstance(value, Mapping):
        return {str(name): json_value(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(one) for one in value]
    if hasattr(value, "item") and not isinstance(value, str):  # a number of numpy
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def table_rows(table: Table) -> list[dict[str, str]]:
    """Return the rows of a table as texts, header -> cell, with the block's title under "block"."""
    from bench.report.markup import as_cell

    return [
        ({"block": block.title} if block.title else {})
        | {header: as_cell(cell).text for header, cell in zip(table.headers, row, strict=True)}
        for block in table.blocks
        for row in block.rows
    ]


def results(comparison: Comparison) -> dict[str, Any]:
    """Return the results of compared runs: who they are, certified accuracy, ACR and cost, unrounded."""
    from bench.report.comparison import run_names
    from bench.report.tables.accuracy import accuracy_frame, acr_frame
    from bench.report.tables.cost import cost_frame

    return {
        "runs": [
            _run(name, run.header)
            for name, run in zip(run_names(comparison.runs), comparison.runs, strict=True)
        ],
        "certified_accuracy": rows(accuracy_frame(comparison).drop(columns=["block", "is_leading"])),
        "acr": rows(acr_frame(comparison)),
        "cost": rows(cost_frame(comparison)),
        "warnings": list(comparison.warnings),
    }


def _run(folder: str, header: Any) -> dict[str, Any]:
    told = ("command", "created", "dataset", "subset", "methods", "sigmas", "precision", "device_type")
    values = {name: getattr(header, name) for name in told} | vars(header.protocol)
    return {"folder": folder, "images": len(header.indices)} | json_value(values)


def as_text(value: Any, *, is_ascii: bool = False) -> str:
    """Return JSON text that ends with a line break; `is_ascii`: with every other character spelled out."""
    return json.dumps(json_value(value), indent=2, ensure_ascii=is_ascii) + "\n"


def print_json(value: Any) -> None:
    """Print one JSON object to stdout, in ASCII where its encoding lacks characters."""
    click.echo(as_text(value, is_ascii=not holds_all(sys.stdout)), nl=False)


def named(headers: Sequence[str], values: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Return rows of names as JSON values, header -> text."""
    return [dict(zip(headers, row, strict=True)) for row in values]
