"""One audit of a run: which methods, sigmas and images, what is done to each, and its tables and files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from bench.checks.attack import Attack
from bench.checks.audit import (
    FALSE_ALARM,
    Attacked,
    Change,
    Variant,
    attack_records,
    batch_size_variants,
    chance_of_violations,
    changes,
    precision_variants,
)
from bench.checks.audit_log import FILE_NAME, Effort, open_attack_log
from bench.config.levels import written
from bench.config.names import nearest_hint, split_names
from bench.errors import UsageError
from bench.records.disk import check_no_link
from bench.report.markup import Block, Table, format_percent, format_significant
from bench.report.write import write
from bench.runs.rebuild import Rebuilt
from bench.types import ABSTAIN, Record, Run

FOLDER = "audit"
"""Folder of an audit's files, in the run's."""

NO_GRADIENTS = "Random directions: the classifier has no gradients, so only random points were tried."

Audited = Callable[[str, float, int, int], object]
"""Takes the progress: method, sigma, images done, images in all."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What of a run is audited: these methods and sigmas, and the first `images` suitable images of each."""

    methods: tuple[str, ...]
    sigmas: tuple[float, ...]
    images: int
    command: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The attacks on one method at one sigma, counted; one of `together` findings of an audit."""

    method: str
    sigma: float
    images: int
    same: int
    abstained: int
    violations: int
    chance: float
    has_gradients: bool
    violated: tuple[int, ...]
    together: int = 1

    @property
    def is_flagged(self) -> bool:
        """True where so many violations have less than this finding's share of FALSE_ALARM if all is sound."""
        return self.chance < FALSE_ALARM / self.together


@dataclass(frozen=True, kw_only=True)
class Report:
    """The printed table, the files written, and one sentence where the run is flagged."""

    table: Table
    files: tuple[Path, ...]
    flag: str | None = None


def folder_of(run: Run) -> Path:
    """Return the folder of a run's audits.

    Raises:
        RecordsError: a link stands in its place, so that another folder would be written to.
    """
    check_no_link(run.folder / FOLDER)
    return run.folder / FOLDER


def scope_of(run: Run, *, methods: str | None, sigmas: str | None, images: int, command: str) -> Scope:
    """Return the scope that a command asks for; None stands for all of the run.

    Raises:
        UsageError: a method or sigma that the run does not hold.
    """
    held = {"method": run.header.methods, "sigma": tuple(f"{sigma:g}" for sigma in run.header.sigmas)}
    chosen = {
        kind: held[kind] if text is None else split_names(text)
        for kind, text in (("method", methods), ("sigma", sigmas))
    }
    for kind, names in chosen.items():
        for name in names:
            if name not in held[kind] and not (
                kind == "sigma" and any(written(one, [name]) for one in run.header.sigmas)
            ):
                raise UsageError(f"{run.folder} holds no {kind} {name!r}; {nearest_hint(name, held[kind])}")
    return Scope(
        methods=chosen["method"],
        sigmas=tuple(sigma for sigma in run.header.sigmas if written(sigma, chosen["sigma"])),
        images=images,
        command=command,
    )


