"""How far a run has come: what `bench status` prints."""

from __future__ import annotations

import numpy as np

from bench.commands.printing import duration
from bench.records.columns import columns_of
from bench.records.shards import unmeasured
from bench.report.markup import Block, Table
from bench.types import Run


def status_of(run: Run, what_to_do: str) -> tuple[Table, tuple[str, str]]:
    """Return, for each method and sigma, the images done and left and the time left by the records; then in all.

    Args:
        what_to_do: how to finish it; "": by repeating the command of its header.
    """
    header, rows, left_in_all, seconds_in_all, is_known = run.header, [], 0, 0.0, True
    columns = columns_of(run.records)
    groups = columns.groups
    for sigma in header.sigmas:
        for method in header.methods:
            others = [places for (name, _), places in groups.items() if name == method]
            done = groups.get((method, sigma), np.array([], np.int64))
            took = [done] if len(done) else others
            left = len(header.indices) - len(done)
            seconds = float(np.median(columns.seconds[np.concatenate(took)])) if took else None
            left_in_all += left
            seconds_in_all += left * (seconds or 0.0)
            is_known &= seconds is not None or not left
            numbers = map(str, (len(done), left, np.count_nonzero(columns.is_correct[done])))
            times = ("unknown",) * 2 if seconds is None else (f"{seconds:.3g}", duration(left * seconds))
            rows.append((method, f"{sigma:g}", *numbers, *times))
    time_left = f"{'about' if is_known else 'at least'} {duration(seconds_in_all)}"
    if not is_known and not seconds_in_all:
        time_left = "time unknown"
    measured = sorted({measured.method for measured in run.costs})
    lacking = unmeasured(run)
    said = "All images are certified"
    if left_in_all:
        said = f"{left_in_all} images left, {time_left}"
    elif lacking:
        said += f", and the cost of {', '.join(lacking)} is not measured"
    end = f"; {what_to_do}." if what_to_do else "."
    if left_in_all or lacking:
        end = f"; {what_to_do or f'continue with: {header.command}'}"
    return (
        Table(
            caption=str(run.folder),
            headers=("method", "sigma", "done", "left", "certified", "seconds per image", "time left"),
            blocks=(Block(rows=tuple(rows)),),
        ),
        (
            f"Costs measured: {', '.join(measured) or 'none yet'}.",
            said + end,
        ),
    )
