"""Tables and figures -> files, and all those of one comparison; prints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.errors import UsageError
from bench.records.disk import replace_file
from bench.report.comparison import Comparison
from bench.report.markup import Table, csv_text, to_markdown
from bench.report.metrics import samples_used
from bench.report.published import Claim, PublishedNumber, claims, published_numbers
from bench.report.tables.accuracy import (
    accuracy_frame,
    accuracy_table,
    acr_frame,
    acr_table,
    samples_frame,
    samples_table,
    saved_sentence,
)
from bench.report.tables.best import best_frame, best_table
from bench.report.tables.cost import cost_frame, cost_tables
from bench.report.tables.latex import to_latex
from bench.report.tables.lower_bounds import lower_bounds_frame, lower_bounds_table
from bench.report.tables.published import (
    claimed_sentences,
    published_frame,
    published_sentence,
    published_table,
)
from bench.report.tables.training import has_training, training_frame, training_table

_SHOWN = ("block", "is_leading", "shown", "first_label", "second_label")
"""Columns of frames that tables need and CSV files do not hold."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report prints, and the files that it wrote.

    Attributes:
        table: the certified accuracies.
        sentences: on samples saved.
        files: tables and figures.
        published: on the published numbers beside ours; None where they were not asked for.
        training: what the rows took to train; None where no run says it.
    """

    table: Table
    sentences: tuple[str, ...]
    files: tuple[Path, ...]
    published: str | None
    training: Table | None


def write_report(
    comparison: Comparison, folder: Path, *, has_published: bool = False, processes: int = 1
) -> Report:
    """Write all tables and figures of compared runs, with published numbers beside ours where asked to.

    Args:
        folder: made where missing; files of the same names in it are replaced, figures without data removed.
        processes: that draw the figures; see `bench.report.figures.write.figures_written_by`.

    Raises:
        UsageError: published numbers are asked for, and the runs are of several data sets.
    """
    from bench.report.figures.write import figures_written_by  # here, so that tables alone need no matplotlib

    dataset = _one_dataset(comparison) if has_published else ""
    numbers = published_numbers(dataset) if has_published else ()
    with figures_written_by(processes, comparison, folder, numbers) as figures:
        table, files = write_tables(comparison, folder)
        files += figures()
    sentence = None
    if has_published:
        published, sentence = write_published(comparison, numbers, claims(dataset), folder)
        files += published
    return Report(
        table=table,
        sentences=tuple(_sentences(comparison)),
        files=tuple(files),
        published=sentence,
        training=training_table(comparison) if has_training(comparison) else None,
    )


def write_tables(comparison: Comparison, folder: Path) -> tuple[Table, list[Path]]:
    """Write the tables of certified accuracy, ACR, cost and lower bounds of p_A; return the first one and the paths.

    `best` follows where a sigma is chosen, samples.csv/.md where a run's estimation is not fixed, training.csv/.md/.tex
    where a run says what its rows took to train. In the CSV files run and method stand for the label.
    """
    accuracy, acr, costs = accuracy_frame(comparison), acr_frame(comparison), cost_frame(comparison)
    cautioned, main = comparison.cautioned, accuracy_table(accuracy, comparison)
    files = write(folder, "certified_accuracy", accuracy.drop(columns="label"), main, has_latex=True)
    best = best_frame(comparison, accuracy)
    if len(best):
        files += write(
            folder, "best", best.drop(columns="label"), best_table(best, comparison), has_latex=True
        )
    else:
        remove(folder, ["best"])
    files += write(folder, "acr", acr.drop(columns="label"), acr_table(acr, comparison), has_latex=True)
    tables = map(cautioned, cost_tables(costs, comparison))
    files += write(folder, "cost", costs.drop(columns="label"), *tables, has_latex=True)
    bounds = lower_bounds_frame(comparison).drop(columns="label")
    files += write(folder, "p_lower", bounds, cautioned(lower_bounds_table(comparison)))
    samples = samples_frame(comparison)
    if len(samples):
        files += write(folder, "samples", samples.drop(columns="label"), cautioned(samples_table(samples)))
    else:
        remove(folder, ["samples"])
    if has_training(comparison):
        took = training_frame(comparison).drop(columns="label")
        files += write(folder, "training", took, cautioned(training_table(comparison)), has_latex=True)
    else:
        remove(folder, ["training"])
    return main, files


def write_published(
    comparison: Comparison, numbers: Sequence[PublishedNumber], stated: Sequence[Claim], folder: Path
) -> tuple[list[Path], str]:
    """Write published.csv/.md/.tex; return their paths, and how the reported numbers compare with the measured.

    The claims of abstracts on measured methods, a sentence each, follow on lines of their own.
    Where no published number has a method, sigma and radius of the runs, files of these names are removed.

    Args:
        comparison: of runs of one data set.
        numbers, stated: numbers and claims published for that data set.
        folder: made where missing.
    """
    frame = published_frame(comparison, numbers)
    summary = published_sentence(frame, comparison.runs[0].header.dataset, numbers)
    sentence = "\n".join([summary, *claimed_sentences(comparison, stated)])
    if frame.empty:
        remove(folder, ["published"])
        return [], sentence
    table = comparison.cautioned(published_table(frame, comparison, stated))
    return write(folder, "published", frame.drop(columns="label"), table, has_latex=True), sentence


def remove(folder: Path, names: Iterable[str]) -> None:
    """Remove the tables of these names that another command left in a folder: they are not of its runs."""
    for name in names:
        for suffix in ("csv", "md", "tex"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)


def write(
    folder: Path, name: str, frame: pd.DataFrame, *tables: Table, has_latex: bool = False
) -> list[Path]:
    """Write a frame as CSV at full precision and its tables as Markdown, and as LaTeX where asked to; return the paths.

    Args:
        folder: made where missing; files of these names in it are replaced.
        name: of the files, without their suffix.
    """
    texts = {"csv": csv_of(frame), "md": "\n".join(map(to_markdown, tables))}
    if has_latex:
        names = [name if not place else f"{name}-{place + 1}" for place in range(len(tables))]
        texts["tex"] = "\n".join(map(to_latex, tables, names))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        replace_file(path, text)
    return paths


def csv_of(frame: pd.DataFrame) -> str:
    """Return a frame as CSV at full precision, without the columns that only tables need."""
    cells = frame.drop(columns=list(_SHOWN), errors="ignore").apply(_csv_column).rename(columns=csv_text)
    return str(cells.to_csv(index=False, lineterminator="\n"))


def _csv_column(column: pd.Series) -> pd.Series:
    if column.dtype.kind in "biuf":
        return column
    if column.dtype == "str":  # the same few again and again
        return column.map({text: csv_text(text) for text in column.unique()})
    return column.map(csv_text)


def _one_dataset(comparison: Comparison) -> str:
    names = list(dict.fromkeys(run.header.dataset for run in comparison.runs))
    if len(names) > 1:
        raise UsageError(f"--published is for runs of one data set, got {', '.join(names)}; name runs of one")
    return names[0]


def _sentences(comparison: Comparison) -> Iterator[str]:
    """Yield, run by run, the samples that its estimation saved."""
    for number, run in enumerate(comparison.runs):
        if run.header.estimation != "fixed" and run.records:
            entries = [one for one in comparison.everything if one.run_number == number]
            alpha, radii = run.header.alpha, run.header.radii
            used = [samples_used(one.records, alpha, radii) for one in entries]
            yield saved_sentence(used, run.header.estimation)
