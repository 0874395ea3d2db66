"""What an audit found -> DataFrames and their printed tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from bench.checks.audit import FALSE_ALARM, Attacked, Change, chance_of_violations
from bench.report.markup import Block, Cell, Table, format_percent, format_significant
from bench.types import ABSTAIN

NO_GRADIENTS = "Random directions: the classifier has no gradients, so only random points were tried."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The attacks on one method at one sigma, counted."""

    method: str
    sigma: float
    images: int
    same: int
    abstained: int
    violations: int
    chance: float
    has_gradients: bool
    violated: tuple[int, ...]

    @property
    def is_flagged(self) -> bool:
        """True where so many violations have a probability below FALSE_ALARM if all certificates are sound."""
        return self.chance < FALSE_ALARM


def finding(attacked: Sequence[Attacked], alpha: float) -> Finding:
    """Return the counts of one method at one sigma, with the images that were violated."""
    violated = tuple(one.index for one in attacked if one.is_violation)
    abstained = sum(one.predict == ABSTAIN for one in attacked)
    return Finding(
        method=attacked[0].method,
        sigma=attacked[0].sigma,
        images=len(attacked),
        same=len(attacked) - abstained - len(violated),
        abstained=abstained,
        violations=len(violated),
        chance=chance_of_violations(attacked, alpha),
        has_gradients=all(one.has_gradients for one in attacked),
        violated=violated,
    )


def findings_table(findings: Sequence[Finding], commands: Sequence[str]) -> Table:
    """Return one row per method and sigma; `commands` made them."""
    rows = tuple(
        (
            Cell(text=one.method if one.has_gradients else f"{one.method} (random directions)"),
            Cell(text=f"{one.sigma:g}"),
            Cell(text=str(one.images)),
            Cell(text=str(one.same)),
            Cell(text=str(one.abstained)),
            Cell(text=str(one.violations)),
            Cell(text=f"{one.chance:.2g}"),
            Cell(text="FLAGGED" if one.is_flagged else "sound"),
        )
        for one in findings
    )
    return Table(
        caption="Attacks inside the certified radius",
        headers=("method", "σ", "images", "same class", "abstains", "violations", "chance", "verdict"),
        blocks=(Block(title="", rows=rows),),
        notes=(
            *(f"Made by: {command}" for command in commands),
            "Violations: another class returned by PREDICT at the attacked point, on fresh noise. Chance: of that "
            "many or more under Binomial(images, 2α), which holds if every certificate is sound; a run is flagged "
            f"below {FALSE_ALARM:g}.",
            *([] if all(one.has_gradients for one in findings) else [NO_GRADIENTS]),
        ),
    )


def changes_frame(changes: Sequence[Change]) -> pd.DataFrame:
    """Return one row per method, sigma and variant, unrounded; columns as the fields of `Change`."""
    return pd.DataFrame([asdict(change) for change in changes])


def changes_table(changes: Sequence[Change], what: str, notes: Sequence[str]) -> Table:
    """Return one row per method, sigma and variant; `what` names the variants' column."""
    rows = tuple(
        (
            Cell(text=change.method),
            Cell(text=f"{change.sigma:g}"),
            Cell(text=change.variant),
            Cell(text=f"{change.differing:,} of {change.predictions:,}"),
            Cell(text=format_percent(change.differing / change.predictions)),
            Cell(text=f"{change.images_changed} of {change.images}"),
            Cell(text=_number(change.largest)),
            Cell(text=_number(change.mean)),
            Cell(text=str(change.verdicts)),
        )
        for change in changes
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
        blocks=(Block(title="", rows=rows),),
        notes=(
            "Against the first row of each method and σ. Verdict: correct and certified at the radii of the table.",
            *notes,
        ),
    )


def _number(value: float) -> str:
    return format_significant(value) if value else "0"
