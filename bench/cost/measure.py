"""Measures what methods cost: does the steps of a plan one by one, each a line on the disk before the next begins."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from bench.cost.plan import (
    COMPILED,
    ENERGY_SECONDS,
    SETTLING_SECONDS,
    TARGET_SECONDS,
    Plan,
    Step,
    checked_samples,
    expected_seconds,
    samples_of,
    steps,
)
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
from bench.cost.work import certificate, random_stream, stage_seconds
from bench.device.batching import is_out_of_memory
from bench.device.power import joules, while_reading
from bench.device.precision import many_programs
from bench.device.timing import Instruments, Work, seconds_of, timed, warmed
from bench.errors import BenchError
from bench.methods.sizes import workloads
from bench.runs.stream import Stream
from bench.training.loop import seeded_initialisation
from bench.types import Protocol

ALPHA = 0.001
"""Level of the whole images that are certified as a check; it changes no time."""


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
    """Does steps: keeps the networks, and for the current setting the streams and the works that are warm."""

    def __init__(
        self, plan: Plan, file: CostFile, meters: Instruments, device: torch.device, sigma: float
    ) -> None:
        self._plan, self._file, self._meters, self._sigma = plan, file, meters, sigma
        self._workshop = Workshop(device)
        self._setting = ""
        self._modules: dict[str, nn.Module] = {}
        self._streams: dict[str, Stream] = {}
        self._works: dict[tuple[str, int], Work] = {}
        self.warm: set[tuple[str, str, int]] = set()

    def perform(self, step: Step) -> Item:
        """Return the line of a step; a batch size that does not fit, or does not compile, gives a Failure."""
        kinds: dict[str, Callable[[Step, Work], Item]] = {
            "repetition": self._repetition,
            "stages": self._stages,
            "energy": self._energy,
            "image": self._image,
        }
        try:
            self._take_up(step)
            return kinds[step.kind](step, self._warm_work(step))
        except Exception as error:
            reason = _reason(step, error)
            if reason is None:
                raise
        self._works.pop((step.method, step.batch_size), None)
        if self._workshop.device.type == "cuda":
            torch.cuda.empty_cache()
        return Failure(**_pair(step), reason=reason)

    def _take_up(self, step: Step) -> None:
        """Make the method of a step ready in its setting, dropping what belongs to another setting."""
        if step.setting != self._setting:
            self._setting = step.setting
            for known in (self._modules, self._streams, self._works):
                known.clear()
        if step.method in self._streams:
            return
        one = self._plan.architectures[step.method]
        is_compiled = step.setting.endswith(COMPILED)
        module = one.build(self._workshop.compiled if is_compiled else self._workshop.plain)
        self._modules[step.method] = module.to(self._workshop.device).eval()
        self._streams[step.method] = random_stream(
            self._modules[step.method],
            step.setting.removesuffix(COMPILED),  # type: ignore[arg-type]
            (one.task.channels, one.task.image_size, one.task.image_size),
            one.task.num_classes,
            self._sigma,
        )

    def _warm_work(self, step: Step) -> Work:
        key = step.method, step.batch_size
        if key not in self._works:
            known = samples_of(step, self._file.run)
            self._works[key] = warmed(
                self._streams[step.method].work(step.batch_size),
                self._meters,
                TARGET_SECONDS,
                is_first_slow=step.setting.endswith(COMPILED),
                batches=known and known // step.batch_size,
            )
            self.warm.add(step.pair)
        return self._works[key]

    def _repetition(self, step: Step, work: Work) -> Repetition:
        one = timed(work, self._meters)
        load = None if self._meters.read_load is None else self._meters.read_load()
        memory = None
        if one.peak_memory is not None and one.memory_before is not None:
            weights = self._modules[step.method].state_dict().values()
            memory = max(0, one.peak_memory - one.memory_before)
            memory += sum(value.numel() * value.element_size() for value in weights)
        return Repetition(
            **_pair(step),
            round=step.round,
            samples=one.samples,
            seconds=one.seconds,
            peak_memory_bytes=memory,
            session=self._file.run.sessions[-1].created,
            **({} if load is None else vars(load)),
        )

    def _stages(self, step: Step, work: Work) -> StageSplit:
        stream, module = self._streams[step.method], self._modules[step.method]
        return StageSplit(**_pair(step), stages=stage_seconds(stream, module, work.size, self._meters))

    def _energy(self, step: Step, work: Work) -> EnergyUse:
        meters = self._meters
        assert meters.read_load is not None
        self._run_for(work, SETTLING_SECONDS)
        batches: list[int] = []
        readings = while_reading(
            lambda: batches.append(self._run_for(work, ENERGY_SECONDS)), meters.read_load, meters.clock
        )
        return EnergyUse(
            **_pair(step),
            samples=batches[-1] * work.size,
            seconds=readings[-1][0] - readings[0][0],
            joules=joules(readings),
        )

    def _run_for(self, work: Work, seconds: float) -> int:
        """Run batches until the seconds are over, at least one, and return how many."""
        meters, batches = self._meters, 0
        start = meters.clock()
        while batches == 0 or meters.clock() - start < seconds:
            work.batch()
            meters.synchronize()
            batches += 1
        return batches

    def _image(self, step: Step, work: Work) -> WholeImage:
        samples = checked_samples(self._plan, step.method, step.setting, self._file.run)
        assert samples is not None
        n0 = self._plan.n0
        protocol = Protocol(n0=n0, n=samples - n0, alpha=ALPHA, seed=0)
        whole = certificate(self._streams[step.method], protocol, work.size)
        return WholeImage(**_pair(step), samples=samples, seconds=seconds_of(whole, 1, self._meters))


def _pair(step: Step) -> dict[str, Any]:
    return {"method": step.method, "setting": step.setting, "batch_size": step.batch_size}


def _reason(step: Step, error: Exception) -> str | None:
    """Return why a batch size cannot be measured, None for an error that is not of this kind."""
    if isinstance(error, RuntimeError) and is_out_of_memory(error):
        return "out of memory"
    if step.setting.endswith(COMPILED) and not isinstance(error, BenchError):  # whatever the compiler raises
        return f"torch.compile failed ({type(error).__name__})"
    return None


class Measurement:
    """A plan and the file that it fills; making one counts and writes the sizes that the file lacks."""

    def __init__(
        self, plan: Plan, file: CostFile, meters: Instruments, device: torch.device, sigma: float
    ) -> None:
        self.meters, self.folder = meters, file.run.folder
        self._plan, self._file = plan, file
        self._measurer = Measurer(plan, file, meters, device, sigma)
        for size in _missing_sizes(plan, file, sigma):
            file.append(size)
        self._flops_per_second = trial_flops(device, meters)

    def left(self) -> list[Step]:
        """Return the steps that are left, as far as they can be told before any is done."""
        return list(steps(self._plan, lambda: self._file.run, is_forecast=True))

    def expected_seconds(self) -> float:
        """Return about how long everything that is left takes; each pair is warmed up once."""
        warm, total = set(self._measurer.warm), 0.0
        for step in self.left():
            total += self._expected(step, warm)
            warm.add(step.pair)
        return total

    def _expected(self, step: Step, warm: Collection[tuple[str, str, int]]) -> float:
        rate, is_warm = self._flops_per_second, step.pair in warm
        return expected_seconds(self._plan, step, self._file.run, flops_per_second=rate, is_warm=is_warm)

    def steps(self, started: float, max_seconds: float | None = None) -> Iterator[Step]:
        """Do what is left, yielding each step when its line is written.

        Args:
            started: the clock at the start.
            max_seconds: a step that would not end within so many seconds of the start is left to a later call; the
                first one is always done. None: no limit.
        """
        is_first = True
        for step in steps(self._plan, lambda: self._file.run):
            end = self.meters.clock() - started + self._expected(step, self._measurer.warm)
            if max_seconds is not None and end > max_seconds and not is_first:
                return
            with many_programs() if step.setting.endswith(COMPILED) else nullcontext():
                self._file.append(self._measurer.perform(step))
            is_first = False
            yield step


def _missing_sizes(plan: Plan, file: CostFile, sigma: float) -> Iterator[MethodSize]:
    known = {size.method for size in file.run.sizes}
    missing = [one for name, one in plan.architectures.items() if name not in known]
    for name, counted in workloads(missing, sigma).items():
        one = plan.architectures[name]
        yield MethodSize(
            method=name,
            image=(one.task.channels, one.task.image_size, one.task.image_size),
            parameters=counted.parameters,
            flops=counted.flops,
            calls=one.calls,
            batch_size=one.batch_size,
            published=one.published,
            source=one.source,
        )


def trial_flops(device: torch.device, meters: Instruments) -> float:
    """Return half of what float32 products of 1024 x 1024 matrices reach: about what networks do, per second."""
    side, products = 1024, 4
    one = torch.ones((side, side), device=device)
    work = Work(batch=partial(torch.matmul, one, one), size=side)
    work.batch()
    return products * 2 * side**3 / max(seconds_of(work, products, meters), 1e-9) / 2
