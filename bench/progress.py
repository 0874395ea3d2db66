"""A run's progress without torch: which certificates are missing, and each record's way to the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from bench.config import RunConfig
from bench.engine import Job
from bench.records import RecordsFile
from bench.types import Record, Run

if TYPE_CHECKING:
    from bench.train import Progress


class Observer:
    """What a run tells while it goes on; every method may be overridden, and by default says nothing."""

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


def pending_jobs(run: Run, config: RunConfig, indices: Sequence[int], observer: Observer) -> Iterator[Job]:
    """Yield a job per certificate that the run lacks, sigma by sigma; tell the observer as each method begins."""
    known: dict[tuple[str, float], dict[int, Record]] = {}
    for record in run.records:
        known.setdefault((record.method, record.sigma), {})[record.index] = record
    for sigma in config.sigmas:
        for method in config.methods:
            before = known.get((method, sigma), {})
            done = [before[index] for index in indices if index in before]
            observer.begin(method, sigma, len(indices), len(done), sum(record.is_correct for record in done))
            for index in indices:
                if index not in before:
                    yield Job(method=method, sigma=sigma, index=index)


def write_results(
    results: Iterator[Record],
    records: RecordsFile,
    observer: Observer,
    held: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Write each record as it comes, and tell the observer."""
    while True:
        with held():
            record = next(results, None)
            if record is None:
                return
            records.append(record)
            observer.certified(record)
