"""Attacks of a run's audits, a line each as it is made: an audit that was stopped, or is asked for more, goes on."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.checks.attack import Attack
from bench.checks.audit import Attacked
from bench.errors import ProtocolError, RecordsError
from bench.records.codec import decode_item, encode_item
from bench.records.lines import append, lock
from bench.types import Record

FILE_NAME = "attack.jsonl"

AUDIT_SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Effort(Attack):
    """First line: how hard each attack of the file tried, and the seed of it and of PREDICT's noise."""

    seed: int
    schema_version: int = AUDIT_SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class Line(Attacked):
    """One attack, with what it was made on and by.

    Attributes:
        subject: digest of what the certificate rests on: the classifier, and the protocol.
        command: the command line.
    """

    subject: str
    command: str


_FIRST = {"effort": Effort}
_KINDS = {"attack": Line}


class AttackLog:
    """The file, open for appending. Made by `open_attack_log`."""

    def __init__(self, descriptor: int, path: Path, lines: list[Line]) -> None:
        """Take over an open file, which holds `lines` below its first one."""
        self._descriptor, self._path, self._lines = descriptor, path, lines

    def append(self, attacked: Attacked, *, subject: str, command: str) -> None:
        """Write one line and wait until it is on the disk.

        Raises:
            RecordsError: it could not be written.
        """
        line = Line(**asdict(attacked), subject=subject, command=command)
        append(self._descriptor, self._path, encode_item(line, _KINDS))
        self._lines.append(line)

    def of(self, records: Sequence[Record], subject: str) -> Mapping[int, Line]:
        """Return image index -> the attack on its certificate, of one method and sigma, by ascending index.

        Attacks on other certificates of these images are left out: those of another subject, class or radius.
        """
        certified = {one.index: (subject, one.method, one.sigma, one.predict, one.radius) for one in records}
        found = {
            one.index: one
            for one in self._lines
            if certified.get(one.index) == (one.subject, one.method, one.sigma, one.certified, one.radius)
        }
        return dict(sorted(found.items()))


@contextmanager
def open_attack_log(path: Path, effort: Effort) -> Iterator[AttackLog]:
    """Yield the file, begun with `effort` or continued, locked against other writers; a cut last line is removed.

    Raises:
        ProtocolError: it was begun with another effort; the message names the first field.
        RecordsError: another process writes to it, it cannot be written, or a line is not valid.
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
            append(descriptor, path, lines[0])
        _check_effort(path, lines[0], effort)
        found = [
            decode_item(line, _KINDS, f"{path}, line {number}") for number, line in enumerate(lines[1:], 2)
        ]
        yield AttackLog(descriptor, path, found)
    finally:
        os.close(descriptor)


def _check_effort(path: Path, line: bytes, now: Effort) -> None:
    remedy = "delete the file to attack all anew"
    try:
        before: Effort = decode_item(line, _FIRST, f"{path}, line 1")
    except RecordsError as error:
        raise RecordsError(f"{error}: another version of bench wrote it; {remedy}") from error
    for name, value in asdict(now).items():
        if (old := getattr(before, name)) != value:
            raise ProtocolError(
                f"{path} holds attacks with {name} {old}, not {value}: give {old}, or {remedy}"
            )
