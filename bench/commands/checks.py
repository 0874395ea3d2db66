"""Checking and reusing what was certified: `bench recertify`, `bench replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

from bench.commands.compare import report_runs
from bench.commands.options import command_line, shared_options

REBUILD_OPTIONS = shared_options(
    click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of the data, if it has moved."),
    click.option("--zoo", type=click.Path(path_type=Path), help="Folder of checkpoints, if they have moved."),
)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--alpha", type=float, help="Probability that a certificate is wrong, at most; default: the run's."
)
@click.option("--n", "--N", "n", type=int, help="Samples to use of those that the run drew; default: all.")
@click.option(
    "--bound",
    type=click.Choice(["clopper-pearson", "randomised"]),
    help="Binomial bound; default: the run's.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new run.")
def recertify(run: Path, alpha: float | None, n: int | None, bound: str | None, out: Path) -> None:
    """Compute the radii of RUN anew from its counts, without a model, into a run of its own.

    Choose alpha before looking at the radii: a level that is picked by its result guarantees nothing.
    """
    from bench.recertify import Level, recertify
    from bench.records import read_run, write_run
    from bench.types import Bound

    old = read_run(run)
    level = Level(
        alpha=old.header.alpha if alpha is None else alpha,
        n=old.header.n if n is None else n,
        bound=cast("Bound", bound or old.header.bound),
    )
    write_run(out, recertify(old, level, command_line()))
    report_runs([out], out, ())


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--index", type=int, required=True, help="Position of the image in the test split.")
@click.option("--method", metavar="NAME", help="Only this method.")
@click.option("--sigma", type=float, help="Only this noise level.")
@REBUILD_OPTIONS
def replay(run: Path, index: int, method: str | None, sigma: float | None, **where: Any) -> int:
    """Compute the certificates of one image of RUN again, and say whether they equal those on record."""
    from bench.rebuild import rebuild
    from bench.records import read_run
    from bench.replay import replay

    differing = 0
    for again in replay(rebuild(read_run(run), **where), index, method, sigma):
        name = f"image {index}, {again.old.method} at sigma {again.old.sigma:g}"
        if not again.differences:
            click.echo(f"{name}: equal")
            continue
        differing += 1
        for field in again.differences:
            old, new = getattr(again.old, field), getattr(again.new, field)
            click.echo(f"{name}: {field} differs, {old} on record and {new} now")
    return 1 if differing else 0
