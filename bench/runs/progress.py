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


class Throughput:
    """Samples per second of wall time over all workers of a run, from its first record to the last one so far."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began: float | None = None
        self._now = 0.0
        self._samples = 0

    def add(self, record: Record) -> None:
        """Count a record that has just come; what the first one took belongs to the start of the workers."""
        self._now = self._clock()
        if self._began is None:
            self._began = self._now
        else:
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
