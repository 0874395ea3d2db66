"""Comparing methods: `bench run`, `report`, `compare`, `status`, `readme`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands.options import (
    DATA_OPTIONS,
    ENGINE_NAMES,
    ENGINE_OPTIONS,
    PROTOCOL_OPTIONS,
    command_line,
    make_engine,
    resolve,
)
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.config.run import RunConfig
    from bench.types import Run


@click.command()
@click.option(
    "--preset", default="mnist5k", show_default=True, metavar="NAME|FILE.toml", help="Start from this."
)
@DATA_OPTIONS
@click.option("--methods", metavar="A,B,...", help="Methods to compare, or 'all'.")
@click.option("--sigmas", "--sigma", "sigmas", metavar="X,Y,...", help="Noise levels in pixel units.")
@PROTOCOL_OPTIONS
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
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration and stop.")
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
        return
    from bench.commands.printing import RunDisplay
    from bench.runs import runner
    from bench.runs.termination import Termination

    engine = make_engine(config, **engine_options)
    with Termination() as termination, RunDisplay(config) as display:
        _, folder = runner.run(
            config,
            command=command_line(),
            observer=display,
            engine=engine,
            shard=part,
            held=termination.held,
        )
    if part is None:
        report_runs([folder], folder, ())
    else:
        click.echo(f"{folder / part.file_name}\nWhen all {part.count} shards are done: bench merge {folder}")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for tables and figures.")
@click.option(
    "--allow", metavar="FIELD,...", default="", help="Protocol fields in which the runs may differ."
)
@click.option("--published", is_flag=True, help="Set the numbers that papers report beside ours.")
@click.option("--html", is_flag=True, help="Also write report.html, one page that needs no network.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Folder of the data, for the page's pictures."
)
def report(
    runs: tuple[Path, ...], out: Path | None, allow: str, published: bool, html: bool, data_dir: Path | None
) -> None:
    """Make tables and figures again from the records of one run, or of several side by side."""
    if out is None and len(runs) > 1:
        raise UsageError("several runs need --out DIR, the folder for their common tables and figures")
    report_runs(runs, out or runs[0], tuple(filter(None, allow.split(","))), published)
    if html:
        from bench.records.file import read_run
        from bench.report.page.write import write_page

        click.echo(f"Page: {write_page([read_run(run) for run in runs], out or runs[0], data_dir)}")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN_A [RUN_B ...]")
@click.option("--methods", metavar="A,B,...", help="Only these methods.")
@click.option("--sigmas", "--sigma", "sigmas", metavar="X,Y,...", help="Only these noise levels.")
@click.option("--all-pairs", is_flag=True, help="Also pairs of different methods of several runs.")
@click.option(
    "--against",
    metavar="NAME",
    help="Take runs X-0, X-1, ... as trainings of X, and compare each X with NAME over all of them.",
)
@click.option(
    "--allow", metavar="FIELD,...", default="", help="Protocol fields in which the runs may differ."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for CSV, Markdown and LaTeX tables.")
def compare(
    runs: tuple[Path, ...],
    methods: str | None,
    sigmas: str | None,
    all_pairs: bool,
    against: str | None,
    allow: str,
    out: Path | None,
) -> None:
    """Compare methods image by image: intervals, exact tests, what holds with high probability, training gaps.

    Of one run, each pair of its methods is compared; of several, each method with itself.
    """
    from bench.commands.printing import print_table
    from bench.records.file import check_comparable, read_run
    from bench.report.compared import compare_runs

    read = [read_run(folder) for folder in runs]
    check_comparable(read, tuple(filter(None, allow.split(","))))
    if all_pairs and against is not None:
        raise UsageError("--all-pairs and --against are two ways to compare: give one of them")
    tables, written = compare_runs(
        read, methods=methods, sigmas=sigmas, has_all=all_pairs, against=against, out=out
    )
    for table in tables:
        print_table(table, has_intervals=True)
    if written:
        click.echo(f"Written: {', '.join(map(str, written))}")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def status(run: Path) -> None:
    """Say what of RUN, whole or in shards, is done, what is left and how long that will take."""
    from bench.commands.printing import status_table
    from bench.records.shards import read_status, what_to_do

    done, lacks = read_status(run)
    status_table(done, what_to_do(run, lacks))


@click.command()
@click.argument("page", default="README.md", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def readme(page: Path) -> None:
    """Put the tables of results into PAGE again (README.md), between its marks.

    A table stands between the lines <!-- table: PATH --> and <!-- end of table -->; PATH is relative to PAGE.
    """
    from bench.commands.documents import fill_tables

    old = page.read_text(encoding="utf-8")
    new = fill_tables(old, page.parent)
    page.write_text(new, encoding="utf-8", newline="\n")
    click.echo(f"{page}: {'as it was' if new == old else 'changed'}")


def _print_config(config: RunConfig) -> None:
    from bench.config.run import to_json
    from bench.runs.runner import run_folder

    for key, value in to_json(replace(config, out=run_folder(config))).items():
        shown = ",".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{key} = {shown}")


def report_runs(folders: Sequence[Path], out: Path, allow: Sequence[str], published: bool = False) -> None:
    """Write tables and figures of the runs to `out`, print the main table and the speedups."""
    from bench.commands.printing import print_results
    from bench.records.file import check_comparable, read_run
    from bench.report.figures.accuracy import write_figures
    from bench.report.published import claims, published_numbers
    from bench.report.tables import accuracy as tables
    from bench.report.tables.published import write_published

    runs: list[Run] = [read_run(folder) for folder in folders]
    check_comparable(runs, allow)
    numbers = published_numbers(_one_dataset(runs)) if published else ()
    written = [*tables.write_tables(runs, out), *write_figures(runs, out, numbers)]
    sentence = None
    if published:
        paths, sentence = write_published(runs, numbers, claims(_one_dataset(runs)), out)
        written += paths
    print_results(runs, out, written)
    if sentence is not None:
        click.echo(sentence)


def _one_dataset(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(run.header.dataset for run in runs))
    if len(names) > 1:
        raise UsageError(f"--published is for runs of one data set, got {', '.join(names)}; name runs of one")
    return names[0]
