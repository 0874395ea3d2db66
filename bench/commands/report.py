"""Comparing runs: `bench report`, `compare`; and, for those who keep the pages of results, `readme`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from bench.commands.options import say, shared_options
from bench.errors import UsageError, clipped

_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


LABEL_OPTIONS = shared_options(
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="METHOD=NAME",
        help="Name of a method in tables, figures and page.",
    ),
    click.option("--dataset-label", metavar="NAME", help="Name of the data set in them."),
)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@LABEL_OPTIONS
@click.option("--out", type=click.Path(path_type=Path), help="Folder for tables and figures.")
@click.option(
    "--allow", metavar="FIELD,...", default="", help="Protocol fields in which the runs may differ."
)
@click.option("--published", is_flag=True, help="Set the numbers that papers report beside ours.")
@click.option("--html", is_flag=True, help="Also write report.html, one page that needs no network.")
@click.option("--images", is_flag=True, help="Also draw example images, clean and noisy.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of the data, for pictures.")
def report(
    runs: tuple[Path, ...],
    labels: tuple[str, ...],
    dataset_label: str | None,
    out: Path | None,
    allow: str,
    published: bool,
    html: bool,
    images: bool,
    data_dir: Path | None,
) -> None:
    """Make tables and figures again from the records of one run, or of several side by side."""
    if out is None and len(runs) > 1:
        raise UsageError("several runs need --out DIR, the folder for their common tables and figures")
    from bench.commands.printing import report_runs
    from bench.config.labels import read_labels

    folder = out or runs[0]
    comparison = report_runs(
        runs,
        folder,
        tuple(filter(None, allow.split(","))),
        has_published=published,
        labels=read_labels(labels, dataset_label),
    )
    if images:
        from bench.report.figures.images import write_images

        paths = write_images(comparison.runs[0].header, comparison.sigmas, folder, data_dir)
        say(f"Images: {', '.join(map(str, paths))}")
    if html:
        from bench.report.page.write import write_page
        from bench.report.published import published_numbers

        numbers = published_numbers(comparison.runs[0].header.dataset) if published else ()
        say(f"Page: {write_page(comparison, folder, data_dir, numbers)}")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN_A [RUN_B ...]")
@LABEL_OPTIONS
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
    labels: tuple[str, ...],
    dataset_label: str | None,
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
    from bench.config.labels import read_labels
    from bench.records.file import check_comparable, read_run
    from bench.report.compared import compare_runs

    read = [read_run(folder) for folder in runs]
    check_comparable(read, tuple(filter(None, allow.split(","))))
    if all_pairs and against is not None:
        raise UsageError("--all-pairs and --against are two ways to compare: give one of them")
    tables, written, nothing = compare_runs(
        read,
        methods=methods,
        sigmas=sigmas,
        has_all=all_pairs,
        against=against,
        out=out,
        chosen=read_labels(labels, dataset_label),
    )
    for table in tables:
        print_table(table, has_intervals=True)
    if nothing:
        say(nothing)
    if written:
        say(f"Written: {', '.join(map(str, written))}")


@click.command(hidden=True)
@click.argument("page", default="README.md", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def readme(page: Path) -> None:
    """Put the tables of results into PAGE again (README.md), between its marks.

    A table stands between the lines <!-- table: PATH --> and <!-- end of table -->; PATH is relative to PAGE.
    """
    from bench.records.disk import replace_file

    old = _text(page)
    new = fill_tables(old, page.parent)
    replace_file(page, new)
    say(f"{page}: {'as it was' if new == old else 'changed'}")


def fill_tables(text: str, folder: Path) -> str:
    """Return a page with each table as its file has it now.

    Args:
        text: Markdown; a table stands between `<!-- table: PATH -->` and `<!-- end of table -->`, each on a line.
        folder: what the paths are relative to, and may not leave.

    Raises:
        UsageError: a file is not there, or lies outside the folder.
    """
    return _TABLE.sub(lambda mark: f"{mark[1]}{_content(mark[2], folder)}\n{mark[3]}", text)


def _content(name: str, folder: Path) -> str:
    path = folder / name
    if "\0" not in name:  # which no path holds
        path = path.resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise UsageError(
            f"a table mark names {clipped(name)}, which is no file below {folder}; make it, or mend the mark"
        )
    return _text(path).strip()


def _text(path: Path) -> str:
    from bench.config.texts import read_text

    try:
        return read_text(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error}): name a text file") from error
