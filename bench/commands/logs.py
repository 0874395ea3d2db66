"""Published certification logs: `bench import-log`, `bench export-log`, `bench check-log`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands.options import command_line, preset_of, say
from bench.commands.terminal.help import command
from bench.commands.terminal.kinds import NoiseLevel, Real, UserPath, Whole
from bench.config.names import DATASETS, nearest_hint
from bench.config.numbers import number
from bench.errors import RecordsError, UsageError, shown, typed
from bench.types import LARGEST_RADIUS, LEAST_RADIUS, Protocol

CHOSEN = "Default: steps up to the largest radius that n samples can certify."

if TYPE_CHECKING:
    from bench.config.run import RunConfig
    from bench.records.log_check import LogCheck, Rounding
    from bench.records.logs import Log, LogRow
    from bench.report.markup import Table


@command(name="import-log", short_help="Make a run of a published per-image log")
@click.argument("file", type=UserPath())
@click.option("--dataset", required=True, metavar="NAME", help="Data set that was certified.")
@click.option(
    "--sigma", required=True, type=NoiseLevel(), metavar="FLOAT", help="Noise level in pixel units."
)
@click.option("--method", required=True, metavar="NAME", help="Name of the method in tables and figures.")
@click.option("--alpha", required=True, type=Real(), help="Failure probability of each certificate, at most.")
@click.option(
    "--n", "--N", "n", required=True, type=Whole(), help="Samples that estimated the class probability."
)
@click.option(
    "--n0",
    "--N0",
    "n0",
    type=Whole(),
    default=100,
    show_default=True,
    help="Samples that selected the class.",
)
@click.option("--radii", metavar="X,Y,...", help=f"Radii of the columns of the tables. {CHOSEN}")
@click.option(
    "--image-size", type=Whole(), metavar="PIXELS", help="Side of the images of 'imagenet'. Default: 224."
)
@click.option("--out", required=True, type=UserPath(), help="Folder of the run.")
def import_log(file: Path, sigma: float, method: str, out: Path, **given: Any) -> None:
    """Convert a published log FILE into a run that `bench report` reads.

    FILE has the tab-separated columns idx, label, predict, radius, correct and time (locuslab format). Logs of the same
    images, n and alpha may share a folder.
    """
    from bench.config.radii import chosen_radii, radii_sentence
    from bench.device import hardware
    from bench.records import logs
    from bench.records.file import RecordsFile, check_addable
    from bench.records.log_claim import check_claim
    from bench.records.shards import check_folder

    if not method.strip() or "," in method:
        raise UsageError(f"method is {method!r}, expected one name, without commas")
    config = _configuration({**given, "sigmas": (sigma,), "methods": (method,)})
    log = logs.read_log(file)
    check_claim(log, config, _labels_at_hand(config))
    header = logs.log_header(log, config, command=command_line(), git_revision=hardware.git_revision())
    made = logs.log_records(log, config)
    check_folder(out, None)
    check_addable(out, made)
    with RecordsFile.create_or_resume(out, header) as records:
        held = records.run.header
        done = set(records.run.records)
        records.append(*(record for record in made if record not in done))
    notes = list(logs.log_notes(log, config))
    if given["radii"] is None and held.radii == chosen_radii(held, held.sigmas):
        notes.append(radii_sentence(held, held.sigmas))
    for note in notes:
        say(f"note: {note}", err=True)
    say(
        f"{out}: {len(log.rows)} images of {method} at sigma {sigma:g}; see them with: bench report {typed(out)}"
    )


@command(name="export-log", short_help="Write the certificates of a run as such a log")
@click.argument("run", type=UserPath())
@click.option("--method", required=True, metavar="NAME", help="Method of the run.")
@click.option("--sigma", required=True, type=NoiseLevel(), metavar="FLOAT", help="Noise level of the run.")
@click.option(
    "--format",
    type=click.Choice(["smoothing"]),
    expose_value=False,
    help="Format of the log; there is one.",
)
@click.option(
    "--digits", type=Whole(1, 17), help="Significant digits of the radii, rounded down. Default: all."
)
@click.option("--out", type=UserPath(), help="File to write. Default: stdout.")
def export_log(run: Path, method: str, sigma: float, digits: int | None, out: Path | None) -> None:
    """Write the certificates of RUN as a tab-separated log: idx, label, predict, radius, correct, time (seconds)."""
    from bench.records.disk import replace_file
    from bench.records.file import read_run
    from bench.records.logs import format_log
    from bench.report.metrics import group

    groups = group(read_run(run).records)
    if (method, sigma) not in groups:
        held = ", ".join(f"{name} at sigma {level:g}" for name, level in groups)
        raise RecordsError(f"{run} holds no image of {method} at sigma {sigma:g}; it holds {held or 'none'}")
    text = format_log(groups[method, sigma], digits)
    if out is None:
        click.echo(text, nl=False)
    else:
        if not out.parent.is_dir():
            raise RecordsError(
                f"{out} cannot be written: {out.parent} is no folder; make it, or give another --out"
            )
        if out.is_dir() or (out.is_file() and _begins(out, b"{")):
            raise RecordsError(
                f"{out} is {'a folder' if out.is_dir() else 'a run'}: give another file as --out"
            )
        if out.is_file() and out.stat().st_size and not _begins(out, b"idx\t"):
            raise RecordsError(f"{out} exists and is no log: give another file as --out, or delete it")
        replace_file(out, text)
        say(f"{out}")


def _begins(path: Path, start: bytes) -> bool:
    """Return whether a file begins with some bytes."""
    with path.open("rb") as file:
        return file.read(len(start)) == start


@command(name="check-log", short_help="Check whether a published log fits its claim")
@click.argument("file", metavar="LOG", type=UserPath())
@click.option(
    "--sigma", required=True, type=NoiseLevel(), metavar="FLOAT", help="Noise level in pixel units."
)
@click.option(
    "--n",
    "--N",
    "n",
    required=True,
    type=Whole(),
    help="Samples that estimated the class probability, as claimed.",
)
@click.option("--alpha", required=True, type=Real(), help="Claimed failure probability.")
@click.option("--dataset", metavar="NAME", help="Data set that was certified, to check classes and subset.")
@click.option(
    "--rounding",
    type=click.Choice(["nearest", "down"]),
    default="nearest",
    show_default=True,
    help="Rounding of the radii in the log.",
)
@click.option("--recertify", type=Real(), metavar="ALPHA", help="Also print the accuracies at this alpha.")
@click.option("--radii", metavar="X,Y,...", help=f"Radii of that table. {CHOSEN}")
def check_log(
    file: Path,
    dataset: str | None,
    rounding: Rounding,
    recertify: float | None,
    radii: str | None,
    **claimed: Any,
) -> int:
    """Check whether a published LOG fits its claim: radii, n, alpha, images, classes and the column correct.

    The exit code is 1 if it does not.
    """
    from bench.commands.printing import name_table, print_table
    from bench.records.log_check import Claim, check_log, level
    from bench.records.logs import read_log

    if dataset is not None and dataset not in DATASETS:
        raise UsageError(f"unknown data set {dataset!r}; {nearest_hint(dataset, DATASETS)}")
    columns = None if radii is None else parse_radii(radii)
    log = read_log(file, allows_repeats=True)
    claim = Claim(rounding=rounding, **claimed)
    check = check_log(log, claim, dataset)
    say(f"{file.name}: {len(log.rows)} rows, sigma {claim.sigma:g}, claimed {level(claim)}")
    verdicts = {True: "yes", False: "NO", None: "unknown"}
    rows = [(finding.check, verdicts[finding.holds], finding.seen) for finding in check.findings]
    name_table(("check", "holds", "seen"), rows)
    if recertify is not None:
        print_table(recertified_table(log, check, recertify, columns))
    return 0 if check.is_sound else 1


def recertified_table(log: Log, check: LogCheck, alpha: float, radii: Sequence[float] | None) -> Table:
    """Return certified accuracies as the log has them, and at another alpha; radii None: up to the largest of both.

    Raises:
        UsageError, RecordsError: as `bench.records.log_check.recertified`.
    """
    from bench.config.radii import chosen_radii
    from bench.records.log_check import level, recertified
    from bench.report.markup import Block, Table, format_percent
    from bench.report.tables.accuracy import radius_headers

    again, source = recertified(log, check, alpha)
    if radii is None:
        levels = (Protocol(n=source.claim.n, alpha=one) for one in (source.claim.alpha, alpha))
        radii = max((chosen_radii(one, (source.claim.sigma,)) for one in levels), key=max)

    def accuracies(rows: Sequence[LogRow]) -> list[str]:
        certified = [row.radius for row in rows if row.predict == row.label]
        return [
            format_percent(sum(largest >= radius for largest in certified) / len(rows)) for radius in radii
        ]

    notes = [
        f"Counts inverted at {level(source.claim)}: of all counts that would be written so, the lowest. Images that "
        "the log abstains on stay so: at a larger alpha the accuracies are lower bounds."
    ]
    if check.named is None and not check.claimed.is_fit:
        notes.append("That level fits the radii but is not the only one that might have made them.")
    if len(set(log.indices)) < len(log.rows):
        notes.append("Images that stand in the log twice count twice.")
    rows = (("as written", *accuracies(log.rows)), (f"at alpha = {alpha:g}", *accuracies(again.rows)))
    return Table(
        caption=f"{log.name}: certified accuracy (%) at another alpha, {len(log.rows)} rows",
        headers=("radii", *radius_headers(radii)),
        blocks=(Block(rows=rows),),
        notes=tuple(notes),
    )


def parse_radii(text: str) -> tuple[float, ...]:
    """Return radii given as numbers with commas between them.

    Raises:
        UsageError: one of them is no number >= 0, or too small or large for a table.
    """
    try:
        radii = tuple(map(number, text.split(",")))
    except ValueError as error:
        raise UsageError(f"--radii is {shown(text)}, expected numbers such as 0,0.25,0.5") from error
    if min(radii) < 0 or max(radii) > LARGEST_RADIUS:
        most = "" if max(radii) <= LARGEST_RADIUS else f", at most {LARGEST_RADIUS:g}"
        raise UsageError(f"--radii is {text!r}, expected numbers >= 0{most}")
    if any(0 < radius < LEAST_RADIUS for radius in radii):
        raise UsageError(f"--radii is {text!r}, expected numbers of 0, or at least {LEAST_RADIUS:g}")
    return radii


def _labels_at_hand(config: RunConfig) -> Sequence[int] | None:
    """Return the classes of the data set's test images where no folder or download is needed for them."""
    from bench.data.sets import load_split

    return load_split(config, "test").labels if config.dataset == "mnist5k" else None


def _configuration(given: dict[str, Any]) -> RunConfig:
    """Return the data set's preset, or the defaults, with what the log was made with."""
    from bench.config.overrides import override
    from bench.config.run import RunConfig, load_preset, validate, with_radii

    preset = preset_of(given["dataset"])
    config = RunConfig() if preset is None else replace(load_preset(preset), options={})
    changes = {name: value for name, value in given.items() if value is not None}
    config = validate(override(config, changes, where="options"), changes["methods"])
    return config if "radii" in changes else with_radii(config, preset)
