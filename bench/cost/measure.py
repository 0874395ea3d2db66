"""Measures what methods cost: does the tasks of a plan one by one, each a line on the disk before the next begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from bench.cost.estimate import ENERGY_SECONDS, SETTLING_SECONDS, Estimator
from bench.cost.plan import COMPILED, Plan, Task, checked_samples, samples_of, tasks
from bench.cost.records import (
    CostFile,
    EnergyUse,
    Failure,
    Item,
    MethodSize,
    Repetition,
    StageSplit,
    WholeImage,
)
from bench.cost.work import Subject, stage_seconds, streamed_work, subject, whole_image
from bench.device.batching import is_out_of_memory
from bench.device.power import joules, while_reading
from bench.device.precision import many_programs
from bench.device.timing import Instruments, choose_batches, timed
from bench.methods.sizes import workloads
from bench.training.loop import seeded_initialisation
from bench.types import Protocol

ALPHA = 0.001
"""Level of the whole images that are certified as a check; it changes no time."""

TARGET_SECONDS = 0.4
"""About how long a repetition takes; it holds at least one batch."""


class Workshop:
    """Networks on one device with random weights, each made once, so that methods share them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._networks: dict[str, nn.Module] = {}

    def plain(self, name: str, function: Callable[[], nn.Module]) -> nn.Module:
        """Return the network of a name, in eval mode, made by `function` where it is new."""
        if name not in self._networks:
            with seeded_initialisation(0), self.device:
                network = function()
            moved = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._networks[name] = moved.eval()
        return self._networks[name]

    def compiled(self, name: str, function: Callable[[], nn.Module]) -> nn.Module:
        """Return the network under torch.compile, one program for each batch size."""
        network: nn.Module = torch.compile(self.plain(name, function), dynamic=False)  # type: ignore[assignment]
        return network


