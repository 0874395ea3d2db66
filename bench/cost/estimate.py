"""How long tasks of `bench cost` will take: by what was timed before, else by operations and a trial of the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bench.cost.plan import Task, rates
from bench.cost.records import CostRun

ENERGY_SECONDS = 4.0
"""Seconds of one method alone in which its energy is measured, after as many batches as fill SETTLING_SECONDS."""

SETTLING_SECONDS = 1.5
"""NVML's power is a mean over about one second: so long a method runs alone before its energy counts."""


@dataclass(kw_only=True)
class Estimator:
    """Expected seconds of tasks.

    Attributes:
        flops_per_second: what the device does in float32, by a trial.
        target_seconds: about how long a repetition takes, which holds at least one batch.
        image_samples: (method, setting) -> samples of its whole image.
        warm: pairs that have been run in this process; another one is run once more before it is timed.
    """

    flops_per_second: float
    target_seconds: float
    image_samples: Callable[[str, str], int | None] = lambda method, setting: None
    warm: set[tuple[str, str, int]] = field(default_factory=set)

    def seconds(self, task: Task, run: CostRun) -> float:
        """Return about how long a task takes."""
        batch = self._batch_seconds(task, run)
        pair = task.method, task.setting, task.batch_size
        warming = 0.0 if pair in self.warm else batch + min(batch, self.target_seconds)
        if task.kind == "stages":
            return warming + batch
        if task.kind == "energy":
            return warming + max(ENERGY_SECONDS, batch) + max(SETTLING_SECONDS, batch)
        if task.kind == "image":
            samples = self.image_samples(task.method, task.setting) or 0
            return warming + samples * batch / task.batch_size
        return warming + max(self.target_seconds, batch)

    def total(self, tasks: Iterable[Task], run: CostRun) -> float:
        """Return about how long all tasks take; each pair is warmed up once."""
        seen = set(self.warm)
        total = 0.0
        for task in tasks:
            total += self.seconds(task, run)
            self.warm.add((task.method, task.setting, task.batch_size))
        self.warm.clear()
        self.warm.update(seen)
        return total

    def _batch_seconds(self, task: Task, run: CostRun) -> float:
        known = rates(run, task.method, task.setting)
        if task.batch_size in known:
            return task.batch_size / known[task.batch_size]
        if known:
            return task.batch_size / max(known.values())
        flops = next(size.flops for size in run.sizes if size.method == task.method)
        return task.batch_size * flops / self.flops_per_second
