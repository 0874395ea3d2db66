"""What measures on a device, and the one way to time works on it: warmed up, in interleaved rounds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from bench.device.hardware import device_name
from bench.device.heap import release_memory
from bench.device.power import Reader, energy_counter, nvml_reader

T = TypeVar("T")

PeakMemory = Callable[[Callable[[], object]], int | None]
"""Runs its argument and returns the most bytes in use meanwhile, or None where the system does not tell.

They include what the process holds besides, such as other methods' weights.
"""


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """What measures on one device; tests put a clock and a device of their own in its place.

    Attributes:
        device: its product name; type: "cpu", "cuda" or "mps".
        clock: seconds, increasing.
        synchronize: waits for the device's pending work.
        mark: a point in the device's own time, to be compared by `between` once the device is idle.
        between: seconds from one mark to a later one.
        peak_memory: see `PeakMemory`; memory_now: bytes in use, None where the system does not tell.
        read_load: power, clocks and temperature; None where there is no NVML.
        used_joules: the energy that the device has used; None where it does not count it.
    """

    device: str
    type: str
    clock: Callable[[], float]
    synchronize: Callable[[], object]
    mark: Callable[[], Any]
    between: Callable[[Any, Any], float]
    peak_memory: PeakMemory
    memory_now: Callable[[], int | None]
    read_load: Reader | None = None
    used_joules: Callable[[], float] | None = None


def instruments(device: torch.device) -> Instruments:
    """Return the instruments of a device: CUDA's events and tensors, elsewhere the system's clock and memory."""
    is_cuda = device.type == "cuda"
    return Instruments(
        device=device_name(device),
        type=device.type,
        clock=time.perf_counter,
        synchronize=_waiting(device),
        mark=partial(_event, device) if is_cuda else time.perf_counter,
        between=_event_seconds if is_cuda else lambda start, end: end - start,
        peak_memory=partial(_peak_allocated, device) if is_cuda else _peak_resident,
        memory_now=partial(torch.cuda.memory_allocated, device) if is_cuda else _resident_now,
        read_load=nvml_reader(device),
        used_joules=energy_counter(device),
    )


def _waiting(device: torch.device) -> Callable[[], object]:
    """Return what waits for a device's pending work; a CPU has none."""
    if device.type == "cuda":
        return partial(torch.cuda.synchronize, device)
    return torch.mps.synchronize if device.type == "mps" else lambda: None


def _event(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _event_seconds(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
    return start.elapsed_time(end) / 1000


def _peak_allocated(device: torch.device, work: Callable[[], object]) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device)


def _resident_now() -> int | None:
    release_memory()
    return _status_bytes("VmRSS:")


def _peak_resident(work: Callable[[], object]) -> int | None:
    is_reset = True
    release_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak; see proc_pid_clear_refs(5)
    except OSError:
        is_reset = False
    work()
    return _status_bytes("VmHWM:") if is_reset else None


def _status_bytes(name: str) -> int | None:
    """Return a line of the process's status on Linux, in bytes; None on other systems."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is timed.

    Attributes:
        batch: classifies one batch of noisy samples; it need not wait for the device.
        size: samples of a batch.
        batches: that make a repetition.
    """

    batch: Callable[[], object]
    size: int
    batches: int = 1


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One repetition of a work: its samples, its wall time, and bytes in use before and at most; None: not told."""

    samples: int
    seconds: float
    memory_before: int | None
    peak_memory: int | None


def seconds_of(work: Work, batches: int, meters: Instruments) -> float:
    """Return the seconds that some batches take, from an idle device to an idle device.

    Batches of one sample wait for the device one by one, so that the seconds of one are its latency.
    """
    meters.synchronize()
    start = meters.clock()
    for _ in range(batches):
        work.batch()
        if work.size == 1:
            meters.synchronize()
    meters.synchronize()
    return meters.clock() - start


def timed(work: Work, meters: Instruments) -> Timed:
    """Return one repetition of a work."""
    seconds: list[float] = []
    before = meters.memory_now()
    peak = meters.peak_memory(lambda: seconds.append(seconds_of(work, work.batches, meters)))
    samples = work.batches * work.size
    return Timed(samples=samples, seconds=seconds[-1], memory_before=before, peak_memory=peak)


FIRST_SECONDS = 60.0
"""How much longer than others an accelerator's first batch may take: libraries load, kernels are compiled."""


def warmed(
    work: Work,
    meters: Instruments,
    target_seconds: float,
    *,
    excess_seconds: float | None = None,
    batches: int | None = None,
) -> Work:
    """Return a work after its first batch, with the batches that take about the target, at least one.

    Args:
        excess_seconds: how much longer than others the first batch may take. Where it takes four times the target and
            that beside, no second one is run to see that one batch is a repetition. None: as the device says.
        batches: of a repetition where that is known, so that none are run to find out.
    """
    if excess_seconds is None:
        excess_seconds = 0.0 if meters.type == "cpu" else FIRST_SECONDS
    first = seconds_of(work, 1, meters)
    if batches is None and first < 4 * target_seconds + excess_seconds:
        batches = 1
        while (seconds := seconds_of(work, batches, meters)) < target_seconds / 4:
            batches *= 2
        batches = max(1, round(batches * target_seconds / seconds))
    return replace(work, batches=batches or 1)


def interleaved(items: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Yield (round, item) for every item in every round, each round beginning with another one.

    So drift of the machine and the order of methods weigh on all alike.
    """
    for number in range(rounds if items else 0):
        shift = number % len(items)
        for item in (*items[shift:], *items[:shift]):
            yield number, item


def measure(
    works: Sequence[Work],
    meters: Instruments,
    *,
    repetitions: int,
    target_seconds: float = 0.25,
    batches: int | None = None,
) -> list[list[Timed]]:
    """Return the repetitions of each work, one in each round; all are warmed up before round one.

    Args:
        repetitions: rounds, >= 1.
        target_seconds: about how long a repetition takes.
        batches: of each repetition; None: as many as take about the target, at least one.
    """
    warm = [warmed(work, meters, target_seconds, excess_seconds=math.inf, batches=batches) for work in works]
    found: list[list[Timed]] = [[] for _ in warm]
    for _, position in interleaved(range(len(warm)), repetitions):
        found[position].append(timed(warm[position], meters))
    return found
