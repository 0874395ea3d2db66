"""Jobs spread over workers that may die: which worker gets which job, and what is done again.

How workers are started, told and heard is a Pool's matter: Ray's, or processes of this machine.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Protocol

from bench.engine import Job, Loader
from bench.errors import EngineError
from bench.types import Record

MOST_DEATHS = 3
"""Workers that one job may cost, and times that all workers may fail to start, before the run gives up."""

PATIENCE_SECONDS = 600.0
"""How long no worker may be there before the run gives up."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a worker did.

    Attributes:
        records: of its job; None where it has just become ready, or has failed.
        error: what its job raised, or None.
        death: why it is gone, or None.
        has_begun: False where it died before it began the job that it was given.
    """

    worker: Hashable
    records: list[Record] | None = None
    error: Exception | None = None
    death: str | None = None
    has_begun: bool = True


class Pool(Protocol):
    """Workers, each of which becomes ready once and then does one job at a time."""

    def start(self, load: Loader) -> None:
        """Start one more worker; it tells by an event when it is ready."""
        ...

    def submit(self, worker: Hashable, job: Job) -> None:
        """Give a worker a job."""
        ...

    def wait(self, seconds: float) -> Event | None:
        """Return the next event, or None if there is none for so long."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


def dispatch(
    pool: Pool, workers: int, load: Loader, jobs: Iterator[Job], patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[list[Record]]:
    """Yield each job's records as they come; the job of a worker that dies goes to another, first in the queue.

    Args:
        pool: closed at the end, whatever that is.
        workers: how many to start, >= 1; each that dies is replaced.
        patience_seconds: how long to wait for a worker when there is none.

    Raises:
        EngineError: a job cost MOST_DEATHS workers, as many as MOST_DEATHS times all workers died in a row
            before they were ready, or no worker came.
        BenchError: what the first job that failed raised.
    """
    state = _State(most_failed_starts=MOST_DEATHS * workers)
    try:
        for _ in range(workers):
            pool.start(load)
        while True:
            while state.idle and (job := state.next_job(jobs)) is not None:
                worker = state.idle.pop()
                state.running[worker] = job
                pool.submit(worker, job)
            if not state.running and state.idle:
                return
            event = pool.wait(patience_seconds)
            if event is None and not state.running:
                raise EngineError(
                    f"no worker has started within {patience_seconds:g} seconds: ask for fewer resources for each"
                )
            if event is None:
                continue
            if event.death is not None:
                state.bury(event)
                pool.start(load)
                continue
            done = state.running.pop(event.worker, None)
            state.idle.append(event.worker)
            state.failed_starts = 0
            if event.error is not None:
                raise event.error
            if done is not None and event.records is not None:
                yield event.records
    finally:
        pool.close()


class _State:
    """Who does what, who is free, what is to be done again."""

    def __init__(self, most_failed_starts: int) -> None:
        self.running: dict[Hashable, Job] = {}
        self.idle: list[Hashable] = []
        self.again: deque[Job] = deque()
        self.failed_starts = 0
        self._most_failed_starts = most_failed_starts
        self._deaths: Counter[Job] = Counter()

    def next_job(self, jobs: Iterator[Job]) -> Job | None:
        """Return what is to be done again, else the next new job, else None."""
        return self.again.popleft() if self.again else next(jobs, None)

    def bury(self, event: Event) -> None:
        """Queue the dead worker's job again.

        Raises:
            EngineError: that has been done too often.
        """
        job = self.running.pop(event.worker, None)
        if event.worker in self.idle:
            self.idle.remove(event.worker)
        elif job is None:
            self.failed_starts += 1
        else:
            self._deaths[job] += event.has_begun
            self.again.append(job)
        if self.failed_starts == self._most_failed_starts:
            raise EngineError(
                f"{self.failed_starts} workers in a row died before they were ready ({event.death})"
            )
        if job is not None and self._deaths[job] == MOST_DEATHS:
            raise EngineError(
                f"{job} cost {MOST_DEATHS} workers ({event.death}): give each more memory, or a smaller "
                "--batch-size"
            )
