"""Measuring speed: `bench cost`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bench.commands.options import DATA_OPTIONS, PROTOCOL_OPTIONS, command_line, resolve
from bench.cost.presets import COST_PRESETS
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.cost.request import Request
    from bench.types import Precision


@click.command()
@click.option(
    "--certifier", is_flag=True, help="Time the certifier beside the bare network and a plain loop."
)
@click.option(
    "--preset",
    default="mnist5k",
    show_default=True,
    metavar="NAME|FILE.toml",
    help=f"{', '.join(COST_PRESETS)}, or a preset of `bench run`.",
)
@DATA_OPTIONS
@click.option("--methods", metavar="A,B,...", help="Methods to time.")
@click.option(
    "--sigma", default="0.5", show_default=True, metavar="FLOAT", help="Noise level in pixel units."
)
@PROTOCOL_OPTIONS
@click.option("--batch-sizes", default="auto", show_default=True, metavar="auto|A,B,...", help="The sweep.")
@click.option(
    "--steps", type=click.IntRange(1), default=10, show_default=True, help="Network calls of chains."
)
@click.option("--votes", type=click.IntRange(1), default=10, show_default=True, help="Chains of densepure.")
@click.option("--repetitions", type=click.IntRange(1), default=10, show_default=True, help="Rounds.")
@click.option("--max-seconds", type=click.FloatRange(0, min_open=True), help="Stop cleanly before so long.")
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Default: below results/.")
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="Compare the methods of a finished run at equal certified accuracy.",
)
@click.option("--radius", type=float, default=0.5, show_default=True, help="L2 radius for --run.")
@click.option(
    "--reference-precision",
    "reference",
    type=click.Choice(["float32", "tf32", "bfloat16"]),
    help="Precision of the plain loop beside --certifier; default: --precision.",
)
@click.option("--report", is_flag=True, help="Only make tables and figures again from the records in --out.")
def cost(
    certifier: bool,
    report: bool,
    run_folder: Path | None,
    folder: Path | None,
    reference: Precision | None,
    **given: Any,
) -> None:
    """Measure what methods cost on this machine beside each other, with random weights.

    --n and --precision may list several values. Repeating an interrupted command continues it. With --run, join the
    certificates of a run with its measured cost, measuring nothing: the speed at equal certified accuracy, and accuracy
    by seconds. With --certifier, measure what the certifier itself costs, for trained methods.
    """
    _refuse_options_of_other_modes(click.get_current_context())
    own = {name: given.pop(name) for name in _OWN}
    if certifier:
        options = {**given, "sigmas": own["sigma"]}
        _certifier(own["preset"], options, own["repetitions"], reference, folder)
        return
    if run_folder is not None:
        _equal_accuracy(run_folder, own["radius"], folder or run_folder)
        return
    if report:
        if folder is None:
            raise UsageError("--report needs --out DIR, the folder of the records")
        _report(folder)
        return
    from bench.cost import request as cost_request

    del own["radius"]
    _measure(cost_request.Request(command=command_line(), folder=folder, given=given, **own))


_OWN = ("preset", "sigma", "radius", "repetitions", "max_seconds", "batch_sizes", "steps", "votes")
"""Options of this command alone; the others are those of `bench run`."""

_ONLY = {"run_folder": ("radius", "folder"), "report": ("folder",)}
"""Options that --run and --report take beside themselves."""

_NOT_OF_CERTIFIER = ("radius", "run_folder", "report", "batch_sizes", "steps", "votes", "max_seconds")


def _refuse_options_of_other_modes(context: click.Context) -> None:
    """Check that every option given has a meaning in the mode that is chosen.

    Raises:
        UsageError: one has none; the message names all of them.
    """
    flags = {str(one.name): one.opts[0] for one in context.command.params}
    given = {name for name in flags if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    mode = next((name for name in ("certifier", *_ONLY) if name in given), None)
    if mode in _ONLY:
        allowed = {mode, *_ONLY[mode]}
    else:
        allowed = {*flags} - {*(("radius", "reference") if mode is None else _NOT_OF_CERTIFIER)}
    wrong = [flag for name, flag in flags.items() if name in given - allowed]
    if wrong:
        chosen = "bench cost without --run or --certifier" if mode is None else flags[mode]
        raise UsageError(
            f"{chosen} does not take {', '.join(wrong)}: leave {'it' if len(wrong) == 1 else 'them'} out"
        )


def _measure(request: Request) -> None:
    import time

    from bench.commands.printing import duration
    from bench.commands.progress import Bars
    from bench.cost import request as cost_request

    started = time.perf_counter()
    plan = cost_request.resolved(request, resolve)
    with cost_request.opened(plan) as measurement:
        left = measurement.left()
        click.echo(
            f"{len(left)} measurements left, about {duration(measurement.expected_seconds())} on "
            f"{measurement.instruments.device}",
            err=True,
        )
        if measurement.instruments.type == "cpu":
            click.echo("These are CPU numbers: they say nothing of a GPU.", err=True)
        with Bars() as bars:
            bars.show("measured", done=0, total=len(left))
            for done, task in enumerate(measurement.steps(started), 1):
                last = f"{task.method} {task.setting} {task.batch_size} {task.kind}"
                bars.show("measured", done=done, total=len(left), detail=last)
        missing = len(measurement.left())
    _report(plan.folder)
    if missing:
        click.echo(
            f"Stopped after {duration(time.perf_counter() - started)}: repeat the command to continue."
        )


def _report(folder: Path) -> None:
    from bench.commands.printing import print_table
    from bench.cost.figures import write_figures
    from bench.cost.records import read_cost_run
    from bench.cost.tables import short_table, write_tables

    run = read_cost_run(folder)
    written = write_tables(run, folder) + write_figures(run, folder)
    print_table(short_table(run))
    click.echo(f"Written: {folder} ({len(written)} files)")


def _equal_accuracy(run_folder: Path, radius: float, out: Path) -> None:
    from bench.commands.printing import print_table
    from bench.records.file import read_run
    from bench.report import equal_accuracy
    from bench.report.figures.pareto import write_pareto

    run = read_run(run_folder)
    curves = equal_accuracy.curves(run, radius)
    compared = equal_accuracy.at_equal_accuracy(curves)
    table = equal_accuracy.equal_accuracy_table(run, compared, radius, command_line())
    written = equal_accuracy.write_equal_accuracy(table, compared, out)
    written += write_pareto(curves, radius, run.costs[0].device, out)
    print_table(table)
    click.echo(f"Written: {', '.join(map(str, written))}")


def _certifier(
    preset: str, options: dict[str, Any], repetitions: int, reference: Precision | None, folder: Path | None
) -> None:
    config = resolve(preset, options)
    from bench.commands.printing import print_table
    from bench.commands.progress import track
    from bench.cost import certifier as certifier_cost
    from bench.device.hardware import device_name
    from bench.runs.workbench import prepare

    setup = prepare(config)
    measured = (
        certifier_cost.certifier_cost(setup, method, repetitions, reference) for method in config.methods
    )
    costs = list(track(measured, "certifier", len(config.methods)))
    device = device_name(setup.device)
    table = certifier_cost.cost_table(costs, command_line(), device)
    print_table(table)
    written = certifier_cost.write_costs(costs, table, folder or certifier_cost.default_folder(device))
    click.echo(f"Written: {', '.join(map(str, written))}")
