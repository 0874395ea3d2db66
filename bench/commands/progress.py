"""Progress of long commands on stderr: bars on a terminal, and where there is none a line every half minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench.commands.printing import duration
from bench.commands.terminal.lines import Task, line
from bench.config.run import RunConfig
from bench.errors import plain
from bench.runs.progress import Estimate, Observer, Throughput
from bench.types import Record

if TYPE_CHECKING:
    from bench.training.loop import Progress as TrainingProgress

T = TypeVar("T")

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""

SHOWN = 6
"""Tasks on the screen at most: those that moved last."""

LOADER_IS_SLOW = 0.2
"""Share of a training's time spent waiting for images above which the loader, not the model, sets the pace."""


class Bars:
    """What is under way, a line each, on stderr; what is finished is printed as a line above.

    Use it in a `with` statement.

    Args:
        is_shown: False shows nothing.
        clock: seconds, increasing.
    """

    def __init__(self, *, is_shown: bool = True, clock: Callable[[], float] = time.perf_counter) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._is_shown = is_shown
        self._clock = clock
        self._tasks: dict[str, Task] = {}
        self._last = ""
        self._ended = threading.Event()
        self._live = Live(console=self._console, get_renderable=self._screen, transient=True)
        self._lines = threading.Thread(target=self._print_lines, daemon=True)

    def __enter__(self) -> Self:
        if self._is_shown and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live.start()
        elif self._is_shown:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._live.is_started:
            self._live.stop()
        elif self._lines.is_alive():
            self._lines.join()
        for task in self._tasks.values():
            self._print(task)

    def show(
        self,
        name: str,
        *,
        done: int,
        total: int,
        detail: str | tuple[str, ...] = (),
    ) -> None:
        """Show that `done` of `total` steps of something are done; its line is added where there is none.

        Args:
            detail: what else is known of it, the most important first.
        """
        now = self._clock()
        name, parts = plain(name), (detail,) if isinstance(detail, str) else detail
        task = self._tasks.pop(name, None) or Task(
            name=name, total=total, done=done, before=done, began=now, updated=now
        )
        if done != task.done:
            task.updated = now
        task.done, task.total = done, total
        task.detail = tuple(map(plain, filter(None, parts)))
        self._tasks[name] = task
        if done >= total and name != ALL:
            self._print(self._tasks.pop(name))

    def say(self, text: str) -> None:
        """Print a line above what is under way."""
        if self._is_shown:
            self._console.print(plain(text), markup=False, soft_wrap=not self._console.is_terminal)

    def training(self, method: str, sigma: float, progress: TrainingProgress) -> None:
        """Show the progress of one stage of a training."""
        name, detail = f"train {progress.stage}", training_detail(progress)
        self.show(name, done=progress.step, total=progress.max_steps, detail=detail)

    def audited(self, method: str, sigma: float, done: int, total: int) -> None:
        """Show how many images of a method at a sigma are audited."""
        self.show(f"audit {method} at sigma {sigma:g}", done=done, total=total)

    def lines(self, width: int) -> list[str]:
        """Return the lines of what is under way, the one that moved last at the end, "all" below them."""
        tasks = sorted(list(self._tasks.values())[-SHOWN:], key=lambda task: task.name == ALL)
        return [line(task, self._clock(), width) for task in tasks]

    def _screen(self) -> Text:
        return Text("\n".join(self.lines(self._console.width)), no_wrap=True, overflow="crop")

    def _print(self, task: Task) -> None:
        """Print a task that is finished or left: it took so long."""
        took = duration(task.updated - task.began)
        parts = (task.name, f"{task.done:,}/{task.total:,}", f"in {took}", *task.detail)
        if task.done > task.before:
            self.say("  ".join(parts))

    def _print_lines(self) -> None:
        while not self._ended.wait(EVERY):
            for text in self.lines(100):
                self.say(text)


ALL = "all"
"""Name of the line of everything together, which stays below the others."""


def training_detail(progress: TrainingProgress) -> tuple[str, ...]:
    """Return loss and best held-out score of a training, and whether it waits for its images."""
    parts = [f"loss {progress.loss:.3f}"]
    if progress.score is not None:
        parts.append(f"held-out score {progress.score:.1%}")
    if progress.waiting > LOADER_IS_SLOW:
        parts.append(f"{progress.waiting:.0%} of the time waits for images: raise --workers")
    return tuple(parts)


