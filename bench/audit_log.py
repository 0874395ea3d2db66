"""Attacks of a run's audits, a line each as it is made: an audit that was stopped, or is asked for more, goes on."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.attack import Attack
from bench.audit import Attacked
from bench.codec import decode_item, encode_item
from bench.errors import ProtocolError
from bench.locks import lock
from bench.types import Record

FILE_NAME = "attack.jsonl"


@dataclass(frozen=True, kw_only=True)
class Effort(Attack):
    """How hard each attack of the file tried, and the seed of it and of PREDICT's noise."""

    seed: int


@dataclass(frozen=True, kw_only=True)
class Call:
    """A command that added the attacks in the lines below."""

    command: str


_FIRST = {"effort": Effort}
_KINDS = {"call": Call, "attack": Attacked}


class AttackLog:
    """The file, open for appending."""

    def __init__(self, descriptor: int, items: list[Any]) -> None:
        """Take over the descriptor's file, which holds `items` below its first line."""
        self._descriptor, self._items = descriptor, items

    def append(self, item: Call | Attacked) -> None:
        """Write one line."""
        os.write(self._descriptor, encode_item(item, _KINDS))
        self._items.append(item)

    def of(self, records: Sequence[Record]) -> dict[int, Attacked]:
        """Return image index -> the attack on its certificate, for those of one method and sigma that were attacked.

        An attack on another certificate of the image, such as one of another class or radius, is left out.
        """
        certified = {
            record.index: (record.method, record.sigma, record.predict, record.radius) for record in records
        }
        return {
            item.index: item
            for item in self._items
            if isinstance(item, Attacked)
            and certified.get(item.index) == (item.method, item.sigma, item.certified, item.radius)
        }

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that added to the file, each once."""
        return tuple(dict.fromkeys(item.command for item in self._items if isinstance(item, Call)))


@contextmanager
def open_attack_log(path: Path, effort: Effort) -> Iterator[AttackLog]:
    """Yield the file, begun with `effort` or continued, locked against other writers; a cut last line is removed.

    Raises:
        ProtocolError: it was begun with another effort; the message names the first field.
        RecordsError: another process writes to it, or a line is not valid.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        lock(descriptor, path, "stop it")
        lines = list(io.BytesIO(path.read_bytes()))
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        os.truncate(path, sum(map(len, lines)))
        if not lines:
            lines = [encode_item(effort, _FIRST)]
            os.write(descriptor, lines[0])
        _check_effort(path, decode_item(lines[0], _FIRST, f"{path}, line 1"), effort)
        items = [
            decode_item(line, _KINDS, f"{path}, line {number}") for number, line in enumerate(lines[1:], 2)
        ]
        yield AttackLog(descriptor, items)
    finally:
        os.close(descriptor)


def _check_effort(path: Path, before: Effort, now: Effort) -> None:
    for name, value in vars(before).items():
        if value != getattr(now, name):
            raise ProtocolError(
                f"{path} holds attacks with --{name} {value}, not {getattr(now, name)}: give {value}, or delete the "
                "file to attack all anew"
            )
