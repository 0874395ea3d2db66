"""Methods: `bench train`, `bench list`."""

from __future__ import annotations

from typing import Any

import click

from bench.catalogue import DATASETS
from bench.commands.options import DATA_OPTIONS, command_line, preset_of, resolve


@click.command()
@click.argument("method")
@DATA_OPTIONS
@click.option(
    "--sigma", default="0.5", show_default=True, metavar="FLOAT", help="Noise level in pixel units."
)
@click.option("--max-seconds", type=float, metavar="SECONDS", help="Stop each stage after this time.")
@click.option("--precision", metavar="float32|bfloat16", help="Arithmetic of the forward pass.")
def train(method: str, sigma: str, max_seconds: float | None, precision: str | None, **given: Any) -> None:
    """Train METHOD at one sigma until its held-out accuracy under noise stops rising.

    Repeating an interrupted command continues it.
    """
    if precision is not None:
        given["changes"] = (f"{method}.precision={precision}", *given["changes"])
    config = resolve(preset_of(given["dataset"]), {**given, "methods": method, "sigmas": sigma})
    from bench.display import TrainingDisplay
    from bench.training import train_method

    with TrainingDisplay() as display:
        path = train_method(
            method,
            config.sigmas[0],
            config,
            command=command_line(),
            max_seconds=max_seconds,
            report=lambda progress: display.training(method, config.sigmas[0], progress),
        )
    click.echo(f"{path}")


@click.command(name="list")
@click.argument("what", type=click.Choice(["methods", "datasets", "presets"]))
def list_names(what: str) -> None:
    """List the methods, data sets or presets."""
    from bench.config import list_presets
    from bench.display import name_table
    from bench.registry import methods

    if what == "methods":
        name_table(("method", "what it is"), [(entry.name, entry.summary) for entry in methods().values()])
    elif what == "datasets":
        name_table(("data set", "what it is"), list(DATASETS.items()))
    else:
        rows = [(preset.name, preset.description, preset.cost, preset.expected) for preset in list_presets()]
        name_table(("preset", "what it is", "cost", "expected result"), rows)
