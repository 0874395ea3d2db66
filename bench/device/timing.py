"""Timers and meters of a device: interleaved timings of several methods, events, peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.device.power import Reader, nvml_reader
from bench.types import Classifier, CostRecord

PeakMemory = Callable[[Callable[[], object]], int | None]
"""Runs its argument and returns the most bytes in use meanwhile, or None where the system does not tell."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One method to measure.

    Attributes:
        work: classifies one fresh batch of `batch_size` noisy samples; it need not wait for the device.
        device: name of the device, as it is stored.
        samples_per_certificate: n0 + n of the run.
        parameters: number of parameters of the whole method.
    """

    method: str
    sigma: float
    device: str
    batch_size: int
    work: Callable[[], object]
    samples_per_certificate: int
    parameters: int


def measure(
    contenders: Sequence[Contender],
    *,
    repetitions: int,
    synchronize: Callable[[], object],
    peak_memory: PeakMemory,
    clock: Callable[[], float] = time.perf_counter,
    target_seconds: float = 0.25,
) -> tuple[CostRecord, ...]:
    """Return the measured cost of each contender, in order.

    Each round runs every contender once, beginning with another one each time, so that drift of the machine
    and the order of methods weigh on all alike. Warm-up, sample counts and memory come before round one.

    Args:
        contenders: methods to compare.
        repetitions: rounds, >= 1.
        synchronize: waits until the device has finished; see `synchronizer`.
        peak_memory: measures one batch of one contender by itself; see `peak_memory_meter`.
        clock: seconds, increasing.
        target_seconds: about how long one repetition takes; it holds at least one batch.
    """

    def seconds_of(contender: Contender, batches: int) -> float:
        return timed(contender.work, batches, synchronize=synchronize, clock=clock)

    for contender in contenders:
        seconds_of(contender, 1)
    batches = [choose_batches(partial(seconds_of, contender), target_seconds) for contender in contenders]
    memory = [peak_memory(partial(seconds_of, contender, 1)) for contender in contenders]
    seconds: list[list[float]] = [[] for _ in contenders]
    for repetition in range(repetitions):
        for position in range(len(contenders)):
            i = (position + repetition) % len(contenders)
            seconds[i].append(seconds_of(contenders[i], batches[i]))
    return tuple(map(_record, contenders, batches, seconds, memory))


def timed(
    work: Callable[[], object],
    batches: int,
    *,
    synchronize: Callable[[], object],
    clock: Callable[[], float],
    wait_each: bool = False,
) -> float:
    """Return the seconds that some batches take, from an idle device to an idle device.

    Args:
        work: does one batch; it need not wait for the device.
        wait_each: wait for the device after every batch, so that the seconds of one are its latency.
    """
    synchronize()
    start = clock()
    for _ in range(batches):
        work()
        if wait_each:
            synchronize()
    synchronize()
    return clock() - start


def choose_batches(seconds_of: Callable[[int], float], target_seconds: float) -> int:
    """Return how many batches take about the target, at least one; `seconds_of` times some batches."""
    batches = 1
    while (seconds := seconds_of(batches)) < target_seconds / 4:
        batches *= 2
    return max(1, round(batches * target_seconds / seconds))


def _record(contender: Contender, batches: int, seconds: Iterable[float], memory: int | None) -> CostRecord:
    return CostRecord(
        method=contender.method,
        sigma=contender.sigma,
        device=contender.device,
        batch_size=contender.batch_size,
        samples_per_repetition=batches * contender.batch_size,
        repetition_seconds=tuple(seconds),
        samples_per_certificate=contender.samples_per_certificate,
        parameters=contender.parameters,
        peak_memory_bytes=memory,
    )


def noisy_work(classifier: Classifier, x: Tensor, sigma: float, batch_size: int) -> Callable[[], Tensor]:
    """Return the work of a contender: draw a batch of noise, classify it and take each sample's class.

    Args:
        classifier: the method, on the device of x.
        x: (C, H, W) float32 in [0,1].
        sigma: standard deviation of the noise in pixel units.
        batch_size: samples of one batch.

    Returns:
        A callable that returns (batch_size,) int64 classes on the device.
    """
    keys = torch.arange(batch_size, device=x.device)
    generator = torch.Generator(x.device).manual_seed(0)

    @torch.inference_mode()
    def work() -> Tensor:
        noise = torch.randn((batch_size, *x.shape), generator=generator, device=x.device)
        return classifier(noise.mul_(sigma).add_(x), sigma, keys).argmax(1)

    return work


def synchronizer(device: torch.device) -> Callable[[], object]:
    """Return a callable that waits for the device's pending work; a CPU has none."""
    if device.type != "cuda":
        return lambda: None
    return partial(torch.cuda.synchronize, device)


def peak_memory_meter(device: torch.device) -> PeakMemory:
    """Return the meter for a device: CUDA's allocated tensors, or the process's resident memory on Linux.

    The peak includes what the process holds besides the measured work, such as other methods' weights.
    """
    return partial(_peak_allocated, device) if device.type == "cuda" else _peak_resident


def _peak_allocated(device: torch.device, work: Callable[[], object]) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device)


def _peak_resident(work: Callable[[], object]) -> int | None:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak; see proc_pid_clear_refs(5)
    except OSError:
        work()
        return None
    work()
    return _status_bytes("VmHWM:")


def _status_bytes(name: str) -> int | None:
    """Return a line of the process's status on Linux, in bytes; None on other systems."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


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


def instruments(device: torch.device, name: str) -> Instruments:
    """Return the instruments of a device of that name: CUDA's events, elsewhere the system's clock."""
    is_cuda = device.type == "cuda"
    return Instruments(
        device=name,
        type=device.type,
        clock=time.perf_counter,
        synchronize=synchronizer(device),
        mark=partial(_event, device) if is_cuda else time.perf_counter,
        between=_event_seconds if is_cuda else lambda start, end: end - start,
        peak_memory=peak_memory_meter(device),
        memory_now=partial(torch.cuda.memory_allocated, device)
        if is_cuda
        else partial(_status_bytes, "VmRSS:"),
        read_load=nvml_reader(device),
    )


def _event(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _event_seconds(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
    return start.elapsed_time(end) / 1000
