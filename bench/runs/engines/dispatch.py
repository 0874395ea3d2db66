"""Jobs spread over workers that may die: which worker gets which job, and what is done again.

How workers are started, told and heard is a Pool's matter: Ray's, or processes of this machine.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Protocol

from bench.errors import EngineError
from bench.runs.engines.base import Job, Loader
from bench.types import Record

MOST_DEATHS = 3
"""Workers that one job may cost, and times that all workers may fail to start, before the run gives up."""

PATIENCE_SECONDS = 600.0
"""How long no worker may be there before the run gives up."""

LATE, RECENT = 2.0, 101
"""A job is late after LATE times the median time of the RECENT last ones."""


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
    pool: Pool,
    workers: int,
    load: Loader,
    jobs: Iterator[Job],
    patience_seconds: float = PATIENCE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[list[Record]]:
    """Yield each job's records as they come, once; the job of a worker that dies goes to another, first in the queue.

    When no job is left, a free worker also does one that another has had for LATE times as long as jobs take: the
    first to have done it counts, so that nobody waits for a slow worker's last job.

    Args:
        pool: closed at the end, whatever that is.
        workers: how many to start, >= 1; each that dies is replaced.
        patience_seconds: how long to wait for a worker when there is none.
        clock: tells the time in seconds.

    Raises:
        EngineError: a job cost MOST_DEATHS workers, as many as MOST_DEATHS times all workers died in a row
            before they were ready, or no worker came.
        BenchError: what the first job that failed raised.
    """
    state = _State(most_failed_starts=MOST_DEATHS * workers, clock=clock)
    if (first := next(jobs, None)) is None:  # no worker has to start to find that out
        return
    jobs = itertools.chain([first], jobs)
    try:
        for _ in range(workers):
            pool.start(load)
        while True:
            while state.idle and (job := state.next_job(jobs)) is not None:
                pool.submit(state.assign(job), job)
            if state.is_over():
                return
            event = pool.wait(state.seconds_to_a_copy(patience_seconds))
            if event is None and not state.running:
                raise EngineError(
                    f"no worker has started within {patience_seconds:g} seconds: ask for fewer resources for each"
                )
            if event is None:
                continue
            if event.death is not None:
                state.bury(event)
                pool.start(load)
            elif (records := state.settle(event)) is not None:
                yield records
    finally:
        pool.close()


class _State:
    """Who does what since when, who is free, what is to be done again, and what two do at once."""

    def __init__(self, most_failed_starts: int, clock: Callable[[], float]) -> None:
        self.running: dict[Hashable, Job] = {}
        self.idle: list[Hashable] = []
        self.again: deque[Job] = deque()
        self.failed_starts = 0
        self._most_failed_starts, self._clock = most_failed_starts, clock
        self._deaths: Counter[Job] = Counter()
        self._since: dict[Hashable, float] = {}
        self._took: deque[float] = deque(maxlen=RECENT)
        self._copied: set[Job] = set()
        self._settled_copies: set[Job] = set()

    def assign(self, job: Job) -> Hashable:
        """Return a free worker, which has the job from now on."""
        worker = self.idle.pop()
        self.running[worker], self._since[worker] = job, self._clock()
        return worker

    def next_job(self, jobs: Iterator[Job]) -> Job | None:
        """Return what is to be done again, else the next new job, else one that is late, else None."""
        job = self.again.popleft() if self.again else next(jobs, None)
        if job is not None:
            return job
        worker = self._oldest_alone()
        if worker is None or self._seconds_until_late(worker) > 0:
            return None
        self._copied.add(self.running[worker])
        return self.running[worker]

    def is_over(self) -> bool:
        """Return whether all jobs are done, after `next_job` had none for a free worker."""
        return bool(self.idle) and all(job in self._settled_copies for job in self.running.values())

    def seconds_to_a_copy(self, most: float) -> float:
        """Return how long to wait for an event before a free worker has something late to do, `most` at most."""
        worker = self._oldest_alone() if self.idle else None
        return most if worker is None else min(most, max(0.0, self._seconds_until_late(worker)))

    def settle(self, event: Event) -> list[Record] | None:
        """Free the event's worker, and return its job's records where these are the first.

        Raises:
            BenchError: what its job raised.
        """
        job = self.running.pop(event.worker, None)
        since = self._since.pop(event.worker, 0.0)
        self.idle.append(event.worker)
        self.failed_starts = 0
        if job in self._settled_copies:
            return None
        if event.error is not None:
            raise event.error
        if job is None or event.records is None:
            return None
        self._took.append(self._clock() - since)
        if job in self._copied:
            self._settled_copies.add(job)
        return event.records

    def bury(self, event: Event) -> None:
        """Queue the dead worker's job again, unless another has it too.

        Raises:
            EngineError: that has been done too often.
        """
        job = self.running.pop(event.worker, None)
        self._since.pop(event.worker, None)
        if event.worker in self.idle:
            self.idle.remove(event.worker)
        elif job is None:
            self.failed_starts += 1
        else:
            self._deaths[job] += event.has_begun
            if job not in self._settled_copies and job not in self.running.values():
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

    def _oldest_alone(self) -> Hashable | None:
        """Return the worker that has had its job longest, of those whose job no other has had."""
        alone = (worker for worker, job in self.running.items() if job not in self._copied)
        return min(alone, key=self._since.__getitem__, default=None)

    def _seconds_until_late(self, worker: Hashable) -> float:
        if not self._took:
            return math.inf
        return self._since[worker] + LATE * statistics.median(self._took) - self._clock()
