"""SIGTERM as an end that loses nothing: it waits for the job in hand, and stops anything else at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from bench.errors import TerminatedError


class Termination:
    """While entered, SIGTERM raises TerminatedError; within `held` only when that ends. Main thread only."""

    def __init__(self) -> None:
        self._is_held = False
        self._is_asked = False

    def __enter__(self) -> Termination:
        self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Put a SIGTERM off until the block has ended without an error.

        Raises:
            TerminatedError: a SIGTERM came meanwhile.
        """
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._is_asked:
            raise TerminatedError

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._is_asked = True
        if not self._is_held:
            raise TerminatedError
