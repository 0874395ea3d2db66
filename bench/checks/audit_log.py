"""Attacks of a run's audits, a line each as it is made: an audit that was stopped, or is asked for more, goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.checks.attack import Attack
from bench.checks.audit import Attacked
from bench.errors import RecordsError
from bench.records.codec import Codec
from bench.records.lines import Lines
from bench.types import ABSTAIN, Record

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
    instead="stop it",
)


class AttackLog(Lines[Effort, Line]):
    """The file, open for appending."""

    items: list[Line]

    def _resume(self, header: Effort) -> None:
        super()._resume(header)
        for number, one in enumerate(self.items, 2):
            if (fault := _fault(one)) is not None:
                raise RecordsError(
                    f"{self.path}, line {number}: {fault}: remove the line to attack that image again"
                )

    def add(self, attacked: Attacked, *, subject: str, command: str) -> None:
        """Write one line and wait until it is on the disk; see `Lines.append`."""
        line = Line(**asdict(attacked), subject=subject, command=command)
        self.append(line)
        self.items.append(line)

    def of(self, records: Sequence[Record], subject: str) -> Mapping[int, Line]:
        """Return image index -> the attack on its certificate, of one method and sigma, by ascending index.

        Attacks on other certificates of these images are left out: those of another subject, class or radius.
        """
        certified = {one.index: (subject, one.method, one.sigma, one.predict, one.radius) for one in records}
        found = {
            one.index: one
            for one in self.items
            if certified.get(one.index) == (one.subject, one.method, one.sigma, one.certified, one.radius)
        }
        return dict(sorted(found.items()))


def _fault(one: Line) -> str | None:
    """Return which field of an attack has a value that none gives, and why; None where all are right."""
    for name, least in (
        ("sigma", 0),
        ("index", 0),
        ("certified", 0),
        ("radius", 0),
        ("distance", 0),
        ("predict", ABSTAIN),
    ):
        if not getattr(one, name) >= least:
            return f"{name} is {getattr(one, name)}, expected {least} or more"
    if one.distance > one.radius:
        return f"distance is {one.distance}, expected {one.radius} at most, the radius"
    return None


def open_attack_log(path: Path, effort: Effort) -> AttackLog:
    """Return the file, begun with `effort` or continued; see `Lines` for its lock and its errors."""
    return AttackLog(path, CODEC, effort)