def audit_attacks(rebuilt: Rebuilt, scope: Scope, settings: Attack, seed: int, audited: Audited) -> Report:
    """Attack the certified images in scope that were not attacked yet; write attack.jsonl, .csv and .md.

    The tables show all attacks of the run, also those of earlier audits.

    Raises:
        UsageError: nothing in scope is certified.
        CheckpointError: a checkpoint is missing, or another one than the run's.
        ProtocolError: earlier attacks tried harder, or less hard.
        RecordsError: as `open_attack_log`.
    """
    parts = _in_scope(rebuilt, scope, _is_certified)
    path, effort = folder_of(rebuilt.run) / FILE_NAME, Effort(**asdict(settings), seed=seed)
    header = rebuilt.run.header
    with open_attack_log(path, effort) as log:
        for method, sigma, records in parts:
            subject = rebuilt.subject(method, sigma)
            done = log.of(records, subject)
            left = [record for record in records if record.index not in done]
            audited(method, sigma, len(done), len(records))
            for number, one in enumerate(attack_records(rebuilt, left, settings, seed), len(done) + 1):
                log.add(one, subject=subject, command=scope.command)
                audited(method, sigma, number, len(records))
        curves = itertools.product(header.sigmas, header.methods)
        rows = [(rebuilt.records(method, sigma), rebuilt.subject(method, sigma)) for sigma, method in curves]
        every = [tuple(log.of(records, subject).values()) for records, subject in rows]
    held = [(records, attacked) for (records, _), attacked in zip(rows, every, strict=True) if attacked]
    findings = [
        finding(attacked, header.alpha, made=_made(records, attacked), together=len(held))
        for records, attacked in held
    ]
    commands = tuple(dict.fromkeys(one.command for attacked in every for one in attacked))
    table = findings_table(findings, commands)
    files = write(folder_of(rebuilt.run), "attack", _findings_frame(findings), table)
    return Report(table=table, files=(path, *files), flag=_flag(rebuilt, findings))


def _made(records: Sequence[Record], attacked: Sequence[Attacked]) -> int:
    """Return how many certificates there are up to the last one that was attacked, of records by ascending image."""
    last = max(one.index for one in attacked)
    return sum(record.index <= last for record in records)


def _flag(rebuilt: Rebuilt, findings: Sequence[Finding]) -> str | None:
    flagged = [one for one in findings if one.is_flagged]
    if not flagged:
        return None
    named = "; ".join(
        f"{one.method} at sigma {one.sigma:g}: images {', '.join(map(str, one.violated))}" for one in flagged
    )
    return f"{rebuilt.run.folder} is flagged: more certificates are contradicted than chance allows ({named})"


def audit_precision(rebuilt: Rebuilt, scope: Scope, audited: Audited) -> Report:
    """Compare float32, TF32, bfloat16 and compiled on the images in scope; write precision.csv and .md."""
    variants = partial(precision_variants, rebuilt)
    return _audit_changes(rebuilt, scope, variants, "precision", audited)


def audit_batch_sizes(rebuilt: Rebuilt, scope: Scope, batch_sizes: str, audited: Audited) -> Report:
    """Compare batch sizes ("A,B,...", the first is the reference); write batch_size.csv and .md.

    Raises:
        UsageError: fewer than two sizes, or one that is not a whole number of at least 1.
    """
    sizes = [
        int(size) if size.isascii() and size.isdecimal() and len(size) < 10 else 0
        for size in split_names(batch_sizes)
    ]
    if len(sizes) < 2 or min(sizes) < 1:
        raise UsageError(f"batch sizes are {batch_sizes!r}, expected two or more such as 128,256")
    variants = partial(batch_size_variants, rebuilt, batch_sizes=sizes)
    return _audit_changes(rebuilt, scope, variants, "batch size", audited)


def _audit_changes(
    rebuilt: Rebuilt,
    scope: Scope,
    variants: Callable[[str, float], list[Variant]],
    what: str,
    audited: Audited,
) -> Report:
    found: list[Change] = []
    notes = {f"Made by: {scope.command}": None}
    for method, sigma, records in _in_scope(rebuilt, scope, lambda record: True):
        made = variants(method, sigma)
        found += changes(rebuilt, records, made).values()
        notes |= {
            f"Unavailable: {one.name} of {method}, {one.reason}.": None
            for one in made
            if one.smoothed is None
        }
        audited(method, sigma, len(records), len(records))
    table = changes_table(found, what, tuple(notes))
    frame = pd.DataFrame([asdict(change) for change in found])
    files = write(folder_of(rebuilt.run), what.replace(" ", "_"), frame, table)
    return Report(table=table, files=tuple(files))


