"""What `bench cost` has to do: steps, in the order in which they are done, which are left, and how long they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from bench.cost.records import CostRun, OfPair
from bench.device.timing import interleaved
from bench.errors import UsageError
from bench.training.architectures import Architecture
from bench.types import Precision

COMPILED = "-compiled"
"""Ends a setting whose networks run under torch.compile."""

CHAIN_REPETITIONS = 3
"""Repetitions of methods with more than one network call for a sample, at most."""

WHOLE_IMAGE_SECONDS = 60.0
"""A method that certifies an image faster than this is checked on a whole one."""

TARGET_SECONDS = 0.4
"""About how long a repetition takes; it holds at least one batch."""

ENERGY_SECONDS = 4.0
"""Seconds of one method alone in which its energy is measured, after as many batches as fill SETTLING_SECONDS."""

SETTLING_SECONDS = 1.5
"""NVML's power is a mean over about one second: so long a method runs alone before its energy counts."""

Kind = Literal["repetition", "stages", "energy", "image"]


@dataclass(frozen=True, kw_only=True)
class Step(OfPair):
    """One step of a measurement, which writes one line; `round` counts the repetitions of one pair from 0."""

    kind: Kind
    round: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be measured.

    Attributes:
        architectures: name -> method, in the order of tables.
        settings: arithmetic, each perhaps with COMPILED behind it.
        batch_sizes: samples per call, or None for those of each method and setting that `pairs` gives.
        sweep: what None stands for in settings other than float32 on an accelerator, and everywhere on a CPU.
        n0, n: samples of a certified image.
        energy: whether power can be read.
    """

    architectures: Mapping[str, Architecture]
    settings: tuple[str, ...]
    batch_sizes: tuple[int, ...] | None
    sweep: tuple[int, ...]
    device_type: str
    repetitions: int
    n0: int
    n: tuple[int, ...]
    energy: bool = False

    def rounds(self, method: str) -> int:
        """Return how often each pair of a method is timed."""
        is_chain = self.architectures[method].calls > 1
        return min(self.repetitions, CHAIN_REPETITIONS) if is_chain else self.repetitions

    def pairs(self, setting: str, run: CostRun) -> list[tuple[str, int]]:
        """Return (method, batch size) of a setting, batch sizes ascending for each method.

        The sweep finds the best batch size of a method. In float32 on an accelerator, which is the comparison as
        published, and for chains, it is one sample for the latency and the batch size of the method's own program.
        Compiling takes minutes: networks are compiled for the batch size that is the fastest without.
        """
        return [
            (name, size)
            for name, one in self.architectures.items()
            for size in self._sizes(setting, one, run)
        ]

    def _sizes(self, setting: str, one: Architecture, run: CostRun) -> list[int]:
        if self.batch_sizes is not None:
            return sorted(set(self.batch_sizes))
        if setting.endswith(COMPILED):
            eager = setting.removesuffix(COMPILED)
            return [fastest_batch_size(run, one.name, eager) or self._sizes(eager, one, run)[-1]]
        is_fixed = self.device_type != "cpu" and (setting == "float32" or one.calls > 1)
        return sorted({1, one.batch_size} if is_fixed else set(self.sweep))


def check_settings(settings: Sequence[str]) -> tuple[str, ...]:
    """Return the settings if each is an arithmetic, perhaps with COMPILED behind it.

    Raises:
        UsageError: another word.
    """
    for setting in settings:
        if setting.removesuffix(COMPILED) not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise UsageError(
                f"--precision is {setting!r}, expected a list of {known}, each perhaps with {COMPILED} behind it"
            )
    return tuple(dict.fromkeys(settings))


def steps(plan: Plan, run: Callable[[], CostRun], *, is_forecast: bool = False) -> Iterator[Step]:
    """Yield what is left to do, each step when its turn comes; `run` returns what is recorded by then.

    A forecast lists them before any is done, as if the largest batch size were the fastest; whole images are missing.

    In each setting, rounds come first: one repetition of every pair, the order turned by one from round to round. Then
    each method's stages, its energy and one whole image, at its fastest batch size.
    """
    for setting in plan.settings:
        pairs = plan.pairs(setting, run())
        for number, (method, size) in interleaved(pairs, plan.repetitions):
            step = Step(kind="repetition", method=method, setting=setting, batch_size=size, round=number)
            if number < plan.rounds(method) and not is_done(step, run()):
                yield step
        for method in plan.architectures:
            fastest = fastest_batch_size(run(), method, setting)
            if fastest is None and is_forecast:
                fastest = max(size for name, size in pairs if name == method)
            yield from _closing_tasks(plan, (method, setting, fastest), run)


def _closing_tasks(
    plan: Plan, pair: tuple[str, str, int | None], run: Callable[[], CostRun]
) -> Iterator[Step]:
    method, setting, size = pair
    if size is None:
        return
    kinds: list[Kind] = [] if setting.endswith(COMPILED) else ["stages"]
    kinds += ["energy"] if plan.energy else []
    kinds += ["image"] if checked_samples(plan, method, setting, run()) is not None else []
    for kind in kinds:
        step = Step(kind=kind, method=method, setting=setting, batch_size=size)
        if not is_done(step, run()):
            yield step


def is_done(step: Step, run: CostRun) -> bool:
    """Return whether a step's line is there, or its batch size, or a smaller one, cannot be measured.

    Stages, energy and a whole image are measured once for each method and setting.
    """
    for failure in run.failures:
        if failure.pair[:2] == step.pair[:2] and failure.batch_size <= step.batch_size:
            return True
    if step.kind == "repetition":
        return any((one.pair, one.round) == (step.pair, step.round) for one in run.repetitions)
    lines: Mapping[str, Sequence[OfPair]] = {
        "stages": run.splits,
        "energy": run.energies,
        "image": run.images,
    }
    return any(one.pair[:2] == step.pair[:2] for one in lines[step.kind])


def rates(run: CostRun, method: str, setting: str) -> dict[int, float]:
    """Return batch size -> median samples per second, for those that were timed."""
    found: dict[int, list[float]] = {}
    for one in run.repetitions:
        if (one.method, one.setting) == (method, setting):
            found.setdefault(one.batch_size, []).append(one.samples / one.seconds)
    return {size: float(np.median(values)) for size, values in sorted(found.items())}


def fastest_batch_size(run: CostRun, method: str, setting: str) -> int | None:
    """Return the batch size with the most samples per second, None where none was timed."""
    known = rates(run, method, setting)
    return max(known, key=lambda size: known[size]) if known else None


def checked_samples(plan: Plan, method: str, setting: str, run: CostRun) -> int | None:
    """Return the most samples n0 + n of an image that takes under WHOLE_IMAGE_SECONDS, None where none does."""
    size = fastest_batch_size(run, method, setting)
    if size is None or plan.architectures[method].calls > 1:
        return None
    rate = rates(run, method, setting)[size]
    fitting = [plan.n0 + n for n in plan.n if (plan.n0 + n) / rate < WHOLE_IMAGE_SECONDS]
    return max(fitting, default=None)


def samples_of(step: Step, run: CostRun) -> int | None:
    """Return the samples of the last repetition of a step's pair, None where it was never timed."""
    same = [one for one in run.repetitions if one.pair == step.pair]
    return same[-1].samples if same else None


def expected_seconds(
    plan: Plan, step: Step, run: CostRun, *, flops_per_second: float, is_warm: bool
) -> float:
    """Return about how long a step takes, by what was timed before, else by its operations.

    Args:
        flops_per_second: what the device does in float32, by a trial.
        is_warm: its pair has been run in this process; another one is run once more before it is timed.
    """
    batch = _batch_seconds(step, run, flops_per_second)
    warming = 0.0 if is_warm else batch + min(batch, TARGET_SECONDS)
    if step.kind == "stages":
        return warming + batch
    if step.kind == "energy":
        return warming + max(ENERGY_SECONDS, batch) + max(SETTLING_SECONDS, batch)
    if step.kind == "image":
        samples = checked_samples(plan, step.method, step.setting, run) or 0
        return warming + samples * batch / step.batch_size
    return warming + max(TARGET_SECONDS, batch)


def _batch_seconds(step: Step, run: CostRun, flops_per_second: float) -> float:
    known = rates(run, step.method, step.setting)
    if known:
        return step.batch_size / known.get(step.batch_size, max(known.values()))
    flops = next(size.flops for size in run.sizes if size.method == step.method)
    return step.batch_size * flops / flops_per_second
