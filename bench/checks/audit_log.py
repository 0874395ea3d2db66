"""Attacks of a run's audits, a line each as it is made: an audit that was stopped, or is asked for more, goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.checks.attack import Attack
from bench.checks.audit import Attacked
from bench.records.codec import Codec
from bench.records.lines import Lines
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


CODEC = Codec[Effort, Line](
    header=("effort", Effort),
    items={"attack": Line},
    versions=(AUDIT_SCHEMA_VERSION,),
    remedy="delete the file to attack all anew",
)


class AttackLog:
    """The file, open for appending. Made by `open_attack_log`."""

    def __init__(self, lines: Lines[Effort, Line]) -> None:
        self._lines, self._attacks = lines, lines.items

    def append(self, attacked: Attacked, *, subject: str, command: str) -> None:
        """Write one line and wait until it is on the disk.

        Raises:
            RecordsError: it could not be written.
        """
        line = Line(**asdict(attacked), subject=subject, command=command)
        self._lines.append(line)
        self._attacks.append(line)

    def of(self, records: Sequence[Record], subject: str) -> Mapping[int, Line]:
        """Return image index -> the attack on its certificate, of one method and sigma, by ascending index.

        Attacks on other certificates of these images are left out: those of another subject, class or radius.
        """
        certified = {one.index: (subject, one.method, one.sigma, one.predict, one.radius) for one in records}
        found = {
            one.index: one
            for one in self._attacks
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
    with Lines(path, CODEC, effort) as lines:
        lines.require(vars(lines.header), vars(effort))
        yield AttackLog(lines)
