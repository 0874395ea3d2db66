"""Runs too large for one process: `bench plan`, `bench merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.commands.options import DATA_OPTIONS, PROTOCOL_OPTIONS, resolve
from bench.commands.report import report_runs


@click.command()
@click.option(
    "--preset", default="mnist5k", show_default=True, metavar="NAME|FILE.toml", help="Start from this."
)
@DATA_OPTIONS
@click.option("--methods", metavar="A,B,...", help="Methods to plan for, or 'all'.")
@click.option("--sigmas", "--sigma", "sigmas", metavar="X,Y,...", help="Noise levels in pixel units.")
@PROTOCOL_OPTIONS
@click.option("--images", type=click.IntRange(1), metavar="INT", help="Images; default: the preset's.")
@click.option(
    "--radius", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="Wanted."
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
def plan(preset: str, images: int | None, radius: float, workers: int, **given: Any) -> None:
    """Say what a run would show and take: radii within reach, intervals, samples, hours, memory.

    It certifies a few images with few samples on this machine and writes nothing.
    """
    config = resolve(preset, given)
    from bench.commands.printing import print_table, track
    from bench.runs import forecast
    from bench.runs.workbench import choose_batch_sizes, enter_all, prepare

    setup = prepare(config)
    count = images or len(setup.indices)
    for sentence in forecast.protocol_sentences(config.n, config.alpha, config.sigmas, count, radius):
        click.echo(sentence)
    entrants = enter_all(setup)
    sizes = choose_batch_sizes(setup, entrants.values())
    first = (entrants[method, config.sigmas[0]] for method in config.methods)
    measured = (forecast.measure_entrant(setup, one, sizes[one.method]) for one in first)
    timings = list(track(measured, "measuring", len(config.methods)))
    print_table(
        forecast.time_table(
            timings, images=count, sigmas=len(config.sigmas), samples=config.n0 + config.n, workers=workers
        )
    )
    if config.estimation != "fixed":
        click.echo(f"With {config.estimation} estimation a run takes at most this.")
    for method in config.methods:
        missing = [f"{s:g}" for s in config.sigmas if entrants[method, s].is_missing]
        if missing:
            click.echo(f"Still to be trained: {method} at sigma {', '.join(missing)}.")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def merge(run: Path) -> None:
    """Join the shards of RUN, a folder that `bench run --shard i/k` wrote to, and make its tables and figures.

    Nothing may be missing and nothing there twice; the shards' files stay.
    """
    from bench.records.shards import merge as join

    joined = join(run)
    click.echo(f"{len(joined.records)} certificates joined in {run}")
    report_runs([run], run, ())
