"""Checking and reusing what was certified: `bench recertify`, `replay`, `audit`, `selftest`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands.options import (
    ALLOW_OPTION,
    DATA_OPTIONS,
    command_line,
    given_singly,
    resolve_one,
    say,
    shared_options,
)
from bench.commands.report import LABEL_OPTIONS
from bench.commands.terminal.help import command
from bench.commands.terminal.kinds import NoiseLevel, Real, UserPath, Whole
from bench.config.names import split_names
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.checks.selftest import Check, Size
    from bench.report.markup import Table

REBUILD_OPTIONS = shared_options(
    click.option("--data-dir", type=UserPath(), help="Folder of the data set, if it has moved."),
    click.option("--zoo", type=UserPath(), help="Folder of the checkpoints, if it has moved."),
    click.option(
        "--set",
        "changes",
        metavar="METHOD.OPTION=VALUE",
        multiple=True,
        help="Repeat an option of the run that names code, or a file that has moved. Code named only in records is "
        "never run.",
    ),
)


@command(short_help="New alpha, n or bound from stored counts")
@click.argument("run", type=UserPath())
@click.option(
    "--alpha", type=Real(), help="Failure probability of each certificate, at most. Default: the run's."
)
@click.option("--n", "--N", "n", type=Whole(), help="Number of the run's samples to use. Default: all.")
@click.option(
    "--bound",
    type=click.Choice(["clopper-pearson", "randomised"]),
    help="Lower confidence bound. Default: the run's.",
)
@LABEL_OPTIONS
@click.option("--out", type=UserPath(), required=True, help="Folder of the new run.")
def recertify(
    run: Path, labels: tuple[str, ...], dataset_label: str | None, out: Path, **given: float | str | None
) -> None:
    """Recompute the radii of RUN from stored counts (no model needed) and save them as a new run.

    Fix alpha before you look at the radii. A level chosen afterwards carries no guarantee.
    """
    from bench.commands.printing import report_runs
    from bench.config.labels import read_labels
    from bench.records.file import read_run, write_run
    from bench.records.recertify import recertify
    from bench.records.shards import check_folder

    named = read_labels(labels, dataset_label)
    old = read_run(run, repairs=True)
    if named.methods:
        named.of_methods(old.header.methods)
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    protocol = dataclasses.replace(old.header.protocol, **changes)
    check_folder(out, None)
    write_run(out, recertify(old, protocol, command_line()))
    report_runs([out], out, labels=named)


@command(short_help="Recompute certificates of one image and compare")
@click.argument("run", type=UserPath())
@click.option("--index", type=Whole(), required=True, help="Position of the image in the test split.")
@click.option(
    "--methods",
    "--method",
    "methods",
    metavar="A,B,...",
    help="Restrict to these methods of the run. A MODULE:FUNCTION is called only if it is named here.",
)
@click.option("--sigma", type=NoiseLevel(), metavar="FLOAT", help="Restrict to this noise level.")
@REBUILD_OPTIONS
def replay(
    run: Path, index: int, methods: str | None, sigma: float | None, changes: tuple[str, ...], **where: Any
) -> int:
    """Recompute the certificates of one image of RUN and compare them with the records."""
    from bench.checks.replay import replay
    from bench.config.code import typed_code
    from bench.records.file import read_run
    from bench.runs.rebuild import rebuild

    typed, options = typed_code(methods, changes), given_singly(changes)
    rebuilt = rebuild(read_run(run), typed=typed, given=options, **where)
    chosen = None if methods is None else split_names(methods)
    differing = 0
    for again in replay(rebuilt, index, chosen, sigma):
        name = f"image {index}, {again.old.method} at sigma {again.old.sigma:g}"
        if not again.differences:
            say(f"{name}: equal")
            continue
        differing += 1
        for field in again.differences:
            old, new = getattr(again.old, field), getattr(again.new, field)
            say(f"{name}: {field} differs, {old} on record and {new} now")
    if differing and rebuilt.setup.device.type != "cpu":
        say(OTHER_BATCHES)
    return 1 if differing else 0


OTHER_BATCHES = (
    "On a GPU images share batches, and the size of a batch decides which kernels compute: a few samples of a run that "
    "was stopped, spread or extended may be classified otherwise than here, where the image has those beside it that a "
    "run at one go gives it."
)


@command(short_help="Attack certified images inside their radius")
@click.argument("run", type=UserPath())
@click.option(
    "--methods",
    metavar="A,B,...",
    help="Restrict to these methods of the run. A MODULE:FUNCTION is called only if it is named here.",
)
@click.option("--sigmas", metavar="X,Y,...", help="Restrict to these noise levels of the run.")
@click.option(
    "--images",
    type=Whole(1),
    help="Images per method and sigma. Default: 100 for attacks, 10 for --precision and --batch-size.",
)
@click.option(
    "--precision",
    is_flag=True,
    help="Compare float32, TF32, bfloat16 and compiled networks on the same noise.",
)
@click.option(
    "--batch-size", "batch_sizes", metavar="A,B,...", help="Compare these batch sizes on the same noise."
)
@click.option("--samples", type=Whole(1), default=16, show_default=True, help="Noisy copies per attack step.")
@click.option("--steps", type=Whole(1), default=10, show_default=True, help="Gradient steps per restart.")
@click.option("--restarts", type=Whole(1), default=2, show_default=True, help="Random starting points.")
@click.option("--seed", type=Whole(0), default=0, show_default=True, help="Seed of the attack's noise.")
@REBUILD_OPTIONS
def audit(
    run: Path,
    methods: str | None,
    sigmas: str | None,
    images: int | None,
    precision: bool,
    batch_sizes: str | None,
    seed: int,
    data_dir: Path | None,
    zoo: Path | None,
    changes: tuple[str, ...],
    **attack: int,
) -> int:
    """Attack the certified images of RUN inside their certified radius, or compare precisions or batch sizes.

    The exit code is 1 if PREDICT contradicts more certificates than chance allows. Results are written to RUN/audit/.
    Finished attacks are kept: the repeated command, also with more images, continues from them.
    """
    from bench.checks import audit_run
    from bench.checks.attack import Attack
    from bench.commands.printing import print_table
    from bench.commands.progress import Bars
    from bench.config.code import typed_code
    from bench.records.file import read_run
    from bench.runs.rebuild import rebuild

    if precision and batch_sizes:
        raise UsageError("--precision and --batch-size are two audits: give one of them")
    typed, options = typed_code(methods, changes), given_singly(changes)
    rebuilt = rebuild(read_run(run), data_dir=data_dir, zoo=zoo, typed=typed, given=options)
    is_attack = not (precision or batch_sizes)
    scope = audit_run.scope_of(
        rebuilt.run,
        methods=methods,
        sigmas=sigmas,
        images=images or (100 if is_attack else 10),
        command=command_line(),
    )
    rebuilt.check_code(scope.methods)
    audit_run.folder_of(rebuilt.run)
    with Bars() as bars:
        if batch_sizes:
            result = audit_run.audit_batch_sizes(rebuilt, scope, batch_sizes, bars.audited)
        elif precision:
            result = audit_run.audit_precision(rebuilt, scope, bars.audited)
        else:
            result = audit_run.audit_attacks(rebuilt, scope, Attack(**attack), seed, bars.audited)
    print_table(result.table)
    say(f"Written: {', '.join(map(str, result.files))}")
    if result.flag:
        say(f"bench: {result.flag}", err=True)
    return 1 if result.flag else 0


@command(short_help="Test the certifier against closed forms")
@click.option(
    "--method", metavar="NAME", help="Test the classifier of this trained method instead of the certifier."
)
@click.option("--trials", type=Whole(1), help="Certificates per check. Default: 1,000, or 100 with --method.")
@click.option("--sigma", metavar="FLOAT", help="Noise level of the method. Default: 0.5.")
@DATA_OPTIONS
@ALLOW_OPTION
def selftest(method: str | None, trials: int | None, sigma: str | None, **given: Any) -> int:
    """Test the certifier on classifiers whose true radius has a closed form, or the classifier of a method.

    The exit code is 1 if a check fails; a sound certifier fails with probability 1e-6 at most. For sequential
    estimation the probability of a wrong certificate is computed exactly instead of sampled.
    """
    from bench.commands.progress import track

    if method is None:
        without_part = [name for name, value in {"sigma": sigma, **given}.items() if value]
        if without_part:
            name = "set" if without_part[0] == "changes" else without_part[0].replace("_", "-")
            raise UsageError(f"--{name} plays no part without --method: leave it out, or name the method")
        from bench.checks.selftest import STOPPING, Size, check_count, run_selftest
        from bench.checks.stopping import worst_failure
        from bench.commands.printing import print_table

        size = Size() if trials is None else Size(trials=trials)
        checks = list(track(run_selftest(size), "self-test", check_count()))
        print_table(checks_table(checks, size))
        worst = worst_failure(STOPPING, 0.5)
        say(
            f"Sequential estimation over all its paths (exact recursion, n {STOPPING.n}, alpha {STOPPING.alpha:g}): "
            f"wrong with probability {worst:.3g} at most."
        )
        return 0 if all(check.passes for check in checks) and worst <= STOPPING.alpha else 1
    config = resolve_one(method, sigma or "0.5", given)
    from bench.checks.selftest_method import PROPERTIES, check_method

    checked = check_method(config, trials or 100, lambda text: say(f"note: {text}", err=True))
    found = list(track(checked, f"self-test of {method}", PROPERTIES))
    for one in found:
        say(f"{'passes' if one.holds else 'FAILS '}  {one.name} ({one.seen})")
    return 0 if all(one.holds for one in found) else 1


def checks_table(checks: Sequence[Check], size: Size) -> Table:
    """Return the checks of a self-test, and what they mean."""
    from bench.report.markup import Block, Table

    protocol = size.protocol
    rows = tuple(
        (
            check.name,
            check.mode,
            *map(str, (check.trials, check.violations, check.allowed)),
            "–" if math.isnan(check.reach) else f"{check.reach:.2f}",
            "passes" if check.passes else "FAILS",
        )
        for check in checks
    )
    return Table(
        headers=("truth", "mode", "trials", "violations", "allowed", "reach", "verdict"),
        blocks=(Block(rows=rows),),
        notes=(
            f"alpha {protocol.alpha:g}, n0 {protocol.n0}, n {protocol.n}. Violations: another class than the smoothed "
            "one, or a radius beyond the true one. A sound certifier exceeds what is allowed anywhere with probability "
            "1e-6 at most. Reach: mean certified radius over the true one; for PREDICT the share of right answers.",
        ),
    )
