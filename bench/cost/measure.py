"""Measures what methods cost: does the steps of a plan one by one, each a line on the disk before the next begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from bench.cost.estimate import expected_seconds, settles
from bench.cost.plan import (
    COMPILED,
    ENERGY_SECONDS,
    FIRST_CALLS_SECONDS,
    SETTLING_SECONDS,
    TARGET_SECONDS,
    Plan,
    Step,
    checked,
    rates,
    samples_of,
    steps,
)
from bench.cost.records import (
    NOT_COMPILED,
    OUT_OF_MEMORY,
    CostFile,
    EnergyUse,
    Failure,
    Item,
    LayoutTrial,
    MethodSize,
    Repetition,
    StageSplit,
    WholeImage,
)
from bench.cost.work import certificate, stage_seconds
from bench.cost.workshop import Workshop, measured_layout, seconds_by_layout
from bench.device import hardware
from bench.device.batching import is_out_of_memory
from bench.device.bfloat16 import copied_bytes
from bench.device.power import Load, UnreadError, joules, load_of, while_reading
from bench.device.precision import NotCompiledError, many_programs
from bench.device.timing import Instruments, Timed, Work, seconds_of, timed, warmed
from bench.errors import BenchError, ProtocolError
from bench.methods.sizes import Workload, workloads
from bench.runs.stream import Stream
from bench.training.architectures import Architecture
from bench.types import Protocol

MARGIN = 1.15
"""How much longer than expected a step may take."""

ALPHA = 0.001
"""Level of the whole images that are certified as a check; it changes no time."""


UNSETTLED_SECONDS = 10.0
"""A batch that takes less is run once untimed before a repetition on a GPU: other methods have left the allocator's
memory in pieces."""


class Measurer:
    """Does steps: keeps the networks, the streams and the works that are warm."""

    def __init__(
        self, plan: Plan, file: CostFile, meters: Instruments, device: torch.device, sigma: float
    ) -> None:
        self._plan, self._file, self._meters, self._sigma = plan, file, meters, sigma
        self._workshop = Workshop(device)
        self._modules: dict[tuple[str, str], nn.Module] = {}
        self._streams: dict[tuple[str, str], Stream] = {}
        self._works: dict[tuple[str, str, int], Work] = {}
        self._warming: dict[tuple[str, str, int], float] = {}

    @property
    def warm(self) -> Collection[tuple[str, str, int]]:
        """Pairs that are ready."""
        return self._works.keys()

    def perform(self, step: Step) -> Item:
        """Return the line of a step; a batch size that does not fit, or does not compile, gives a Failure."""
        kinds: dict[str, Callable[[Step, Work], Item]] = {
            "repetition": self._repetition,
            "stages": self._stages,
            "energy": self._energy,
            "image": self._image,
        }
        is_built = False
        try:
            if step.kind == "layouts":
                return self._layouts(step)
            self._take_up(step)
            is_built = True
            return kinds[step.kind](step, self._warm_work(step))
        except Exception as error:
            reason = _reason(step, error, is_built=is_built)
            if reason is None:
                raise
        self._works.pop(step.pair, None)
        device, session = self._workshop.device, self._file.run.sessions[-1].created
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return Failure(
            **_pair(step), reason=reason, session=session, memory_of_others=hardware.memory_of_others(device)
        )

    def _take_up(self, step: Step) -> None:
        """Make the method of a step ready in its setting."""
        key = step.method, step.setting
        if key in self._streams:
            return
        one, laid_out = self._plan.architectures[step.method], measured_layout(self._file.run, *key)
        self._modules[key], self._streams[key] = self._workshop.method(
            one, step.setting, self._sigma, laid_out
        )

    def _layouts(self, step: Step) -> LayoutTrial:
        one, device = self._plan.architectures[step.method], self._workshop.device
        batch = seconds_by_layout(one, step.setting, self._sigma, step.batch_size, device, self._meters)
        return LayoutTrial(**_pair(step), batch=batch)

    def _warm_work(self, step: Step) -> Work:
        if step.pair not in self._works:
            known, start = samples_of(step, self._file.run), self._meters.clock()
            self._works[step.pair] = warmed(
                self._streams[step.method, step.setting].work(step.batch_size),
                self._meters,
                TARGET_SECONDS,
                excess_seconds=math.inf if step.setting.endswith(COMPILED) else None,
                batches=known and known // step.batch_size,
            )
            self._warming[step.pair] = self._meters.clock() - start
        return self._works[step.pair]

    def _repetition(self, step: Step, work: Work) -> Repetition:
        session = self._file.run.sessions[-1].created
        warming = self._warming.pop(step.pair, 0.0)
        if self._meters.type == "cuda" and not warming and self._batch_seconds(step) < UNSETTLED_SECONDS:
            work.batch()
        one, load = self._timed(work)
        memory = None
        if one.peak_memory is not None and one.memory_before is not None:
            weights = self._modules[step.method, step.setting].state_dict().values()
            memory = max(0, one.peak_memory - one.memory_before)
            memory += sum(value.numel() * value.element_size() for value in weights)
            if step.setting.startswith("bfloat16"):
                memory += copied_bytes(self._modules[step.method, step.setting])
        return Repetition(
            **_pair(step),
            round=step.round,
            samples=one.samples,
            seconds=one.seconds,
            peak_memory_bytes=memory,
            session=session,
            duel=step.duel,
            group=step.group,
            warming=warming,
            **({} if load is None else vars(load)),
        )

    def _batch_seconds(self, step: Step) -> float:
        rate = rates(self._file.run, step.method, step.setting).get(step.batch_size)
        return 0.0 if rate is None else step.batch_size / rate

    def _timed(self, work: Work) -> tuple[Timed, Load | None]:
        """Return a repetition, and the load that was read while it lasted, or at its end where it was too short."""
        meters = self._meters
        if meters.read_load is None:
            return timed(work, meters), None
        made: list[Timed] = []
        readings = while_reading(lambda: made.append(timed(work, meters)), meters.read_load, meters.clock)
        within = [load for _, load in readings[1:-1] if load is not None]
        if not within and readings[-1][1] is not None:
            within = [readings[-1][1]]
        return made[-1], load_of(within) if within else None

    def _stages(self, step: Step, work: Work) -> StageSplit:
        key = step.method, step.setting
        stages = stage_seconds(self._streams[key], self._modules[key], work.size, self._meters)
        return StageSplit(**_pair(step), stages=stages)

    def _energy(self, step: Step, work: Work) -> EnergyUse:
        """Return the energy of some seconds: by the device's own counter, else by its power, which follows late."""
        meters = self._meters
        batches: list[int] = []
        if meters.used_joules is not None:
            meters.synchronize()
            start, before = meters.clock(), meters.used_joules()
            batches.append(self._run_for(work, ENERGY_SECONDS))
            seconds, used = meters.clock() - start, meters.used_joules() - before
        else:
            assert meters.read_load is not None
            if settles(self._batch_seconds(step)):
                self._run_for(work, SETTLING_SECONDS)
            readings = while_reading(
                lambda: batches.append(self._run_for(work, ENERGY_SECONDS)), meters.read_load, meters.clock
            )
            seconds, used = readings[-1][0] - readings[0][0], joules(readings)
        if not used > 0:  # a counter that stands still
            raise UnreadError
        return EnergyUse(**_pair(step), samples=batches[-1] * work.size, seconds=seconds, joules=used)

    def _run_for(self, work: Work, seconds: float) -> int:
        """Run repetitions until the seconds are over, at least one, and return the batches."""
        meters, batches = self._meters, 0
        start = meters.clock()
        while batches == 0 or meters.clock() - start < seconds:
            seconds_of(work, work.batches, meters)
            batches += work.batches
        return batches

    def _image(self, step: Step, work: Work) -> WholeImage:
        found = checked(self._plan, step.method, step.setting, self._file.run)
        assert found is not None
        images, samples = found
        protocol = Protocol(n0=self._plan.n0, n=samples - self._plan.n0, alpha=ALPHA, seed=0)
        whole = certificate(
            self._streams[step.method, step.setting],
            protocol,
            work.size,
            images=images,
            is_filled=step.setting.endswith(COMPILED),
        )
        rate = rates(self._file.run, step.method, step.setting)[step.batch_size]
        # both stages end with a batch of a size that is new
        if images * samples / rate < FIRST_CALLS_SECONDS:
            seconds_of(whole, 1, self._meters)
        seconds = seconds_of(whole, 1, self._meters)
        return WholeImage(**_pair(step), samples=images * samples, seconds=seconds, images=images)


