"""Progress of long commands, as bars on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.config.run import RunConfig
from bench.errors import plain
from bench.runs.progress import Observer, Throughput
from bench.types import Record

if TYPE_CHECKING:
    from bench.training.loop import Progress as TrainingProgress

T = TypeVar("T")

LOADER_IS_SLOW = 0.2
"""Share of a training's time spent waiting for images above which the loader, not the model, sets the pace."""


class Bars:
    """A bar for each thing that is done: its name, how many of how many, a detail, time gone and time left.

    Use it in a `with` statement.

    Args:
        is_shown: False shows nothing.
    """

    def __init__(self, *, is_shown: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not is_shown,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, name: str, *, done: int, total: int, detail: str = "") -> None:
        """Show that `done` of `total` steps of something are done; its bar is added where there is none."""
        name, detail = plain(name), plain(detail)
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, completed=done, detail=detail)
        self._progress.update(self._tasks[name], total=total, completed=done, detail=detail)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(plain(text), highlight=False, markup=False)

    def training(self, method: str, sigma: float, progress: TrainingProgress) -> None:
        """Show the progress of one stage of a training."""
        name, detail = f"train {progress.stage}", training_detail(progress)
        self.show(name, done=progress.step, total=progress.max_steps, detail=detail)

    def audited(self, method: str, sigma: float, done: int, total: int) -> None:
        """Show how many images of a method at a sigma are audited."""
        self.show(f"audit {method} at sigma {sigma:g}", done=done, total=total)


def training_detail(progress: TrainingProgress) -> str:
    """Return loss and best held-out score of a training, and whether it waits for its images."""
    score = "" if progress.score is None else f", held-out score {progress.score:.1%}"
    loader = ""
    if progress.waiting > LOADER_IS_SLOW:
        loader = f", {progress.waiting:.0%} of the time waiting for images: raise --workers"
    return f"steps at most, loss {progress.loss:.3f}{score}{loader}"


@dataclass(kw_only=True)
class _Counter:
    """What a run has done for one method at one sigma, or in all; seconds and samples are this command's."""

    total: int = 0
    done: int = 0
    certified: int = 0
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


class RunBars(Bars, Observer):
    """Bars of a run: images done and certified, and samples per second, per method and sigma, and of all."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self._curves = len(config.methods) * len(config.sigmas)
        sigmas = ", ".join(f"{sigma:g}" for sigma in config.sigmas)
        most = "" if config.estimation == "fixed" else "at most "
        self.say(
            f"{self._curves} curve{'s' * (self._curves > 1)} ({', '.join(config.methods)} at sigma {sigmas}) on "
            f"{config.dataset}, {most}{config.n0 + config.n} samples an image"
        )
        self._all = _Counter()
        self._counters: dict[tuple[str, float], _Counter] = {}
        self._throughput = Throughput()

    def note(self, text: str) -> None:
        """Print a sentence above the bars."""
        self.say(f"note: {text}")

    def begin(self, method: str, sigma: float, total: int, done: int, certified: int) -> None:
        """Add a bar for a method at a sigma, below one for the whole run."""
        self._all.total = total * self._curves
        self._all.done += done
        self._counters[method, sigma] = _Counter(total=total, done=done, certified=certified)
        self._show_all()
        self._show(method, sigma)

    def certified(self, record: Record) -> None:
        """Advance the bars by one image."""
        self._all.add(record)
        self._counters[record.method, record.sigma].add(record)
        self._throughput.add(record)
        self._show(record.method, record.sigma)
        self._show_all()

    def measuring(self, methods: tuple[str, ...]) -> None:
        """Say that the costs are being measured."""
        self.note(f"measuring the inference cost of {', '.join(methods)}, interleaved")

    def _show(self, method: str, sigma: float) -> None:
        counter = self._counters[method, sigma]
        self.show(
            f"{method} at sigma {sigma:g}", done=counter.done, total=counter.total, detail=counter.detail()
        )

    def _show_all(self) -> None:
        rate = self._throughput.samples_per_second
        detail = "" if rate is None else f"{rate:,.0f} samples/s"
        self.show("[bold]all", done=self._all.done, total=self._all.total, detail=detail)


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the items, with a bar on stderr."""
    with Bars() as bars:
        bars.show(what, done=0, total=total)
        for done, item in enumerate(items, 1):
            bars.show(what, done=done, total=total)
            yield item
