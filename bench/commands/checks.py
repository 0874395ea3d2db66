"""Checking and reusing what was certified: `bench recertify`."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from bench.commands.compare import report_runs
from bench.commands.options import command_line


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