def _pair(step: Step) -> dict[str, Any]:
    return {"method": step.method, "setting": step.setting, "batch_size": step.batch_size}


def _reason(step: Step, error: Exception, *, is_built: bool) -> str | None:
    """Return why a batch size cannot be measured, None for an error that is not of this kind."""
    if isinstance(error, RuntimeError) and is_out_of_memory(error):
        return OUT_OF_MEMORY
    if isinstance(error, NotCompiledError):
        return f"{NOT_COMPILED} ({error.reason})"
    is_ours = isinstance(error, BenchError | getattr(torch, "AcceleratorError", BenchError))
    if is_built and step.setting.endswith(COMPILED) and not is_ours:
        return f"{NOT_COMPILED} ({type(error).__name__})"  # whatever the compiler raises
    return None


class Measurement:
    """A plan and the file that it fills; making one counts and writes the sizes that the file lacks."""

    def __init__(
        self, plan: Plan, file: CostFile, meters: Instruments, device: torch.device, sigma: float
    ) -> None:
        self.meters, self.folder, self.device = meters, file.run.folder, device
        self._plan, self._file = plan, file
        self._measurer = Measurer(plan, file, meters, device, sigma)
        for size in missing_sizes(plan, file, sigma):
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
            max_seconds: a step that would not end within so many seconds of the start is left to a later call, and
                with the first such repetition, or trial of layouts, all repetitions, which stand in turns. None: no
                limit.
        """
        is_cut = False
        for step in steps(self._plan, lambda: self._file.run):
            if max_seconds is not None:
                end = self.meters.clock() - started + MARGIN * self._expected(step, self._measurer.warm)
                if end > max_seconds or (is_cut and step.kind == "repetition"):
                    is_cut = is_cut or step.kind in ("layouts", "repetition")
                    continue
            with many_programs() if step.setting.endswith(COMPILED) else nullcontext():
                try:
                    self._file.append(self._measurer.perform(step))
                except UnreadError:  # a later call tries again
                    continue
            yield step

    def shortest(self) -> float:
        """Return about how long the shortest step that is left takes, 0 where none is left."""
        return min((MARGIN * self._expected(step, self._measurer.warm) for step in self.left()), default=0.0)


def missing_sizes(plan: Plan, file: CostFile, sigma: float, *, is_checked: bool = False) -> list[MethodSize]:
    """Return the sizes of a plan's methods that a file lacks.

    Args:
        is_checked: whether those that it has are counted too, since options choose the networks.

    Raises:
        ProtocolError: the file holds another network of a method.
    """
    known, missing = {size.method: size for size in file.run.sizes}, []
    counted = [one for name, one in plan.architectures.items() if is_checked or name not in known]
    for name, workload in workloads(counted, sigma).items():
        found = _size(name, plan.architectures[name], workload)
        if name not in known:
            missing.append(found)
            continue
        for field in ("image", "parameters", "flops", "calls", "batch_size"):
            then, now = getattr(known[name], field), getattr(found, field)
            if then != now:
                raise ProtocolError(
                    f"{file.path} holds another network of {name} ({field} {then} then, {now} now): give another --out"
                )
    return missing


def _size(name: str, one: Architecture, counted: Workload) -> MethodSize:
    return MethodSize(
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
