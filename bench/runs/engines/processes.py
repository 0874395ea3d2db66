"""Workers as processes of this machine, without any further library."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from bench.device.children import end_with_parent, portable, without_interrupts
from bench.device.heap import keep_memory
from bench.runs.engines.base import Job, Loader, Worker
from bench.runs.engines.dispatch import Event, dispatch
from bench.types import Record


@dataclass(frozen=True, kw_only=True)
class ProcessEngine:
    """Spreads jobs over `workers` processes, each with classifiers of its own, in `threads` threads.

    Attributes:
        gpus: names as CUDA_VISIBLE_DEVICES has them, which processes take in turn, each seeing its own alone; empty
            where no GPU computes.
    """

    workers: int
    threads: int = 1
    gpus: tuple[str, ...] = ()

    def results(self, load: Loader, jobs: Iterator[Job]) -> Iterator[list[Record]]:
        """Yield each job's records as they come; see `bench.runs.engines.base.Engine` and `.dispatch`."""
        return dispatch(ProcessPool(self.threads, self.gpus), self.workers, load, jobs)


class ProcessPool:
    """Processes that are sent jobs and send back records; see `bench.runs.engines.dispatch.Pool`."""

    def __init__(self, threads: int, gpus: Sequence[str] = ()) -> None:
        self._threads, self._gpus = threads, gpus
        self._context = multiprocessing.get_context("spawn")
        self._started = 0
        self._workers: dict[int, tuple[Connection, SpawnProcess]] = {}
        self._gpu_of: dict[int, str | None] = {}
        self._unsent: set[int] = set()

    def start(self, load: Loader) -> None:
        """Start a process."""
        ours, theirs = self._context.Pipe()
        gpu = self._free_gpu()
        with _seeing(gpu), without_interrupts():
            process = self._context.Process(target=_serve, args=(theirs, load, self._threads), daemon=True)
            process.start()
        theirs.close()
        self._workers[self._started] = ours, process
        self._gpu_of[self._started] = gpu
        self._started += 1

    def _free_gpu(self) -> str | None:
        """Return the GPU that the fewest processes have, the first of equals; None where none computes."""
        taken = [self._gpu_of[number] for number in self._workers]
        return min(self._gpus, key=taken.count, default=None)

    def submit(self, worker: Hashable, job: Job) -> None:
        """Send a job; that the process has died is told by `wait`."""
        assert isinstance(worker, int)
        try:
            self._workers[worker][0].send(job)
        except BrokenPipeError:
            self._unsent.add(worker)

    def wait(self, seconds: float) -> Event | None:
        """Return what one process sent, or that it died."""
        by_connection = {connection: number for number, (connection, _) in self._workers.items()}
        ready = wait(list(by_connection), seconds)
        if not ready:
            return None
        connection = ready[0]
        assert isinstance(connection, Connection)
        number = by_connection[connection]
        try:
            records, error = connection.recv()
        except (EOFError, ConnectionResetError):
            _, process = self._workers.pop(number)
            process.join()
            connection.close()
            death = f"exit code {process.exitcode}"
            return Event(worker=number, death=death, has_begun=number not in self._unsent)
        return Event(worker=number, records=records, error=error)

    def close(self) -> None:
        """End all processes."""
        for connection, process in self._workers.values():
            process.terminate()
            process.join()
            connection.close()
        self._workers.clear()


VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable that says which GPUs a process sees."""


@contextlib.contextmanager
def _seeing(gpu: str | None) -> Iterator[None]:
    """Have processes that start meanwhile see one GPU alone: they read it before they can import torch."""
    before = os.environ.get(VISIBLE)
    if gpu is not None:
        os.environ[VISIBLE] = gpu
    try:
        yield
    finally:
        if gpu is not None and before is None:
            del os.environ[VISIBLE]
        elif gpu is not None and before is not None:
            os.environ[VISIBLE] = before


def _serve(connection: Connection, load: Loader, threads: int) -> None:
    """Do jobs until the run has ended, which closes the connection."""
    end_with_parent()
    keep_memory()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read where torch is imported later
    if "torch" in sys.modules:  # what was sent here has imported it
        sys.modules["torch"].set_num_threads(threads)
    worker = Worker(load)
    answer: tuple[list[Record] | None, Exception | None] = None, None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            connection.send(answer)
            answer = _answer(worker, connection.recv())


def _answer(worker: Worker, job: Job) -> tuple[list[Record] | None, Exception | None]:
    try:
        return worker.work(job), None
    except Exception as error:  # whatever it is belongs to the process that has the run
        return None, portable(error)
