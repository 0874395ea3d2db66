"""Runs: `bench run`, `status`, `plan`, `merge`."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands.options import (
    ALLOW_OPTION,
    DATA_OPTIONS,
    ENGINE_NAMES,
    ENGINE_OPTIONS,
    PROTOCOL_OPTIONS,
    Real,
    Whole,
    command_line,
    make_engine,
    resolve,
    say,
    shared_options,
)
from bench.config.names import STANDARD_IMAGES
from bench.errors import DataError

if TYPE_CHECKING:
    from bench.config.run import RunConfig
    from bench.report.markup import Table
    from bench.types import Run


RUN_OPTIONS = shared_options(
    click.option(
        "--preset", default="mnist5k", show_default=True, metavar="NAME|FILE.toml", help="Start from this."
    ),
    DATA_OPTIONS,
    click.option(
        "--methods", metavar="A,B,...", help="Methods to compare, MODULE:FUNCTION of your own, or 'all'."
    ),
    click.option("--sigmas", "--sigma", "sigmas", metavar="X,Y,...", help="Noise levels in pixel units."),
    PROTOCOL_OPTIONS,
    ALLOW_OPTION,
)


@click.command()
@RUN_OPTIONS
@click.option("--subset", metavar="SUBSET", help="standard, balanced or file:PATH.")
@click.option("--limit", "--max", "limit", metavar="INT", help="Number of images of the subset.")
@click.option("--skip", metavar="INT", help="Images of the subset to leave out at its start.")
@click.option("--radii", metavar="X,Y,...", help="Radii of the tables' columns.")
@click.option(
    "--cost-repetitions", metavar="INT", help="Repetitions of the cost measurement; 0 leaves it out."
)
@click.option("--out", metavar="DIR", help="The run's folder.")
@ENGINE_OPTIONS
@click.option("--shard", metavar="i/k", help="Certify every k-th image only; then `bench merge` joins.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the resolved configuration, and which checkpoints are missing.",
)
def run(preset: str, shard: str | None, dry_run: bool, **given: Any) -> None:
    """Certify images with every method at every sigma, measure the cost, write tables and figures.

    Repeating an interrupted command continues it; SIGTERM ends it after the image in hand (a group of
    images on a GPU), with exit code 143.
    """
    from bench.records.shards import parse_shard

    engine_options = {name: given.pop(name) for name in ENGINE_NAMES}
    config = resolve(preset, given)
    part = None if shard is None else parse_shard(shard)
    if dry_run:
        _print_config(config)
        _print_checkpoints(config)
        return
    from bench.commands.printing import report_runs
    from bench.commands.progress import RunBars
    from bench.runs import runner
    from bench.runs.termination import Termination

    engine = make_engine(config, **engine_options)
    with Termination() as termination, RunBars(config) as display:
        _, folder = runner.run(
            config,
            command=command_line(),
            observer=display,
            engine=engine,
            shard=part,
            held=termination.held,
        )
    if part is None:
        report_runs([folder], folder)
    else:
        say(folder / part.file_name)
        say(f"When all {part.count} shards are done: bench merge {folder}")


def _print_config(config: RunConfig) -> None:
    from bench.config.run import to_json
    from bench.runs.runner import run_folder

    for key, value in to_json(replace(config, out=run_folder(config))).items():
        shown = ",".join(map(str, value)) if isinstance(value, list) else value
        say(f"{key} = {shown}")


def _print_checkpoints(config: RunConfig) -> None:
    """Print which checkpoints are missing, and would be trained first, and which are of stopped trainings."""
    from bench.data.sets import task_of
    from bench.methods import zoo
    from bench.runs.workbench import enter_with

    zoo.check(config.zoo)
    if (task := task_of(config)) is None:
        say(f"missing = unknown: the data set {config.dataset} is not there yet")
        return
    made = enter_with(config, task, note=lambda text: say(f"note: {text}", err=True))
    entrants = list(made.values())
    missing = [f"{one.key} ({one.file_name})" for one in entrants if one.is_missing]
    stopped = [f"{key} (after {steps})" for one in entrants for key, steps in one.unfinished().items()]
    say(f"missing = {', '.join(missing) or 'none'}")
    if missing:
        say(f"trained_into = {zoo.writable(config.zoo, config.dataset)}")
    if stopped:
        say(f"unfinished = {', '.join(stopped)}")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def status(run: Path) -> None:
    """Say what of RUN, whole or in shards, is done, what is left and how long that will take."""
    from bench.commands.printing import print_table
    from bench.records.shards import read_status, what_to_do

    done, lacks = read_status(run)
    table, sentences = status_of(done, what_to_do(run, lacks))
    print_table(table)
    for sentence in sentences:
        say(sentence)


def status_of(run: Run, what_to_do: str) -> tuple[Table, tuple[str, str]]:
    """Return, for each method and sigma, the images done and left and the time left by the records; then in all.

    Args:
        what_to_do: how to finish it; "": by repeating the command of its header.
    """
    from bench.commands.printing import duration
    from bench.report.markup import Block, Table

    header, rows, left_in_all, seconds_in_all = run.header, [], 0, 0.0
    for sigma in header.sigmas:
        for method in header.methods:
            of_method = [record for record in run.records if record.method == method]
            done = [record for record in of_method if record.sigma == sigma]
            left = len(header.indices) - len(done)
            seconds = statistics.median(one.seconds for one in done or of_method) if of_method else None
            left_in_all += left
            seconds_in_all += left * (seconds or 0.0)
            numbers = map(str, (len(done), left, sum(record.is_correct for record in done)))
            times = ("unknown",) * 2 if seconds is None else (f"{seconds:.3g}", duration(left * seconds))
            rows.append((method, f"{sigma:g}", *numbers, *times))
    measured = sorted({measured.method for measured in run.costs})
    end = f"; {what_to_do}." if what_to_do else "."
    if left_in_all:
        end = f"; {what_to_do or f'continue with: {header.command}'}"
    return (
        Table(
            caption=str(run.folder),
            headers=("method", "sigma", "done", "left", "certified", "seconds per image", "time left"),
            blocks=(Block(rows=tuple(rows)),),
        ),
        (
            f"Costs measured: {', '.join(measured) or 'none yet'}.",
            f"{left_in_all} images left, about {duration(seconds_in_all)}{end}"
            if left_in_all
            else f"All images are certified{end}",
        ),
    )


@click.command()
@RUN_OPTIONS
@click.option("--images", type=Whole(1), metavar="INT", help="Images; default: the preset's.")
@click.option("--radius", type=Real(0, min_open=True), default=1.0, show_default=True, help="Wanted.")
@click.option("--workers", type=Whole(1), default=1, show_default=True, help="Processes.")
def plan(preset: str, images: int | None, radius: float, workers: int, **given: Any) -> None:
    """Say what a run would show and take: radii within reach, intervals, samples, hours, memory.

    It certifies a few images with few samples on this machine and writes nothing.
    """
    config = resolve(preset, given)
    from bench.commands.printing import print_table
    from bench.commands.progress import track
    from bench.report.tables.accuracy import BETWEEN_RADII
    from bench.runs import forecast
    from bench.runs.workbench import choose_batch_sizes, enter_all, prepare

    def say_protocol(count: int) -> None:
        for sentence in forecast.protocol_sentences(config.n, config.alpha, config.sigmas, count, radius):
            say(sentence)

    try:
        setup = prepare(config)
    except DataError:  # what n can certify needs no data
        say_protocol(images or config.limit or STANDARD_IMAGES)
        raise
    count = images or len(setup.indices)
    say_protocol(count)
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
        say(f"With {config.estimation} estimation a run takes at most this.")
    if config.estimation == "sequential":
        say(BETWEEN_RADII)
    for method in config.methods:
        missing = [f"{s:g}" for s in config.sigmas if entrants[method, s].is_missing]
        if missing:
            say(f"Still to be trained: {method} at sigma {', '.join(missing)}.")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def merge(run: Path) -> None:
    """Join the shards of RUN, a folder that `bench run --shard i/k` wrote to, and make its tables and figures.

    Nothing may be missing and nothing there twice; the shards' files stay.
    """
    from bench.commands.printing import report_runs
    from bench.records.shards import merge as join

    joined = join(run)
    say(f"{len(joined.records)} certificates joined in {run}")
    report_runs([run], run)
