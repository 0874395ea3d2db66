"""One thing under way as a line of text: its name, how many of how many, time left, rate, and the bar last."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len

LEAST_BAR = 8
"""A bar that would be shorter is left out."""

LONGEST_BAR = 24
"""Width of a bar at most."""


@dataclass(kw_only=True)
class Task:
    """Something under way.

    Attributes:
        done, total: steps, those done by an earlier command included.
        before: steps done by earlier commands.
        began: reading of the clock when its first step of this command was under way.
        updated: reading of the clock when its last step was done.
        detail: parts that are left out, the last first, where the line is too narrow.
    """

    name: str
    total: int
    done: int
    before: int
    began: float
    updated: float
    detail: tuple[str, ...] = ()

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds left at a reading of the clock, by the mean; None before the first step is done."""
        made = self.done - self.before
        if made <= 0:
            return None
        by_mean = (self.updated - self.began) * (self.total - self.done) / made
        return max(0.0, by_mean - (now - self.updated))


def clock_time(seconds: float) -> str:
    """Return a time as "4:05" or "1:02:03"."""
    whole = int(seconds + 0.5)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def line(task: Task, now: float, width: int) -> str:
    """Return a task as a line of `width` columns at most: name, count and time left are whole at 40 or more.

    Args:
        now: reading of the clock.
        width: columns of the terminal.
    """
    left = task.seconds_left(now)
    time_left = f"{clock_time(left)} left" if left is not None else f"{clock_time(now - task.began)}"
    parts = [f"{task.done:,}/{task.total:,}", time_left]
    room = width - cell_len("  ".join(parts)) - 2
    name = task.name if cell_len(task.name) <= room else task.name[: max(room - 1, 0)] + "…"
    text = "  ".join([name, *parts])
    for part in task.detail:
        if cell_len(text) + 2 + cell_len(part) <= width:
            text += f"  {part}"
    bar = min(LONGEST_BAR, width - cell_len(text) - 2)
    return text if bar < LEAST_BAR else f"{text}  {_bar(task, bar)}"


def _bar(task: Task, width: int) -> str:
    filled = round(width * task.done / task.total) if task.total else width
    return "━" * filled + "╌" * (width - filled)
