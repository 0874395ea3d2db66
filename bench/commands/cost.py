"""Measuring speed: `bench cost`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bench.commands.options import DATA_OPTIONS, PROTOCOL_OPTIONS, QUIET_OPTION, command_line, resolve, say
from bench.commands.report import LABEL_OPTIONS
from bench.commands.terminal import machine
from bench.commands.terminal.help import command, completes, preset_names
from bench.commands.terminal.kinds import Real, UserPath, Whole
from bench.commands.terminal.machine import JSON_OPTION
from bench.cost.presets import COST_PRESETS
from bench.errors import RecordsError, UsageError

if TYPE_CHECKING:
    from bench.config.labels import Labels
    from bench.config.run import RunConfig
    from bench.cost.request import Request
    from bench.report.markup import Table
    from bench.types import Precision


@command(short_help="Throughput, latency, energy and memory of methods")
@click.option(
    "--certifier", is_flag=True, help="Time the certifier against the bare network and a plain loop."
)
@click.option(
    "--preset",
    default="mnist5k",
    show_default=True,
    metavar="NAME|FILE.toml",
    help=f"Sizes to time: {', '.join(COST_PRESETS)}, or a preset of `bench run`.",
    shell_complete=completes(lambda: (*COST_PRESETS, *preset_names())),
)
@DATA_OPTIONS
@click.option("--methods", metavar="A,B,...", help="Methods to time.")
@click.option(
    "--sigma", default="0.5", show_default=True, metavar="FLOAT", help="Noise level in pixel units."
)
@PROTOCOL_OPTIONS
@click.option(
    "--batch-sizes", default="auto", show_default=True, metavar="auto|A,B,...", help="Batch sizes to time."
)
@click.option(
    "--steps", type=Whole(1), default=10, show_default=True, help="Network calls of multi-step methods."
)
@click.option("--votes", type=Whole(1), default=10, show_default=True, help="Votes of densepure.")
@click.option(
    "--repetitions",
    type=Whole(1),
    default=10,
    show_default=True,
    help="Timing repetitions, interleaved between the methods.",
)
@click.option("--max-seconds", type=Real(0, min_open=True), help="Stop cleanly before this time has passed.")
@click.option(
    "--out",
    "folder",
    type=UserPath(),
    help="Folder of the measurements. Default: results/cost/<device>/<preset>.",
)
@click.option(
    "--run",
    "run_folder",
    type=UserPath(),
    help="Compare the speed of the methods of a finished run at equal certified accuracy.",
)
@LABEL_OPTIONS
@click.option(
    "--reference-precision",
    "reference",
    type=click.Choice(["float32", "tf32", "bfloat16"]),
    help="Precision of the plain loop of --certifier. Default: --precision.",
)
@click.option("--report", is_flag=True, help="Only write tables and figures again from the records in --out.")
@QUIET_OPTION
@JSON_OPTION
def cost(**given: Any) -> None:
    """Measure the inference cost of methods on this machine, side by side, with random weights.

    --n and --precision accept several values. An interrupted measurement continues when the command is repeated.

    --run measures nothing: it combines the certificates of a run with its measured cost and compares the speed at equal
    certified accuracy, at every radius of the table. --certifier measures the overhead of the certifier itself, for
    trained methods.
    """
    started = time.perf_counter()  # importing torch is part of the call
    mode, folder = _mode(click.get_current_context()), given["folder"]
    if mode == "certifier":
        _certifier(_run_config(given, _OF_RUNS), given["repetitions"], given["reference"], folder)
    elif mode == "run_folder":
        _equal_accuracy(given["run_folder"], folder or given["run_folder"], _labels(given))
    elif mode == "report":
        if folder is None:
            raise UsageError("--report needs --out DIR, the folder of the records")
        _report(folder)
    else:
        _measure(_request(given), given["max_seconds"], started)


_OF_ALL = ("as_json", "is_quiet")
_PUBLISHED = ("methods", "device", "n", "n0", "precision")
_NETWORKS = ("dataset", "data_dir", "image_size", "backbone", "changes")
_OF_RUNS = (
    *_PUBLISHED,
    *_NETWORKS,
    "geometry",
    "download",
    "seed",
    "zoo",
    "alpha",
    "estimation",
    "bound",
    "batch_size",
    "compile",
)
"""Options that `bench run` has too: with a meaning for presets of published sizes, for its own presets, and all."""

_TAKES: Mapping[str, tuple[str, ...]] = {
    "certifier": ("certifier", "preset", "sigma", "repetitions", "folder", "reference", *_OF_RUNS),
    "run_folder": ("run_folder", "folder", "labels", "dataset_label"),
    "report": ("report", "folder"),
    "": (
        "preset",
        "sigma",
        "repetitions",
        "folder",
        "batch_sizes",
        "steps",
        "votes",
        "max_seconds",
        *_OF_RUNS,
    ),
}
"""The option that chooses a mode -> the options that the mode takes; without any, networks are measured."""


def _mode(context: click.Context) -> str:
    """Return the key in _TAKES of the mode that is chosen.

    Raises:
        UsageError: an option that was given has no meaning in it, or for the preset to measure.
    """
    flags = {str(one.name): one.opts[0] for one in context.command.params}
    given = [
        name
        for name in context.params
        if name not in _OF_ALL and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    mode = next((name for name in _TAKES if name in given), "")
    wrong = [flag for name, flag in flags.items() if name in given and name not in _TAKES[mode]]
    if wrong:
        chosen = flags.get(mode, "bench cost without --run or --certifier")
        raise UsageError(
            f"{chosen} does not take {', '.join(wrong)}: leave {'it' if len(wrong) == 1 else 'them'} out"
        )
    preset = context.params["preset"]
    meant = _PUBLISHED if preset in COST_PRESETS else (*_PUBLISHED, *_NETWORKS)
    for name in given:
        if not mode and name in {*_OF_RUNS} - {*meant}:
            raise UsageError(
                f"{flags[name]} has no meaning for the cost of {preset}; leave it out "
                "(--batch-sizes and --precision choose what is timed)"
            )
    return mode


def _run_config(given: Mapping[str, Any], names: Iterable[str]) -> RunConfig:
    """Return the configuration that `bench run` would have with those of the options."""
    return resolve(given["preset"], {name: given[name] for name in names} | {"sigmas": given["sigma"]})


def _request(given: Mapping[str, Any]) -> Request:
    from bench.config.names import nearest_hint
    from bench.config.run import list_presets
    from bench.cost.request import Request, positive

    preset, sigma = given["preset"], positive(given["sigma"])
    known = [*COST_PRESETS, *(one.name for one in list_presets())]
    if preset not in known and not preset.endswith(".toml"):
        raise UsageError(
            f"unknown preset {preset!r}; {nearest_hint(preset, known)} (a path must end in .toml)"
        )
    config = None if preset in COST_PRESETS else _run_config(given, (*_NETWORKS, "methods", "device"))
    same = ("preset", "batch_sizes", "repetitions", "steps", "votes", "folder", *_PUBLISHED)
    options = {name: given[name] for name in same}
    return Request(config=config, command=command_line(), sigma=sigma, **options)


def _measure(request: Request, max_seconds: float | None, started: float) -> None:
    from bench.commands.printing import duration
    from bench.commands.progress import Bars
    from bench.cost.request import opened
    from bench.smoothing.noise import why_slow

    with opened(request) as measurement:
        left = measurement.left()
        _note(
            f"{len(left)} measurements left, about {duration(measurement.expected_seconds())} on "
            f"{measurement.meters.device}"
        )
        if slow := why_slow(measurement.device):
            _note(slow)
        if measurement.meters.type == "cuda" and measurement.meters.read_load is None:
            _note(NO_NVML)
        if measurement.meters.type == "cpu":
            _note("These are CPU numbers: they say nothing of a GPU.")
        limit, done = _limit(max_seconds), 0
        with Bars(is_shown=not _flag("is_quiet")) as bars:
            bars.show("measured", done=0, total=len(left))
            for done, step in enumerate(measurement.steps(started, limit), 1):
                last = f"{step.method} {step.setting} {step.batch_size} {step.kind}"
                bars.show("measured", done=done, total=max(len(left), done + 1), detail=last)
            still = measurement.left()
            missing, is_unread = len(still), all(step.kind == "energy" for step in still)
            if done:
                bars.show("measured", done=done, total=done + missing)
        if missing and not done and not is_unread:
            raise UsageError(
                f"--max-seconds is {max_seconds:g}, too few for any of the {missing} measurements left: the shortest "
                f"takes about {duration(measurement.shortest())}"
            )
    _report(measurement.folder)
    if missing and is_unread:
        _tell(f"The energy of {missing} settings was not read, or left for want of time: repeat the command.")
    elif missing:
        _tell(f"Stopped after {duration(time.perf_counter() - started)}: repeat the command to continue.")


REPORT_SECONDS = 25.0
"""What a call that may last a minute or more keeps of its time for starting, tables and figures."""

NO_NVML = (
    "Power, clocks and company are not read, so that no measurement will be VALID: pip install 'rrcm-bench[gpu]' "
    "(and a container must let NVML ask)."
)


def _limit(max_seconds: float | None) -> float | None:
    """Return after how many seconds measuring must have ended, None without a limit."""
    if max_seconds is None or max_seconds < 60:
        return max_seconds
    return max_seconds - REPORT_SECONDS


def _report(folder: Path) -> None:
    from bench.cost.figures import write_figures
    from bench.cost.records import check_reportable, read_cost_run
    from bench.cost.tables import short_table, write_tables

    run = read_cost_run(folder)
    check_reportable(run)
    written = write_tables(run, folder) + write_figures(run, folder)
    _print(short_table(run))
    _tell(f"Results: {folder} ({len(written)} files)")


def _labels(given: Mapping[str, Any]) -> Labels:
    from bench.config.labels import read_labels

    return read_labels(given["labels"], given["dataset_label"])


def _equal_accuracy(run_folder: Path, out: Path, labels: Labels) -> None:
    from bench.records.file import read_run
    from bench.report.comparison import compare
    from bench.report.equal_accuracy import at_equal_accuracy, curves
    from bench.report.figures.equal_accuracy import write_equal_accuracy_figure
    from bench.report.rates import REFERENCE
    from bench.report.tables.equal_accuracy import equal_accuracy_frame, equal_accuracy_table
    from bench.report.write import write

    comparison = compare([read_run(run_folder)], labels)
    by_radius = {radius: curves(comparison, radius) for radius in comparison.radii}
    compared = {radius: at_equal_accuracy(found, radius) for radius, found in by_radius.items()}
    all_of_them = [one for found in compared.values() for one in found]
    if not all_of_them:
        raise RecordsError(
            f"{REFERENCE} certifies no image of {run_folder}: equal accuracy is relative to it; certify more images"
        )
    table = comparison.cautioned(equal_accuracy_table(comparison, all_of_them, command_line()))
    written = write(out, "equal_accuracy", equal_accuracy_frame(all_of_them), table)
    drawn = {radius: found for radius, found in by_radius.items() if compared[radius]}
    written += write_equal_accuracy_figure(comparison, drawn, out)
    _print(table, has_intervals=True)
    _tell(f"Written: {', '.join(map(str, written))}")


def _certifier(config: RunConfig, repetitions: int, reference: Precision | None, folder: Path | None) -> None:
    from bench.commands.progress import track
    from bench.cost import certifier
    from bench.device.hardware import device_name
    from bench.runs.workbench import prepare
    from bench.smoothing.noise import why_slow

    setup = prepare(config)
    if slow := why_slow(setup.device):
        _note(slow)
    measured = (certifier.certifier_cost(setup, method, repetitions, reference) for method in config.methods)
    costs = list(track(measured, "certifier", len(config.methods), is_shown=not _flag("is_quiet")))
    device = device_name(setup.device)
    table = certifier.cost_table(costs, command_line(), device)
    _print(table)
    written = certifier.write_costs(costs, table, folder or certifier.RESULTS / certifier.folder_name(device))
    _tell(f"Written: {', '.join(map(str, written))}")


def _flag(name: str) -> bool:
    """Return whether an option of all modes was given."""
    return bool(click.get_current_context().params[name])


def _note(text: str) -> None:
    """Print a line on what is under way, to stderr, unless only results are wanted."""
    if not _flag("is_quiet"):
        say(text, err=True)


def _tell(text: str) -> None:
    """Print a line behind the results: to stderr where those are JSON, and not where only results are wanted."""
    if not _flag("is_quiet"):
        say(text, err=_flag("as_json"))


def _print(table: Table, *, has_intervals: bool = False) -> None:
    """Print a table, as JSON where that was asked for."""
    from bench.commands.printing import print_table

    if _flag("as_json"):
        machine.print_json(
            {"caption": table.caption, "rows": machine.table_rows(table), "notes": table.notes}
        )
    else:
        print_table(table, has_intervals=has_intervals, has_notes=not _flag("is_quiet"))