def _is_certified(record: Record) -> bool:
    return record.predict != ABSTAIN and record.radius > 0


def _in_scope(
    rebuilt: Rebuilt, scope: Scope, is_suitable: Callable[[Record], bool]
) -> list[tuple[str, float, list[Record]]]:
    """Return (method, sigma, records) wherever there is at least one suitable record."""
    parts = [
        (method, sigma, [r for r in rebuilt.records(method, sigma) if is_suitable(r)][: scope.images])
        for sigma in scope.sigmas
        for method in scope.methods
    ]
    parts = [part for part in parts if part[2]]
    if not parts:
        raise UsageError(
            f"{rebuilt.run.folder} holds no suitable certificate: choose other methods or sigmas"
        )
    return parts


def _findings_frame(findings: Sequence[Finding]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: value for name, value in asdict(one).items() if name != "together"}
        | {"is_flagged": one.is_flagged, "violated": " ".join(map(str, one.violated))}
        for one in findings
    )


def finding(attacked: Sequence[Attacked], alpha: float, *, made: int, together: int) -> Finding:
    """Return the counts of one method at one sigma, with the images that were violated.

    Args:
        made: as in `chance_of_violations`.
        together: findings of the audit.
    """
    violated = tuple(one.index for one in attacked if one.is_violation)
    abstained = sum(one.predict == ABSTAIN for one in attacked)
    return Finding(
        method=attacked[0].method,
        sigma=attacked[0].sigma,
        images=len(attacked),
        same=len(attacked) - abstained - len(violated),
        abstained=abstained,
        violations=len(violated),
        chance=chance_of_violations(attacked, alpha, made),
        has_gradients=all(one.has_gradients for one in attacked),
        violated=violated,
        together=together,
    )


def findings_table(findings: Sequence[Finding], commands: Sequence[str]) -> Table:
    """Return one row per method and sigma; `commands` made them."""
    rows = tuple(
        (
            one.method if one.has_gradients else f"{one.method} (random directions)",
            f"{one.sigma:g}",
            *map(str, (one.images, one.same, one.abstained, one.violations)),
            f"{one.chance:.2g}",
            "FLAGGED" if one.is_flagged else "sound",
        )
        for one in findings
    )
    return Table(
        caption="Attacks inside the certified radius",
        headers=("method", "σ", "images", "same class", "abstains", "violations", "chance", "verdict"),
        blocks=(Block(rows=rows),),
        notes=(
            *(f"Made by: {command}" for command in commands),
            "Violations: another class returned by PREDICT at the attacked point, on fresh noise. Chance: of that "
            "many or more if every certificate is sound: of Binomial(m + images, α), with m the certificates, of any "
            "outcome, among which these were attacked. A run is flagged where a chance is below "
            f"{FALSE_ALARM:g} divided by the number of rows.",
            *([] if all(one.has_gradients for one in findings) else [NO_GRADIENTS]),
        ),
    )


def changes_table(found: Sequence[Change], what: str, notes: Sequence[str]) -> Table:
    """Return one row per method, sigma and variant; `what` names the variants' column."""
    rows = tuple(
        (
            change.method,
            f"{change.sigma:g}",
            change.variant,
            f"{change.differing:,} of {change.predictions:,}",
            format_percent(change.differing / change.predictions),
            f"{change.images_changed} of {change.images}",
            _number(change.largest),
            _number(change.mean),
            str(change.verdicts),
        )
        for change in found
    )
    return Table(
        caption=f"What {what} changes, on the same noise",
        headers=(
            "method",
            "σ",
            what,
            "predictions that differ",
            "%",
            "counts changed",
            "largest change of radius",
            "mean",
            "images with another verdict",
        ),
        blocks=(Block(rows=rows),),
        notes=(
            "Against the first row of each method and σ. Verdict: correct and certified at the radii of the table.",
            *notes,
        ),
    )


def _number(value: float) -> str:
    return format_significant(value) if value else "0"
