"""Processes that help this one: they leave Ctrl-C to it, end when it ends, and send it their errors."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

from bench.errors import BenchError


@contextlib.contextmanager
def without_interrupts(*, spawns: bool = True) -> Iterator[None]:
    """Put Ctrl-C off in the block; a process that is started in it never hears of one.

    Ctrl-C reaches every process of a terminal, and the process that the user started ends the others: one that is still
    importing would print a traceback of its own.

    Args:
        spawns: whether the process is spawned, not forked.
    """
    if spawns:
        resource_tracker.ensure_running()  # which would let them through again, were it started in the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Have this process end as soon as the process that started it has ended.

    Without it, workers that wait for work outlive a parent that was killed. In the process that the user started,
    nothing happens.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def portable(error: Exception) -> Exception:
    """Return the error with its traceback in its notes; where it cannot be sent, one that says the same."""
    if isinstance(error, BenchError):
        return error
    told = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class of the method's own may do anything here
        return RuntimeError(told)
    error.add_note(told)
    return error
