"""Checks of a published log -> printed tables; pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.log_check import LogCheck, level, recertified
from bench.records.logs import Log, LogRow
from bench.report.markup import Block, Cell, Table, format_percent

_VERDICTS = {True: "yes", False: "NO", None: "unknown"}


def findings_rows(check: LogCheck) -> list[tuple[str, str, str]]:
    """Return a row per finding: the check, whether it holds, what was seen."""
    return [(finding.check, _VERDICTS[finding.holds], finding.seen) for finding in check.findings]


def recertified_table(log: Log, check: LogCheck, alpha: float, radii: Sequence[float]) -> Table:
    """Return certified accuracies as the log has them, and at another alpha.

    Raises:
        UsageError, RecordsError: as `bench.records.log_check.recertified`.
    """
    again, source = recertified(log, check, alpha)
    notes = [
        f"Counts inverted at {level(source.claim)}: of all counts that would be written so, the lowest. Images that "
        "the log abstains on stay so: at a larger alpha the accuracies are lower bounds."
    ]
    if check.named is None and not check.claimed.is_fit:
        notes.append("That level fits the radii but is not the only one that might have made them.")
    if len(set(log.indices)) < len(log.rows):
        notes.append("Images that stand in the log twice count twice.")
    rows = (("as written", log), (f"at alpha = {alpha:g}", again))
    return Table(
        caption=f"{log.name}: certified accuracy (%) at another alpha, {len(log.rows)} rows",
        headers=("radii", *(f"{radius:.2f}" for radius in radii)),
        blocks=(Block(title="", rows=tuple(_accuracies(name, one.rows, radii) for name, one in rows)),),
        notes=tuple(notes),
    )


def _accuracies(name: str, rows: Sequence[LogRow], radii: Sequence[float]) -> tuple[Cell, ...]:
    shares = [
        sum(row.predict == row.label and row.radius >= radius for row in rows) / len(rows) for radius in radii
    ]
    return (Cell(text=name), *(Cell(text=format_percent(share)) for share in shares))
