"""Measuring speed: `bench cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.commands.options import DATA_OPTIONS, PROTOCOL_OPTIONS, command_line, resolve
from bench.errors import UsageError


@click.command()
@click.option(
    "--certifier", is_flag=True, help="Time the certifier beside the bare network and a plain loop."
)
@click.option(
    "--preset", default="mnist5k", show_default=True, metavar="NAME|FILE.toml", help="Start from this."
)
@DATA_OPTIONS
@click.option("--methods", metavar="A,B,...", help="Methods to time.")
@click.option(
    "--sigma", default="0.5", show_default=True, metavar="FLOAT", help="Noise level in pixel units."
)
@PROTOCOL_OPTIONS
@click.option("--repetitions", type=click.IntRange(1), default=10, show_default=True, help="Rounds.")
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Default: results/certifier/<device>.")
def cost(
    certifier: bool, preset: str, sigma: str, repetitions: int, folder: Path | None, **given: Any
) -> None:
    """Measure what the certifier costs on this machine, for trained methods.

    What methods cost beside each other is measured by `bench run` itself.
    """
    if not certifier:
        raise UsageError("give --certifier; the cost of methods beside each other is measured by `bench run`")
    config = resolve(preset, {**given, "sigmas": sigma})
    from bench import certifier_cost
    from bench.certifying import prepare
    from bench.display import print_table, track
    from bench.hardware import device_name

    setup = prepare(config)
    measured = (certifier_cost.certifier_cost(setup, method, repetitions) for method in config.methods)
    costs = list(track(measured, "certifier", len(config.methods)))
    device = device_name(setup.device)
    table = certifier_cost.cost_table(costs, command_line(), device, config.precision)
    print_table(table)
    written = certifier_cost.write_costs(costs, table, folder or certifier_cost.default_folder(device))
    click.echo(f"Written: {', '.join(map(str, written))}")
