"""Processes that help this one: they leave Ctrl-C to it, and end when it ends, however it ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait


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
