"""Comparing runs: `bench report`, `compare`; and, for those who keep the pages of results, `readme`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from bench.commands.options import QUIET_OPTION, say, shared_options
from bench.commands.terminal import machine, pages
from bench.commands.terminal.help import command
from bench.commands.terminal.kinds import UserPath
from bench.commands.terminal.machine import JSON_OPTION
from bench.config.names import split_names
from bench.errors import RecordsError, UsageError, clipped

_SUMMARY = re.compile(r"(<!-- summary: (\S+) -->\n).*?(<!-- end of summary -->)", re.DOTALL)
_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


LABEL_OPTIONS = shared_options(
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="METHOD=NAME",
        help="Name of a method in tables, figures and page.",
    ),
    click.option("--dataset-label", metavar="NAME", help="Name of the data set in tables, figures and page."),
)


def check_folder_of(out: Path | None) -> None:
    """Return nothing for a folder that can be written to, before anything is computed.

    Raises:
        RecordsError: it is a file.
    """
    if out is not None and out.is_file():
        raise RecordsError(f"File exists: {str(out)!r}, where a folder is needed: give another --out")


@command(short_help="Tables, figures and page from the records of runs")
@click.argument("runs", nargs=-1, required=True, type=UserPath())
@LABEL_OPTIONS
@click.option("--out", type=UserPath(), help="Folder for tables and figures. Default: the run's own.")
@click.option(
    "--allow", metavar="FIELD,...", default="", help="Protocol fields in which the runs may differ."
)
@click.option(
    "--published", is_flag=True, help="Add the numbers that papers report, next to the measured ones."
)
@click.option(
    "--html", is_flag=True, help="Also write report.html, an interactive page that needs no network."
)
@click.option("--images", is_flag=True, help="Also draw example images, without noise and noisy.")
@click.option(
    "--data-dir",
    type=UserPath(),
    help="Folder of the data set, for pictures.",
)
@QUIET_OPTION
@JSON_OPTION
def report(
    runs: tuple[Path, ...],
    labels: tuple[str, ...],
    dataset_label: str | None,
    out: Path | None,
    allow: str,
    data_dir: Path | None,
    **flags: bool,
) -> None:
    """Write tables and figures from the records of one run, or of several runs in one comparison."""
    has_page, as_json = flags["html"], flags["as_json"]
    check_folder_of(out)
    if out is None and len(runs) > 1:
        raise UsageError("several runs need --out DIR, the folder for their common tables and figures")
    from bench.commands.printing import report_runs
    from bench.config.labels import read_labels

    folder = out or (runs[0].parent if runs[0].is_file() else runs[0])
    comparison = report_runs(
        runs,
        folder,
        tuple(filter(None, split_names(allow))),
        has_published=flags["published"],
        as_json=as_json,
        is_quiet=flags["is_quiet"],
        labels=read_labels(labels, dataset_label),
    )
    if flags["images"]:
        from bench.report.figures.images import write_images

        paths = write_images(comparison.runs[0].header, comparison.sigmas, folder, data_dir)
        say(f"Images: {', '.join(map(str, paths))}", err=as_json)
    if has_page:
        from bench.report.page.write import write_page
        from bench.report.published import published_numbers

        numbers = published_numbers(comparison.runs[0].header.dataset) if flags["published"] else ()
        say(f"Page: {write_page(comparison, folder, data_dir, numbers)}", err=as_json)


@command(short_help="Paired tests between methods or training runs")
@click.argument("runs", nargs=-1, required=True, type=UserPath(), metavar="RUN_A [RUN_B ...]")
@LABEL_OPTIONS
@click.option("--methods", metavar="A,B,...", help="Compare these methods only.")
@click.option("--sigmas", "--sigma", "sigmas", metavar="X,Y,...", help="Compare these noise levels only.")
@click.option("--all-pairs", is_flag=True, help="Also compare different methods of different runs.")
@click.option(
    "--against",
    metavar="NAME",
    help="Treat runs X-0, X-1, ... as training runs of X, and compare each X with NAME over all of them.",
)
@click.option(
    "--allow", metavar="FIELD,...", default="", help="Protocol fields in which the runs may differ."
)
@click.option("--out", type=UserPath(), help="Folder for CSV, Markdown and LaTeX tables.")
@QUIET_OPTION
@JSON_OPTION
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
    is_quiet: bool,
    as_json: bool,
) -> None:
    """Compare methods image by image: verdicts, intervals, exact paired tests, high-probability accuracy.

    Within one run, all pairs of methods are compared; between runs, each method with itself.
    """
    from bench.commands.printing import print_sentence, print_tables
    from bench.commands.terminal.verdicts import sentences
    from bench.config.labels import read_labels
    from bench.records.file import check_comparable, read_run
    from bench.report.compared import compare_all, restricted
    from bench.report.comparison import compare as compare_read
    from bench.report.tables.paired import paired_frame, pairs_of

    read = [read_run(folder) for folder in runs]
    check_comparable(read, tuple(filter(None, split_names(allow))))
    if all_pairs and against is not None:
        raise UsageError("--all-pairs and --against are two ways to compare: give one of them")
    check_folder_of(out)
    comparison = compare_read(restricted(read, methods, sigmas), read_labels(labels, dataset_label))
    tables, written, nothing = compare_all(comparison, has_all=all_pairs, against=against, out=out)
    pairs = pairs_of(comparison, has_all=all_pairs) if against is None else ()
    words = sentences(comparison, paired_frame(comparison, pairs), pairs)
    if as_json:
        by_caption = {one.caption: machine.table_rows(one) for one in tables}
        said = {"warnings": list(comparison.warnings), "nothing_compared": nothing or None}
        machine.print_json({"verdicts": words, "tables": by_caption} | said)
        return
    for sentence in words:
        print_sentence(sentence)
    print_tables(tables, has_intervals=True, has_notes=not is_quiet)
    if nothing:
        print_sentence(nothing)
    if written:
        say(f"Written: {', '.join(map(str, written))}")


@click.command(hidden=True)
@click.argument("page", default="README.md", type=UserPath(dir_okay=False, exists=True))
def readme(page: Path) -> None:
    """Update PAGE (default: README.md): the tables of results between their marks, or the page of commands.

    A table is between the lines <!-- table: PATH --> and <!-- end of table -->; PATH is relative to PAGE.
    """
    from bench.records.disk import replace_file

    old = _text(page)
    if page.name == f"{pages.COMMANDS}.md" and page.parent.name == "guide":
        new = pages.commands_page(click.get_current_context().find_root().command)  # type: ignore[arg-type]
    else:
        new = fill_tables(old, page.parent)
    replace_file(page, new)
    say(f"{page}: {'as it was' if new == old else 'changed'}")


def fill_tables(text: str, folder: Path) -> str:
    """Return a page with each table as its file has it now.

    Args:
        text: Markdown; a table is between the lines `<!-- table: PATH -->` and `<!-- end of table -->`, the summary of
            a run between `<!-- summary: RUN -->` and `<!-- end of summary -->`.
        folder: what the paths are relative to, and may not leave.

    Raises:
        UsageError: a file is not there, or lies outside the folder.
    """
    text = _TABLE.sub(lambda mark: f"{mark[1]}{_content(mark[2], folder)}\n{mark[3]}", text)
    return _SUMMARY.sub(lambda mark: f"{mark[1]}{_summary(mark[2], folder)}\n{mark[3]}", text)


def _summary(run: str, folder: Path) -> str:
    from bench.commands.terminal.summary import summary

    if not (folder / run / "records.jsonl").is_file():
        raise UsageError(f"a summary mark names {clipped(run)}, which is no run below {folder}")
    return summary(folder / run)


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
