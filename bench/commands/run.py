"""Runs: `bench run`, `status`, `plan`, `merge`."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands.options import (
    ALLOW_OPTION,
    DATA_OPTIONS,
    ENGINE_NAMES,
    ENGINE_OPTIONS,
    METHODS_OPTION,
    PROTOCOL_OPTIONS,
    QUIET_OPTION,
    check_engine,
    command_line,
    make_engine,
    resolve,
    say,
    shared_options,
)
from bench.commands.report import LABEL_OPTIONS
from bench.commands.terminal import machine
from bench.commands.terminal.help import command, completes, preset_names
from bench.commands.terminal.kinds import Real, UserPath, Whole
from bench.commands.terminal.machine import JSON_OPTION, quiet_option
from bench.config.names import STANDARD_IMAGES
from bench.errors import DataError, UsageError, typed

if TYPE_CHECKING:
    from bench.config.labels import Labels
    from bench.config.run import RunConfig
    from bench.records.shards import Shard
    from bench.runs.progress import Estimate
    from bench.runs.workbench import Entrants
    from bench.types import RunHeader


RUN_OPTIONS = shared_options(
    click.option(
        "--preset",
        default="mnist5k",
        show_default=True,
        metavar="NAME|FILE.toml",
        help="Preset to start from; every other option overrides it.",
        shell_complete=completes(preset_names),
    ),
    DATA_OPTIONS,
    METHODS_OPTION,
    click.option("--sigmas", "--sigma", "sigmas", metavar="X,Y,...", help="Noise levels in pixel units."),
    PROTOCOL_OPTIONS,
    ALLOW_OPTION,
)


@command(short_help="Certify every method, measure cost, write tables")
@RUN_OPTIONS
@click.option(
    "--subset",
    metavar="SUBSET",
    help="Images to certify: standard (the published ones), balanced, file:PATH with one test index per line, or auto: "
    "standard where the data set has it, else balanced.",
    shell_complete=completes("auto|standard|balanced|file:"),
)
@click.option("--limit", "--max", "limit", metavar="INT", help="Number of images, counted along the subset.")
@click.option("--skip", metavar="INT", help="Images of the subset to skip at its start.")
@click.option(
    "--radii",
    metavar="X,Y,...",
    help="Radii of the columns of the tables. Default: the preset's, or steps up to the largest certifiable radius.",
)
@click.option("--cost-repetitions", metavar="INT", help="Repetitions of the cost measurement; 0 omits it.")
@LABEL_OPTIONS
@click.option("--out", metavar="DIR", help="Folder of the run. Default: results/runs/<preset>-<digest>.")
@ENGINE_OPTIONS
@click.option("--shard", metavar="i/k", help="Certify every k-th image only; `bench merge` joins the shards.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the configuration, the number of certificates, the runtime and missing checkpoints; run nothing.",
)
@QUIET_OPTION
@JSON_OPTION
def run(preset: str, shard: str | None, dry_run: bool, is_quiet: bool, as_json: bool, **given: Any) -> None:
    """Certify images with every method at every sigma, measure inference cost, and write tables and figures.

    An interrupted run continues when the command is repeated. SIGTERM ends it after the current image (on a GPU:
    the current group of images) with exit code 143.
    """
    from bench.config.labels import read_labels
    from bench.records.shards import parse_shard

    engine_options = {name: given.pop(name) for name in ENGINE_NAMES}
    labels = read_labels(given.pop("labels"), given.pop("dataset_label"))
    config = resolve(preset, given)
    part = None if shard is None else parse_shard(shard)
    _check_labels(labels, config, shard)
    if dry_run:
        check_engine(config, **engine_options)
        _dry_run(config, part, as_json)
        if given["radii"] is None:
            _say_radii(config, preset)
        return
    from bench.commands.printing import report_runs
    from bench.commands.progress import RunBars
    from bench.runs import runner
    from bench.runs.termination import Termination

    engine = make_engine(config, **engine_options)
    display = RunBars(config, is_shown=not is_quiet, measures_first=engine_options["engine"] != "ray")
    with Termination() as termination, display:
        header, folder = runner.run(
            config,
            command=command_line(),
            observer=display,
            engine=engine,
            shard=part,
            held=termination.held,
        )
    if given["radii"] is None and not is_quiet:
        _say_radii(header, preset)
    if part is None:
        report_runs([folder], folder, as_json=as_json, is_quiet=is_quiet, labels=labels)
    else:
        _say_shard(folder, part, as_json=as_json, is_quiet=is_quiet)


def _say_shard(folder: Path, part: Shard, *, as_json: bool, is_quiet: bool) -> None:
    """Print where the certificates of a shard are, and the command that joins it with the others."""
    file, following = folder / part.file_name, f"bench merge {typed(folder)}"
    if as_json:
        values = {"folder": str(folder), "file": str(file), "shard": str(part), "next": following}
        machine.print_json(values)
        return
    say(file)
    if not is_quiet:
        say(f"When all {part.count} shards are done: {following}")


def _say_radii(made: RunConfig | RunHeader, preset: str) -> None:
    """Say which radii the tables have where they were chosen, for a command that names none."""
    from bench.config.radii import chosen_radii, radii_sentence
    from bench.config.run import load_preset

    if made.radii == chosen_radii(made, made.sigmas) != load_preset(preset).radii:
        say(f"note: {radii_sentence(made, made.sigmas)}", err=True)


def _check_labels(labels: Labels, config: RunConfig, shard: str | None) -> None:
    """Refuse, before anything is computed, names that the tables of the run could not bear.

    Raises:
        UsageError: as `Labels.of_methods`, over the methods of the command and of its folder; or a shard is certified,
            which has no table.
    """
    from bench.records.file import FILE_NAME
    from bench.runs.runner import known_batch_sizes, run_folder

    if shard is not None and (labels.methods or labels.dataset):
        raise UsageError("--label names rows of tables, and a shard has none: give it to `bench merge`")
    if labels.methods:
        labels.of_methods([*config.methods, *known_batch_sizes(run_folder(config) / FILE_NAME)])


def _dry_run(config: RunConfig, part: Shard | None, as_json: bool) -> None:
    """Print what a run would do: its configuration, how much, how long here, and which checkpoints are missing.

    Raises:
        BenchError: the run would refuse its folder, or a shard a checkpoint; in the same words.
    """
    from bench.commands.printing import print_sentence
    from bench.config.run import to_json
    from bench.records.shards import check_folder
    from bench.runs.runner import run_folder

    values = to_json(replace(config, out=run_folder(config)))
    check_folder(run_folder(config), part)
    more, estimate = _checkpoints(config, part)
    if as_json:
        told = {} if estimate is None else dataclasses.asdict(estimate)
        machine.print_json({"config": values, **more, "estimate": told})
        return
    options = values.pop("options")
    of_methods = {
        f"{name}.{key}": one for name in config.methods for key, one in options.get(name, {}).items()
    }
    for key, value in (values | of_methods | more).items():
        shown = ",".join(map(str, value)) if isinstance(value, list) else value
        print_sentence(f"{key} = {shown}")
    if estimate is not None:
        from bench.commands.progress import estimate_lines, missing_lines

        for line in (*estimate_lines(config, estimate), *missing_lines(estimate.missing)):
            say(line)


def _checkpoints(config: RunConfig, part: Shard | None) -> tuple[dict[str, str], Estimate | None]:
    """Return which checkpoints are missing or of stopped trainings, and the estimate; None without the data."""
    from bench.data.sets import task_of
    from bench.methods import zoo
    from bench.runs.workbench import enter_with

    zoo.check(config.zoo)
    if (task := task_of(config)) is None:
        return {"missing": f"unknown: the data set {config.dataset} is not there yet"}, None
    made = enter_with(config, task, note=lambda text: say(f"note: {text}", err=True))
    entrants = list(made.values())
    for one in entrants if part is not None else ():  # a shard trains nothing
        one.required(config.allow)
    missing = [f"{one.key} ({one.file_name})" for one in entrants if one.is_missing]
    stopped = [f"{key} (after {steps})" for one in entrants for key, steps in one.unfinished().items()]
    found = {"missing": ", ".join(missing) or "none"}
    if missing:
        found["trained_into"] = str(zoo.writable(config.zoo, config.dataset))
    if stopped:
        found["unfinished"] = ", ".join(stopped)
    return found, _estimate(config, part, made)


def _estimate(config: RunConfig, part: Shard | None, entrants: Entrants) -> Estimate | None:
    """Return what a run makes and how long that takes here; None where its data cannot be read without a download."""
    from bench.data.sets import load_split
    from bench.runs import runner
    from bench.runs.workbench import prepare

    at_hand = replace(config, download=False)
    try:
        load_split(at_hand, "test")
    except DataError as error:
        say(f"note: no estimate of the runtime: {error}", err=True)
        return None
    setup, folder = prepare(at_hand), runner.run_folder(config)
    runner.check_begun(setup, folder, part)
    return runner.estimate(setup, entrants, folder, part)


@command(short_help="What is done, what is left, and how long it takes")
@click.argument("run", type=UserPath())
@quiet_option("Print the table only.")
@JSON_OPTION
def status(run: Path, is_quiet: bool, as_json: bool) -> None:
    """Show which certificates of RUN (complete or in shards) are done, which are left, and the time left."""
    from bench.commands.printing import print_sentence, print_table
    from bench.commands.terminal.status import status_of
    from bench.records.shards import read_status, what_to_do

    done, lacks = read_status(run)
    table, sentences = status_of(done, what_to_do(done, lacks))
    if as_json:
        machine.print_json({"folder": str(run), "curves": machine.table_rows(table), "sentences": sentences})
        return
    print_table(table)
    if not is_quiet:
        measured, left = sentences
        print_sentence(measured)
        say(left)  # it may hold a command, which is one line


@command(short_help="Estimate radii, intervals, runtime and memory")
@RUN_OPTIONS
@click.option("--images", type=Whole(1), metavar="INT", help="Number of images. Default: the preset's.")
@click.option(
    "--radius",
    type=Real(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Target radius for the estimate of n.",
)
@click.option("--workers", type=Whole(1), default=1, show_default=True, help="Number of processes.")
@QUIET_OPTION
@JSON_OPTION
def plan(preset: str, images: int | None, radius: float, workers: int, as_json: bool, **given: Any) -> None:
    """Estimate a run: largest certifiable radius, interval width, samples, runtime and memory.

    The estimate certifies a few images with few samples on this machine and writes no file.
    """
    is_quiet = given.pop("is_quiet")
    config = resolve(preset, given)
    from bench.commands.printing import print_sentence, print_table
    from bench.commands.progress import track
    from bench.report.tables.protocol import BETWEEN_RADII
    from bench.runs import forecast
    from bench.runs.workbench import choose_batch_sizes, enter_all, prepare

    told: list[str] = []

    def say_protocol(count: int) -> None:
        for sentence in forecast.protocol_sentences(config.n, config.alpha, config.sigmas, count, radius):
            told.append(sentence)
            if not as_json:
                print_sentence(sentence)

    try:
        setup = replace(prepare(config), note=lambda text: say(f"note: {text}", err=True))
    except DataError:  # what n can certify needs no data
        say_protocol(images or config.limit or STANDARD_IMAGES)
        raise
    count = images or len(setup.indices)
    say_protocol(count)
    entrants = enter_all(setup)
    sizes = choose_batch_sizes(setup, entrants.values())
    first = (entrants[method, config.sigmas[0]] for method in config.methods)
    measured = (forecast.measure_entrant(setup, one, sizes[one.method]) for one in first)
    timings = list(track(measured, "measuring", len(config.methods), is_shown=not is_quiet))
    table = forecast.time_table(
        timings, images=count, sigmas=len(config.sigmas), samples=config.n0 + config.n, workers=workers
    )
    if as_json:
        machine.print_json(
            {"images": count, "sentences": told, "timings": list(map(dataclasses.asdict, timings))}
            | {"predicted": machine.table_rows(table)}
        )
        return
    print_table(table, has_notes=not is_quiet)
    if is_quiet:
        return
    if config.estimation != "fixed":
        say(f"With {config.estimation} estimation a run takes at most this.")
    if config.estimation == "sequential":
        say(BETWEEN_RADII)
    for method in config.methods:
        missing = [f"{s:g}" for s in config.sigmas if entrants[method, s].is_missing]
        if missing:
            say(f"Still to be trained: {method} at sigma {', '.join(missing)}.")


@command(short_help="Join the shards of a run")
@click.argument("run", type=UserPath())
@LABEL_OPTIONS
def merge(run: Path, labels: tuple[str, ...], dataset_label: str | None) -> None:
    """Join the shards of RUN, a folder written by `bench run --shard i/k`, and write its tables and figures.

    Every certificate must be there exactly once. The files of the shards are kept.
    """
    from bench.commands.printing import report_runs
    from bench.config.labels import read_labels
    from bench.records.shards import merge as join

    named = read_labels(labels, dataset_label)
    joined = join(run)
    say(f"{len(joined.records)} certificates joined in {run}")
    report_runs([run], run, labels=named)
