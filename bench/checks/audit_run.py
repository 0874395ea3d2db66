"""One audit of a run: which methods, sigmas and images, what is done to each, and the files that say so."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

from bench.checks.attack import Attack
from bench.checks.audit import (
    Change,
    Variant,
    attack_records,
    batch_size_variants,
    changes,
    precision_variants,
)
from bench.checks.audit_log import FILE_NAME, Effort, open_attack_log
from bench.checks.audit_tables import Finding, changes_frame, changes_table, finding, findings_table
from bench.config.names import nearest_hint
from bench.errors import UsageError
from bench.report.markup import Table, to_markdown
from bench.runs.rebuild import Rebuilt
from bench.types import ABSTAIN, Record, Run

FOLDER = "audit"
"""Folder of an audit's files, in the run's."""

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
class Report:
    """The printed table, the files written, and one sentence where the run is flagged."""

    table: Table
    files: tuple[Path, ...]
    flag: str | None = None


def scope_of(run: Run, *, methods: str | None, sigmas: str | None, images: int, command: str) -> Scope:
    """Return the scope that a command asks for; None stands for all of the run.

    Raises:
        UsageError: a method or sigma that the run does not hold.
    """
    held = {"method": run.header.methods, "sigma": tuple(f"{sigma:g}" for sigma in run.header.sigmas)}
    chosen = {
        kind: held[kind] if text is None else tuple(text.split(","))
        for kind, text in (("method", methods), ("sigma", sigmas))
    }
    for kind, names in chosen.items():
        for name in names:
            if name not in held[kind]:
                raise UsageError(f"{run.folder} holds no {kind} {name!r}; {nearest_hint(name, held[kind])}")
    return Scope(
        methods=chosen["method"], sigmas=tuple(map(float, chosen["sigma"])), images=images, command=command
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
    path, effort = rebuilt.run.folder / FOLDER / FILE_NAME, Effort(**asdict(settings), seed=seed)
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
        every = [
            tuple(log.of(rebuilt.records(method, sigma), rebuilt.subject(method, sigma)).values())
            for sigma, method in curves
        ]
    findings = [finding(attacked, header.alpha) for attacked in every if attacked]
    commands = tuple(dict.fromkeys(one.command for attacked in every for one in attacked))
    table = findings_table(findings, commands)
    files = _write(rebuilt, {"attack.csv": _csv(findings), "attack.md": to_markdown(table)})
    return Report(table=table, files=(path, *files), flag=_flag(rebuilt, findings))


def _flag(rebuilt: Rebuilt, findings: Sequence[Finding]) -> str | None:
    flagged = [one for one in findings if one.is_flagged]
    if not flagged:
        return None
    named = "; ".join(
        f"{one.method} at sigma {one.sigma:g}: images {', '.join(map(str, one.violated))}" for one in flagged
    )
    return f"{rebuilt.run.folder} is flagged: more certificates are contradicted than chance allows ({named})"


def audit_precision(
    rebuilt: Rebuilt, scope: Scope, audited: Audited, compiler: Callable[..., object] = torch.compile
) -> Report:
    """Compare float32, TF32, bfloat16 and compiled on the images in scope; write precision.csv and .md."""

    def variants(method: str, sigma: float) -> list[Variant]:
        return precision_variants(rebuilt, method, sigma, compiler)  # type: ignore[arg-type]

    return _audit_changes(rebuilt, scope, variants, "precision", audited)


def audit_batch_sizes(rebuilt: Rebuilt, scope: Scope, batch_sizes: str, audited: Audited) -> Report:
    """Compare batch sizes ("A,B,...", the first is the reference); write batch_size.csv and .md.

    Raises:
        UsageError: fewer than two sizes, or one that is not a whole number of at least 1.
    """
    sizes = [int(size) if size.isdecimal() else 0 for size in batch_sizes.split(",")]
    if len(sizes) < 2 or min(sizes) < 1:
        raise UsageError(f"batch sizes are {batch_sizes!r}, expected two or more such as 128,256")

    def variants(method: str, sigma: float) -> list[Variant]:
        return batch_size_variants(rebuilt, method, sigma, sizes)

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
    name = what.replace(" ", "_")
    frame = changes_frame(found).to_csv(index=False, lineterminator="\n")
    files = _write(rebuilt, {f"{name}.csv": frame, f"{name}.md": to_markdown(table)})
    return Report(table=table, files=files)


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


def _csv(findings: Sequence[Finding]) -> str:
    rows = [
        asdict(one) | {"is_flagged": one.is_flagged, "violated": " ".join(map(str, one.violated))}
        for one in findings
    ]
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def _write(rebuilt: Rebuilt, texts: dict[str, str]) -> tuple[Path, ...]:
    folder = rebuilt.run.folder / FOLDER
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return tuple(folder / name for name in texts)
