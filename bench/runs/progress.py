"""A run's progress without torch: which certificates are missing, and each record's way to the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.config.run import RunConfig
from bench.records.file import RecordsFile
from bench.runs.engines.base import Job
from bench.types import Record, Run

if TYPE_CHECKING:
    from bench.training.loop import Progress


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is to be done before a run ends, and how long that takes on this machine.

    Attributes:
        certificates: those that the run lacks.
        seconds: to make them; None where it was not measured.
        missing: checkpoints that are trained first, name -> seconds of training; None where they cannot be told.
    """

    certificates: int
    seconds: float | None = None
    missing: Mapping[str, float | None] = field(default_factory=dict)


class Observer:
    """What a run tells while it goes on; every method may be overridden, and by default says nothing.

    Attributes:
        measures_first: whether `estimated` wants the time of a run, for which each method certifies one image first.
    """

    measures_first = False

    def estimated(self, estimate: Estimate) -> None:
        """Take what is to be done, before it begins."""

    def note(self, text: str) -> None:
        """Take a sentence that the user should read."""

    def training(self, method: str, sigma: float, progress: Progress) -> None:
        """Take the progress of a training."""

    def begin(self, method: str, sigma: float, total: int, done: int, certified: int) -> None:
        """Take the start of a method at a sigma: images in all, done before, and certified among those."""

    def certified(self, record: Record) -> None:
        """Take a record that was just written."""

    def measuring(self, methods: tuple[str, ...]) -> None:
        """Take the start of the cost measurement."""


class ProgressLines(Observer):
    """Tells the progress of a run in lines of text: for notebooks and logs.

    Args:
        say: takes each line, such as `print`.
        seconds: between two lines on the same method and sigma, at least; its last image is always told.
        clock: seconds, increasing.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        seconds: float = 30.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._say = say
        self._seconds = seconds
        self._clock = clock
        self._counts: dict[tuple[str, float], tuple[int, int]] = {}
        self._told: dict[tuple[str, float], float] = {}

    def note(self, text: str) -> None:
        """Pass a sentence on."""
        self._say(text)

    def training(self, method: str, sigma: float, progress: Progress) -> None:
        """Tell the step of a training."""
        if self._is_due((method, sigma)):
            self._say(
                f"{method} at sigma {sigma:g}: {progress.stage}, step {progress.step:,} of {progress.max_steps:,}"
            )

    def begin(self, method: str, sigma: float, total: int, done: int, certified: int) -> None:
        """Take how many images there are."""
        self._counts[method, sigma] = (done, total)
        self._told[method, sigma] = self._clock()

    def certified(self, record: Record) -> None:
        """Count a certificate; tell how many there are where a line is due."""
        key = (record.method, record.sigma)
        done, total = self._counts[key]
        self._counts[key] = (done + 1, total)
        if done + 1 == total or self._is_due(key):
            self._say(f"{record.method} at sigma {record.sigma:g}: {done + 1} of {total} images certified")

    def measuring(self, methods: tuple[str, ...]) -> None:
        """Tell that the cost is measured."""
        self._say(f"measuring the cost of {', '.join(methods)}")

    def _is_due(self, key: tuple[str, float]) -> bool:
        now = self._clock()
        if key in self._told and now - self._told[key] < self._seconds:
            return False
        self._told[key] = now
        return True


TOGETHER = 0.01
"""Seconds within which records come that were made in one job."""


class Throughput:
    """Samples per second of wall time over all workers of a run, from its first record to the last one so far."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began: float | None = None
        self._now = 0.0
        self._samples = 0

    def add(self, record: Record) -> None:
        """Count a record that has just come; what those of the first job took belongs to the start of the workers."""
        self._now = self._clock()
        if self._began is None:
            self._began = self._now
        elif self._now - self._began > TOGETHER:
            self._samples += record.samples

    @property
    def samples_per_second(self) -> float | None:
        """None before there are two records."""
        if self._began is None or not self._samples:
            return None
        return self._samples / (self._now - self._began)


def pending_jobs(
    run: Run,
    config: RunConfig,
    indices: Sequence[int],
    observer: Observer,
    together: Callable[[str], int] = lambda method: 1,
) -> Iterator[Job]:
    """Yield jobs of all certificates that the run lacks, sigma by sigma; tell the observer as each method begins.

    Args:
        together: method -> images of a job at most.
    """
    known: dict[tuple[str, float], dict[int, Record]] = {}
    for record in run.records:
        known.setdefault((record.method, record.sigma), {})[record.index] = record
    for sigma in config.sigmas:
        for method in config.methods:
            before = known.get((method, sigma), {})
            done = [before[index] for index in indices if index in before]
            observer.begin(method, sigma, len(indices), len(done), sum(record.is_correct for record in done))
            missing = [index for index in indices if index not in before]
            size = together(method)
            for first in range(0, len(missing), size):
                yield Job(method=method, sigma=sigma, indices=tuple(missing[first : first + size]))


def write_results(
    results: Iterator[list[Record]],
    records: RecordsFile,
    observer: Observer,
    held: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Write each job's records as they come, and tell the observer; `held` is entered around each job."""
    while True:
        with held():
            made = next(results, None)
            if made is None:
                return
            records.append(*made)  # of one job, on the disk at once
            for record in made:
                observer.certified(record)
