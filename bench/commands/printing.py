"""What the commands show with rich: progress on stderr, tables on stdout. Belongs to cli.py."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from bench.checks.selftest import Check, Size
from bench.config.run import RunConfig
from bench.device import timing
from bench.report import markup
from bench.report.comparison import REFERENCE
from bench.report.metrics import group, samples_used
from bench.report.tables.accuracy import main_table
from bench.report.tables.samples import saved_sentence
from bench.runs.progress import Observer, Throughput
from bench.training.loop import Progress as TrainingProgress
from bench.types import Record, Run

T = TypeVar("T")

LOADER_IS_SLOW = 0.2
"""Share of a training's time spent waiting for images above which the loader, not the model, sets the pace."""


class TrainingDisplay:
    """A progress bar per stage of a training: step, loss, best held-out accuracy, time left at most."""

    def __init__(self, progress: Progress | None = None, *, is_shown: bool = True) -> None:
        self._progress = progress or Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TextColumn("at most"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(stderr=True),
            disable=not is_shown,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> TrainingDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def training(self, method: str, sigma: float, progress: TrainingProgress) -> None:
        """Show the progress of one stage."""
        score = "" if progress.score is None else f", held-out score {progress.score:.1%}"
        loader = ""
        if progress.waiting > LOADER_IS_SLOW:
            loader = f", {progress.waiting:.0%} of the time waiting for images: raise --workers"
        if progress.stage not in self._tasks:
            self._tasks[progress.stage] = self._progress.add_task(
                f"train {progress.stage}", total=None, detail=""
            )
        self._progress.update(
            self._tasks[progress.stage],
            total=progress.max_steps,
            completed=progress.step,
            detail=f"steps, loss {progress.loss:.3f}{score}{loader}",
        )


@dataclass(kw_only=True)
class _Counter:
    """What a run has done for one method at one sigma; seconds and samples are this command's."""

    task: TaskID
    done: int
    certified: int
    seconds: float = 0.0
    samples: int = 0

    def add(self, record: Record) -> None:
        """Count one record."""
        self.done += 1
        self.certified += record.is_correct
        self.seconds += record.seconds
        self.samples += record.samples

    def detail(self) -> str:
        """Return certified images, and samples per second of computing."""
        certified = f"{self.certified} certified"
        if self.samples == 0:
            return certified if self.done else ""
        return f"{certified}, {self.samples / self.seconds:,.0f} samples/s"


class RunDisplay(Observer):
    """Progress of a run: images done, certified so far, samples per second and time left, per method and sigma."""

    def __init__(self, config: RunConfig) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        total = len(config.methods) * len(config.sigmas)
        sigmas = ", ".join(f"{sigma:g}" for sigma in config.sigmas)
        most = "" if config.estimation == "fixed" else "at most "
        self._console.print(
            f"{total} curve{'s' * (total > 1)} ({', '.join(config.methods)} at sigma {sigmas}) on "
            f"{config.dataset}, {most}{config.n0 + config.n} samples an image",
            highlight=False,
        )
        self._trainings = TrainingDisplay(self._progress)
        self._all: TaskID | None = None
        self._throughput = Throughput()
        self._counters: dict[tuple[str, float], _Counter] = {}
        self._curves = total

    def __enter__(self) -> RunDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Print a sentence above the bars."""
        self._progress.console.print(f"note: {text}", highlight=False)

    def training(self, method: str, sigma: float, progress: TrainingProgress) -> None:
        """Show the progress of a training."""
        self._trainings.training(method, sigma, progress)

    def begin(self, method: str, sigma: float, total: int, done: int, certified: int) -> None:
        """Add a bar for a method at a sigma, and one for the whole run before the first."""
        if self._all is None:
            self._all = self._progress.add_task("[bold]all", total=total * self._curves, detail="")
        self._progress.advance(self._all, done)
        task = self._progress.add_task(f"{method} at sigma {sigma:g}", total=total, completed=done, detail="")
        counter = _Counter(task=task, done=done, certified=certified)
        self._progress.update(task, detail=counter.detail())
        self._counters[method, sigma] = counter

    def certified(self, record: Record) -> None:
        """Advance the bars by one image."""
        assert self._all is not None
        counter = self._counters[record.method, record.sigma]
        counter.add(record)
        self._progress.update(counter.task, completed=counter.done, detail=counter.detail())
        self._throughput.add(record)
        rate = self._throughput.samples_per_second
        self._progress.update(self._all, advance=1, detail="" if rate is None else f"{rate:,.0f} samples/s")

    def measuring(self, methods: tuple[str, ...]) -> None:
        """Say that the costs are being measured."""
        self.note(f"measuring the inference cost of {', '.join(methods)}, interleaved")


class AuditDisplay:
    """A progress bar per method and sigma of an audit."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[tuple[str, float], TaskID] = {}

    def __enter__(self) -> AuditDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def audited(self, method: str, sigma: float, done: int, total: int) -> None:
        """Show that `done` of `total` images of a method at a sigma are audited."""
        key = (method, sigma)
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(f"audit {method} at sigma {sigma:g}", total=total)
        self._progress.update(self._tasks[key], completed=done)


class TaskDisplay:
    """A progress bar over steps of unequal length, with the name of the last one done."""

    def __init__(self, total: int) -> None:
        self._progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> TaskDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def done(self, name: str) -> None:
        """Show that a step is done."""
        self._progress.update(self._task, advance=1, description=name)


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the items, with a bar on stderr."""
    with Progress(console=Console(stderr=True)) as progress:
        yield from progress.track(items, description=what, total=total)


def check_table(checks: Sequence[Check], size: Size) -> None:
    """Print the checks of a self-test, and what they mean."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, header in enumerate(
        ("truth", "mode", "trials", "violations", "allowed", "reach", "verdict")
    ):
        table.add_column(header, justify="left" if position < 2 else "right")
    for check in checks:
        reach = "–" if check.reach != check.reach else f"{check.reach:.2f}"
        verdict = "passes" if check.passes else "FAILS"
        numbers = map(str, (check.trials, check.violations, check.allowed))
        table.add_row(check.name, check.mode, *numbers, reach, verdict)
    console = _stdout()
    console.print(table)
    console.print(
        f"alpha {size.alpha:g}, n0 {size.n0}, n {size.n}. Violations: another class than the smoothed one, or a "
        "radius beyond the true one. A sound certifier exceeds what is allowed anywhere with probability 1e-6 at "
        "most. Reach: mean certified radius over the true one; for PREDICT the share of right answers.",
        highlight=False,
    )


