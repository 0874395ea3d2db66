"""What a checkpoint's trial found -> one table per question, and its verdict in a sentence."""

from __future__ import annotations

from bench.checks.doctor.trials import Answer, Trial
from bench.report.markup import Block, Cell, Table

MORE = 4
"""Readings at most that "cannot tell" lists."""


def answer_table(answer: Answer) -> Table:
    """Return every trial of a question with its 95% interval, a block per condition, the declared reading in bold."""
    conditions = dict.fromkeys(trial.condition for trial in answer.trials)
    blocks = tuple(
        Block(title=name, rows=tuple(_row(t, answer.declared) for t in answer.trials if t.condition == name))
        for name in conditions
    )
    return Table(
        caption=f"{answer.question} (declared: {answer.declared or 'nothing'})",
        headers=("reading", "score", "95% interval", "images"),
        blocks=blocks,
        notes=(),
    )


def _row(trial: Trial, declared: str | None) -> tuple[Cell, ...]:
    def shown(value: float) -> str:
        return f"{value:.3g}" if trial.lower_is_better else f"{100 * value:.1f}%"

    interval = f"[{shown(trial.low)}, {shown(trial.high)}]"
    name = Cell(text=trial.reading, is_best=trial.reading == declared)
    return (name, Cell(text=shown(trial.score)), Cell(text=interval), Cell(text=str(trial.images)))


def sentence(answer: Answer) -> str:
    """Return the verdict: as declared, looks like X, or cannot tell, and by what."""
    verdict = answer.verdict
    if verdict.kind == "as declared":
        return f"as declared, {answer.declared} (by {answer.by})"
    if verdict.kind == "looks like":
        declared = "" if answer.declared is None else f", not as declared ({answer.declared})"
        return f"looks like {' or '.join(verdict.readings)}{declared} (by {answer.by})"
    if not verdict.readings:
        return f"cannot tell (by {answer.by})"
    more = f" and {len(verdict.readings) - MORE} more" if len(verdict.readings) > MORE else ""
    return f"cannot tell {answer.declared} from {', '.join(verdict.readings[:MORE])}{more} (by {answer.by})"
