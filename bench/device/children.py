"""Processes that help this one: they leave Ctrl-C to it, and end when it ends, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def serve_parent() -> None:
    """Have this process ignore Ctrl-C and end as soon as the process that started it has ended.

    Without it, workers that wait for work outlive a parent that was killed. In the process that the user started,
    nothing happens.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal it reaches every process
    threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
