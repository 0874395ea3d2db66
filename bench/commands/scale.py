"""Runs too large for one process: `bench merge`."""

from __future__ import annotations

from pathlib import Path

import click

from bench.commands.compare import report_runs


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def merge(run: Path) -> None:
    """Join the shards of RUN, a folder that `bench run --shard i/k` wrote to, and make its tables and figures.

    Nothing may be missing and nothing there twice; the shards' files stay.
    """
    from bench.shards import merge as join

    joined = join(run)
    click.echo(f"{len(joined.records)} certificates joined in {run}")
    report_runs([run], run, ())