class Measurer:
    """Does tasks: keeps the networks, and for the current setting the streams that are warm."""

    def __init__(
        self, plan: Plan, file: CostFile, instruments: Instruments, workshop: Workshop, sigma: float
    ):
        self._plan, self._file, self._instruments = plan, file, instruments
        self._workshop, self._sigma = workshop, sigma
        self._setting = ""
        self._subjects: dict[str, Subject] = {}
        self._streams: dict[tuple[str, int], tuple[Callable[[], object], int]] = {}
        self.warm: set[tuple[str, str, int]] = set()

    def perform(self, task: Task) -> Item:
        """Return the line of a task; a batch size that does not fit, or does not compile, gives a Failure."""
        work: dict[str, Callable[[Task], Item]] = {
            "repetition": self._repetition,
            "stages": self._stages,
            "energy": self._energy,
            "image": self._image,
        }
        try:
            return work[task.kind](task)
        except Exception as error:
            reason = self._reason(task, error)
            if reason is None:
                raise
        self._streams.pop((task.method, task.batch_size), None)
        if self._workshop.device.type == "cuda":
            torch.cuda.empty_cache()
        return Failure(method=task.method, setting=task.setting, batch_size=task.batch_size, reason=reason)

    def _reason(self, task: Task, error: Exception) -> str | None:
        """Return why a batch size cannot be measured, None for an error that is not of this kind."""
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            return "out of memory"
        if task.setting.endswith(COMPILED):  # whatever the compiler of this machine raises
            return f"torch.compile failed ({type(error).__name__})"
        return None

    def _subject(self, task: Task) -> Subject:
        if task.setting != self._setting:
            self._setting = task.setting
            self._subjects.clear()
            self._streams.clear()
        if task.method not in self._subjects:
            one = self._plan.architectures[task.method]
            is_compiled = task.setting.endswith(COMPILED)
            module = one.build(self._workshop.compiled if is_compiled else self._workshop.plain)
            shape = (one.task.channels, one.task.image_size, one.task.image_size)
            self._subjects[task.method] = subject(
                module.to(self._workshop.device).eval(),
                task.setting.removesuffix(COMPILED),  # type: ignore[arg-type]
                shape,
                one.task.num_classes,
                self._sigma,
            )
        return self._subjects[task.method]

    def _stream(self, task: Task) -> tuple[Callable[[], object], int]:
        """Return a pair's warm stream, and how many of its batches make a repetition."""
        one, key = self._subject(task), (task.method, task.batch_size)
        if key not in self._streams:
            work = streamed_work(one, task.batch_size)
            first = self._seconds(work, 1, task.batch_size)
            known = samples_of(task, self._file.run)
            batches = 1
            if known is not None:
                batches = known // task.batch_size
            elif first < 4 * TARGET_SECONDS or task.setting.endswith(COMPILED):
                batches = choose_batches(
                    lambda count: self._seconds(work, count, task.batch_size), TARGET_SECONDS
                )
            self._streams[key] = work, batches
            self.warm.add((task.method, task.setting, task.batch_size))
        return self._streams[key]

    def _seconds(self, work: Callable[[], object], batches: int, batch_size: int) -> float:
        meters = self._instruments
        return timed(
            work,
            batches,
            synchronize=meters.synchronize,
            clock=meters.clock,
            wait_each=batch_size == 1,
        )

    def _repetition(self, task: Task) -> Repetition:
        work, batches = self._stream(task)
        meters, seconds = self._instruments, []
        before = meters.memory_now()
        peak = meters.peak_memory(lambda: seconds.append(self._seconds(work, batches, task.batch_size)))
        load = None if meters.read_load is None else meters.read_load()
        return Repetition(
            method=task.method,
            setting=task.setting,
            batch_size=task.batch_size,
            round=task.round,
            samples=batches * task.batch_size,
            seconds=seconds[-1],
            peak_memory_bytes=None
            if peak is None or before is None
            else max(0, peak - before) + self._weight_bytes(task),
            session=self._file.run.sessions[-1].created,
            **({} if load is None else vars(load)),
        )

    def _weight_bytes(self, task: Task) -> int:
        module = self._subject(task).module
        return sum(value.numel() * value.element_size() for value in module.state_dict().values())

    def _stages(self, task: Task) -> StageSplit:
        self._stream(task)
        stages = stage_seconds(self._subject(task), task.batch_size, self._instruments)
        return StageSplit(method=task.method, setting=task.setting, batch_size=task.batch_size, stages=stages)

    def _energy(self, task: Task) -> EnergyUse:
        work, _ = self._stream(task)
        meters = self._instruments
        assert meters.read_load is not None
        self._run_for(work, SETTLING_SECONDS)
        batches: list[int] = []
        readings = while_reading(
            lambda: batches.append(self._run_for(work, ENERGY_SECONDS)), meters.read_load, meters.clock
        )
        return EnergyUse(
            method=task.method,
            setting=task.setting,
            batch_size=task.batch_size,
            samples=batches[-1] * task.batch_size,
            seconds=readings[-1][0] - readings[0][0],
            joules=joules(readings),
        )

    def _run_for(self, work: Callable[[], object], seconds: float) -> int:
        """Run batches until the seconds are over, at least one, and return how many."""
        meters, batches = self._instruments, 0
        start = meters.clock()
        while batches == 0 or meters.clock() - start < seconds:
            work()
            meters.synchronize()
            batches += 1
        return batches

    def _image(self, task: Task) -> WholeImage:
        self._stream(task)
        samples = checked_samples(self._plan, task.method, task.setting, self._file.run)
        assert samples is not None
        n0 = self._plan.n0
        protocol = Protocol(n0=n0, n=samples - n0, alpha=ALPHA, seed=0)
        work = whole_image(self._subject(task), protocol, task.batch_size)
        seconds = timed(work, 1, synchronize=self._instruments.synchronize, clock=self._instruments.clock)
        return WholeImage(
            method=task.method,
            setting=task.setting,
            batch_size=task.batch_size,
            samples=samples,
            seconds=seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A plan, the file that it fills, and what measures.

    Attributes:
        max_seconds: a task that would not end within so many seconds of the start is left to a later call; the first
            one is always done. None: no limit.
    """

    plan: Plan
    file: CostFile
    instruments: Instruments
    workshop: Workshop
    sigma: float
    estimator: Estimator
    max_seconds: float | None = None

    def expected_seconds(self) -> float:
        """Return about how long everything that is left takes."""
        return self.estimator.total(self.left(), self.file.run)

    def left(self) -> list[Task]:
        """Return the tasks that are left, as far as they can be told before any is done."""
        return list(tasks(self.plan, lambda: self.file.run, is_forecast=True))

    def steps(self, started: float) -> Iterator[Task]:
        """Do what is left, yielding each task when its line is written; `started` is the clock at the start."""
        measurer = Measurer(self.plan, self.file, self.instruments, self.workshop, self.sigma)
        self.estimator.warm = measurer.warm
        is_first = True
        for task in tasks(self.plan, lambda: self.file.run):
            end = self.instruments.clock() - started + self.estimator.seconds(task, self.file.run)
            if self.max_seconds is not None and end > self.max_seconds and not is_first:
                return
            with many_programs() if task.setting.endswith(COMPILED) else nullcontext():
                self.file.append(measurer.perform(task))
            is_first = False
            yield task


def measurement(
    plan: Plan, file: CostFile, instruments: Instruments, device: torch.device, *, sigma: float
) -> Measurement:
    """Return a measurement without a limit of time; the sizes that the file lacks are counted and written first."""
    known = {size.method for size in file.run.sizes}
    missing = [one for name, one in plan.architectures.items() if name not in known]
    for name, counted in workloads(missing, sigma).items():
        one = plan.architectures[name]
        file.append(
            MethodSize(
                method=name,
                image=(one.task.channels, one.task.image_size, one.task.image_size),
                parameters=counted.parameters,
                flops=counted.flops,
                calls=one.calls,
                batch_size=one.batch_size,
                published=one.published,
                source=one.source,
            )
        )
    estimator = Estimator(
        flops_per_second=trial_flops(device, instruments),
        target_seconds=TARGET_SECONDS,
        image_samples=lambda method, setting: checked_samples(plan, method, setting, file.run),
    )
    return Measurement(
        plan=plan,
        file=file,
        instruments=instruments,
        workshop=Workshop(device),
        sigma=sigma,
        estimator=estimator,
    )


def trial_flops(device: torch.device, instruments: Instruments) -> float:
    """Return half of what float32 products of 1024 x 1024 matrices reach: about what networks do, per second."""
    side, products = 1024, 4
    one = torch.ones((side, side), device=device)
    work = partial(torch.matmul, one, one)
    work()
    seconds = timed(work, products, synchronize=instruments.synchronize, clock=instruments.clock)
    return products * 2 * side**3 / max(seconds, 1e-9) / 2