def print_table(table: markup.Table, *, has_intervals: bool = False) -> None:
    """Print a table with its notes, and with the intervals of its numbers where asked to."""
    _print_table(_stdout(240 if has_intervals else 160), table, has_intervals)


def name_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of names and what they are."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, header in enumerate(headers):
        table.add_column(header, no_wrap=position == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    _stdout().print(table)


def print_results(runs: Sequence[Run], out: Path, written: Sequence[Path]) -> None:
    """Print the main table, the speedups relative to diffusion smoothing, and where everything lies."""
    console = _stdout()
    _print_table(console, main_table(runs))
    for run in runs:
        for line in (*speedup_lines(run), *samples_lines(run)):
            console.print(line, highlight=False)
    console.print(f"Tables and figures: {out} ({len(written)} files)", highlight=False, soft_wrap=True)


def speedup_lines(run: Run) -> list[str]:
    """Return a sentence per method: how many times the throughput of the reference it has."""
    if not any(measured.method == REFERENCE for measured in run.costs):
        return []
    lines = []
    for speedup in timing.speedups(run.costs, REFERENCE):
        if speedup.method != REFERENCE:
            ratio = speedup.ratio
            lines.append(
                f"{speedup.method} is {markup.format_significant(ratio.median)} times as fast as {REFERENCE} "
                f"(quartiles {markup.format_significant(ratio.first)} to {markup.format_significant(ratio.third)}, "
                f"{run.costs[0].device})."
            )
    return lines


def samples_lines(run: Run) -> list[str]:
    """Return the share of samples saved, in one sentence; none for fixed estimation."""
    header = run.header
    if header.estimation == "fixed" or not run.records:
        return []
    used = [samples_used(records, header.alpha, header.radii) for records in group(run.records).values()]
    return [saved_sentence(used, header.estimation)]


def _print_table(console: Console, table: markup.Table, has_intervals: bool = False) -> None:
    """Print the table, one block after the other, with the intervals behind the numbers or without them."""
    shown = Table(title=table.caption, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for position, header in enumerate(table.headers):
        shown.add_column(header, justify="left" if position == 0 else "right", no_wrap=True)
    for block in table.blocks:
        if block.title:
            shown.add_row(Text(block.title, style="italic"))
        for row in block.rows:
            shown.add_row(*(_text(cell, has_intervals) for cell in row))
        shown.add_section()
    console.print(shown)
    for note in table.notes:
        console.print(note, highlight=False, markup=False, style="dim")


def _text(cell: markup.Cell, has_interval: bool) -> Text:
    text = Text(cell.text, style="bold" if cell.is_best else "")
    return text.append(f" {cell.detail}", style="not bold") if has_interval and cell.interval else text


def status_table(run: Run, what_to_do: str = "") -> None:
    """Print, for each method and sigma, the images done and left, and the time that is left by the records.

    Args:
        what_to_do: how to finish it; "": by repeating the command of its header.
    """
    header = run.header
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{run.folder}", title_justify="left")
    for name in ("method", "sigma", "done", "left", "certified", "seconds per image", "time left"):
        table.add_column(name, justify="left" if name == "method" else "right")
    left_in_all, seconds_in_all = 0, 0.0
    for sigma in header.sigmas:
        for method in header.methods:
            records = [r for r in run.records if (r.method, r.sigma) == (method, sigma)]
            left = len(header.indices) - len(records)
            per_image = _seconds_per_image(run, method, sigma)
            left_in_all += left
            seconds_in_all += left * (per_image or 0.0)
            table.add_row(
                method,
                f"{sigma:g}",
                str(len(records)),
                str(left),
                str(sum(record.is_correct for record in records)),
                "unknown" if per_image is None else f"{per_image:.3g}",
                duration(left * per_image) if per_image is not None else "unknown",
            )
    console = _stdout()
    console.print(table)
    measured = sorted({measured.method for measured in run.costs})
    console.print(f"Costs measured: {', '.join(measured) or 'none yet'}.", highlight=False)
    if left_in_all:
        console.print(
            f"{left_in_all} images left, about {duration(seconds_in_all)}; "
            f"{what_to_do or f'continue with: {header.command}'}",
            highlight=False,
            soft_wrap=True,
        )
    else:
        end = f"; {what_to_do}." if what_to_do else "."
        console.print(f"All images are certified{end}", highlight=False, soft_wrap=True)


def _seconds_per_image(run: Run, method: str, sigma: float) -> float | None:
    """Return the median time of an image, from this sigma's records, else from the method's at any sigma."""
    at_sigma = [r.seconds for r in run.records if (r.method, r.sigma) == (method, sigma)]
    seconds = at_sigma or [r.seconds for r in run.records if r.method == method]
    return statistics.median(seconds) if seconds else None


def duration(seconds: float) -> str:
    """Return a time for reading: "41 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _stdout(width: int = 160) -> Console:
    """Return the console for results; a pipe gets lines of `width` characters."""
    console = Console()
    return console if console.is_terminal else Console(width=width)
