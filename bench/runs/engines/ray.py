"""Workers as actors of a Ray cluster, or of a Ray instance on this machine; needs the optional extra `ray`."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.errors import EngineError
from bench.runs.engines.base import Job, Loader, Worker
from bench.runs.engines.dispatch import Event, dispatch
from bench.types import Record

CONNECT_SECONDS = 10.0
"""How long a cluster may take to answer."""


def installed_ray() -> Any:
    """Return the library.

    Raises:
        EngineError: it is not installed.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise EngineError(
            "--engine ray needs Ray: pip install 'rrcm-bench[ray]', or leave --engine out"
        ) from error
    return ray


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Spreads jobs over the workers of a cluster.

    Attributes:
        address: of a running cluster, "auto" or HOST:PORT; None starts Ray on this machine.
        cpus_per_worker, gpus_per_worker: what each worker takes, >= 0, not both 0.
        cpus: processors of a Ray that is started here; None: all.
        workers: how many to ask for, >= 1; those without room begin when a node with room joins. None: as many as
            there is room for now.
    """

    address: str | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    cpus: int | None = None
    workers: int | None = None
    library: Callable[[], Any] = installed_ray

    def results(self, load: Loader, jobs: Iterator[Job]) -> Iterator[list[Record]]:
        """Yield each job's records as they come; see `bench.runs.engines.base.Engine` and `.dispatch`.

        Raises:
            EngineError: Ray is not installed, the cluster is not there, or has no room for a worker.
        """
        ray = self.library()
        try:
            self._connect(ray)
        except (OSError, ValueError, RuntimeError) as error:  # such as another version of Ray
            raise EngineError(
                f"no Ray cluster answers at {self.address!r} ({error}): start one with `ray start --head`"
            ) from error
        try:
            workers = self.worker_count(ray.cluster_resources())
            yield from dispatch(RayPool(ray, self), workers, load, jobs)
        finally:
            ray.shutdown()

    def _connect(self, ray: Any) -> None:
        """Connect to the cluster or start one here; what SIGTERM does stays the run's matter."""
        _check_reachable(self.address)
        is_ours, before = self.address is None, signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address="local" if is_ours else self.address,
                num_cpus=self.cpus if is_ours else None,
                include_dashboard=False if is_ours else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        finally:
            if threading.current_thread() is threading.main_thread():  # elsewhere Ray has changed nothing
                signal.signal(signal.SIGTERM, before)

    def worker_count(self, resources: dict[str, float]) -> int:
        """Return how many workers to ask for: as given, else as many as a cluster of these resources holds at once.

        Raises:
            EngineError: it has no room for one.
        """
        if self.workers is not None:
            return self.workers
        wanted = {"CPU": self.cpus_per_worker, "GPU": self.gpus_per_worker}
        room = min(int(resources.get(name, 0) / amount) for name, amount in wanted.items() if amount > 0)
        if room < 1:
            there = {name: resources.get(name, 0) for name in wanted}
            raise EngineError(
                f"a worker takes {wanted}, but the cluster has {there} in all: lower --cpus-per-worker or "
                "--gpus-per-worker"
            )
        return room


class RayPool:
    """Actors that are sent jobs and give back records; see `bench.runs.engines.dispatch.Pool`."""

    def __init__(self, ray: Any, engine: RayEngine) -> None:
        self._ray = ray
        options = {"num_cpus": engine.cpus_per_worker, "num_gpus": engine.gpus_per_worker, "max_restarts": 0}
        self._actor = ray.remote(**options)(_Actor)
        self._calls: dict[Any, Any] = {}
        self._jobs: dict[Any, Job] = {}

    def start(self, load: Loader) -> None:
        """Create an actor; it is ready when the cluster has given it its place."""
        worker = self._actor.remote(load, os.getcwd())
        self._calls[worker.ready.remote()] = worker

    def submit(self, worker: Hashable, job: Job) -> None:
        """Greet the actor; `wait` calls it with the job when it has answered, for it may have died since."""
        handle: Any = worker
        self._calls[handle.ready.remote()] = worker
        self._jobs[worker] = job

    def wait(self, seconds: float) -> Event | None:
        """Return what one actor gave back, or that it, or its node, died."""
        while True:
            done, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=seconds)
            if not done:
                return None
            worker = self._calls.pop(done[0])
            job = self._jobs.pop(worker, None)
            event = self._event(worker, done[0], has_begun=job is None)
            if job is None or event.death is not None:
                return event
            self._calls[worker.work.remote(job)] = worker

    def _event(self, worker: Any, call: Any, has_begun: bool) -> Event:
        try:
            return Event(worker=worker, records=self._ray.get(call))
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            return Event(worker=worker, error=cause if isinstance(cause, Exception) else error)
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().split("\n")[-1].strip()
            return Event(worker=worker, death=f"{type(error).__name__}: {reason}", has_begun=has_begun)

    def close(self) -> None:
        """End the actors that have a call; the others end with Ray."""
        for worker in self._calls.values():
            self._ray.kill(worker)
        self._calls.clear()


class _Actor:
    def __init__(self, load: Loader, folder: str) -> None:
        """Work in the run's folder, where this node has it, so that relative paths mean the same files."""
        if os.path.isdir(folder):
            os.chdir(folder)
        self._worker = Worker(load)

    def ready(self) -> None:
        """Return once the actor has its place."""

    def work(self, job: Job) -> list[Record]:
        """Return the job's records."""
        return self._worker.work(job)


def _check_reachable(address: str | None) -> None:
    """Return nothing where HOST:PORT answers: Ray itself would wait for minutes, or for ever.

    Raises:
        OSError: it does not answer.
        ValueError: the port is no number.
    """
    host, colon, port = (address or "").rpartition(":")
    if colon and "//" not in host:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