@dataclass(kw_only=True)
class _Counter:
    """What a run has done for one method at one sigma, or in all; the throughput is this command's."""

    total: int = 0
    done: int = 0
    certified: int = 0
    throughput: Throughput = field(default_factory=Throughput)

    def add(self, record: Record) -> None:
        """Count one record."""
        self.done += 1
        self.certified += record.is_correct
        self.throughput.add(record)

    @property
    def rate(self) -> tuple[str, ...]:
        """Samples per second of all workers together, () where there are too few records to tell."""
        rate = self.throughput.samples_per_second
        return () if rate is None else (f"{rate:,.0f} samples/s",)

    def detail(self) -> tuple[str, ...]:
        """Return samples per second, and images certified."""
        return (*self.rate, f"{self.certified} certified") if self.done else ()


class RunBars(Bars, Observer):
    """Lines of a run: images done and certified, and samples per second, per method and sigma, and of all."""

    def __init__(self, config: RunConfig, *, is_shown: bool = True, measures_first: bool = True) -> None:
        super().__init__(is_shown=is_shown)
        self.measures_first = is_shown and measures_first
        self._curves = len(config.methods) * len(config.sigmas)
        self._config = config
        self._all = _Counter()
        self._counters: dict[tuple[str, float], _Counter] = {}

    def note(self, text: str) -> None:
        """Print a sentence above the lines."""
        self.say(f"note: {text}")

    def estimated(self, estimate: Estimate) -> None:
        """Say how much there is to certify and how long that takes here."""
        for text in (*estimate_lines(self._config, estimate), *missing_lines(estimate.missing)):
            self.say(text)

    def begin(self, method: str, sigma: float, total: int, done: int, certified: int) -> None:
        """Count what is done of a method at a sigma."""
        self._all.total = total * self._curves
        self._all.done += done
        self._counters[method, sigma] = _Counter(total=total, done=done, certified=certified)
        self._show_all()
        self._show(method, sigma)

    def certified(self, record: Record) -> None:
        """Advance the lines by one image."""
        self._all.add(record)
        self._counters[record.method, record.sigma].add(record)
        self._show(record.method, record.sigma)
        self._show_all()

    def measuring(self, methods: tuple[str, ...]) -> None:
        """Say that the costs are being measured."""
        self.say(f"measuring the inference cost of {', '.join(methods)}, interleaved")

    def _show(self, method: str, sigma: float) -> None:
        counter = self._counters[method, sigma]
        name = f"{method} σ={sigma:g}"
        self.show(name, done=counter.done, total=counter.total, detail=counter.detail())

    def _show_all(self) -> None:
        self.show(ALL, done=self._all.done, total=self._all.total, detail=self._all.rate)


def estimate_lines(config: RunConfig, estimate: Estimate) -> list[str]:
    """Return what a run is and how long it takes here, a sentence each."""
    samples = estimate.certificates * (config.n0 + config.n)
    most = "" if config.estimation == "fixed" else "at most "
    methods, sigmas = ", ".join(config.methods), ", ".join(f"{sigma:g}" for sigma in config.sigmas)
    found = [
        f"{estimate.certificates:,} certificates to make, {most}{samples:,} samples: {methods} at sigma {sigmas} "
        f"on {config.dataset}."
    ]
    if estimate.seconds is not None and estimate.certificates:
        found.append(f"About {duration(estimate.seconds)} here, measured on the first image of each method.")
    return found


def missing_lines(missing: Mapping[str, float | None]) -> list[str]:
    """Return which checkpoints are missing, and how long training each takes here; [] for none.

    Args:
        missing: name -> seconds; None where they cannot be told.
    """
    return [
        f"missing: {name}, trained first" + ("" if seconds is None else f", about {duration(seconds)} here")
        for name, seconds in missing.items()
    ]


def track(items: Iterable[T], what: str, total: int, *, is_shown: bool = True) -> Iterator[T]:
    """Yield the items, with a line on stderr unless none is to be shown."""
    with Bars(is_shown=is_shown) as bars:
        bars.show(what, done=0, total=total)
        for done, item in enumerate(items, 1):
            bars.show(what, done=done, total=total)
            yield item
