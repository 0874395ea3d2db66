"""Where certificates are computed: a run hands its jobs to an Engine and writes the records that come back.

The runner does not know which engine it has. This file imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.types import Record

Certify = Callable[[Sequence[int]], list[Record]]
"""From images' indices in the test split to their records."""

Loader = Callable[[str, float], Certify]
"""(method, sigma) -> what certifies its images; engines of several processes send a copy to each."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Certificates to make together: of images by their indices in the test split, by a method at a sigma."""

    method: str
    sigma: float
    indices: tuple[int, ...]

    def __str__(self) -> str:
        images = ", ".join(map(str, self.indices))
        return f"image{'s' * (len(self.indices) > 1)} {images} of {self.method} at sigma {self.sigma:g}"


class Engine(Protocol):
    """Computes records, in this process or in others."""

    def results(self, load: Loader, jobs: Iterator[Job]) -> Iterator[list[Record]]:
        """Yield each job's records as soon as they are there, in any order of jobs.

        Args:
            load: called once for each method and sigma in each process that computes.
            jobs: taken one by one, as there is room for them.

        Raises:
            BenchError: what the first job that failed raised; the records yielded before it stand.
        """
        ...


class Worker:
    """Does jobs one after the other, with the classifier of the last one kept."""

    def __init__(self, load: Loader) -> None:
        self._load = load
        self._loaded: tuple[str, float] | None = None
        self._certify: Certify | None = None

    def work(self, job: Job) -> list[Record]:
        """Return the job's records."""
        if self._certify is None or self._loaded != (job.method, job.sigma):
            self._certify = None  # frees the last classifier before the next is loaded
            self._certify, self._loaded = self._load(job.method, job.sigma), (job.method, job.sigma)
        return self._certify(job.indices)


class LocalEngine:
    """Does all jobs in this process, in their order."""

    def results(self, load: Loader, jobs: Iterator[Job]) -> Iterator[list[Record]]:
        """Yield each job's records; see `Engine`."""
        yield from map(Worker(load).work, jobs)
