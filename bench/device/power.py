"""Power, clocks, temperature and company of a GPU through NVML, where `pynvml` is installed; and energy."""

from __future__ import annotations

import importlib
import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from bench.errors import BenchError

THROTTLING = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's reasons for lower clocks -> their names; others, such as an idle device, are no throttling."""

READINGS_PER_SECOND = 20
"""How often a load is read while a device works."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a device says of itself at one moment, or of a while in `load_of`.

    Attributes:
        watts: of the whole board; temperature: of the chip in degrees Celsius; clock_mhz: of its processors.
        throttling: names in THROTTLING that hold the clocks down.
        other_processes: processes that compute on it beside this one.
    """

    watts: float
    temperature: float
    clock_mhz: float
    throttling: tuple[str, ...]
    other_processes: int


Reader = Callable[[], Load | None]
"""Returns a load, None where it could not be read this time."""


def nvml_reader(device: torch.device, library: str = "pynvml") -> Reader | None:
    """Return what reads a CUDA device's load, or None for other devices and where NVML is not there.

    What it returns gives None for a reading that fails.
    """
    found = _nvml(device, library)
    if found is None:
        return None
    nvml, handle = found
    try:
        read_load(nvml, handle)
    except nvml.NVMLError:  # a container or a partition may not be allowed to ask
        return None

    def read() -> Load | None:
        try:
            return read_load(nvml, handle)
        except nvml.NVMLError:  # the driver answers some questions late
            return None

    return read


class UnreadError(BenchError):
    """A power or an energy that NVML did not give this time."""

    def __init__(self) -> None:
        super().__init__("NVML gave no power while the energy of a method was measured; repeat the command")


def energy_counter(device: torch.device, library: str = "pynvml") -> Callable[[], float] | None:
    """Return what reads the joules that a CUDA device has used, from a start of its own; None where it counts none.

    What it returns raises UnreadError where a reading fails.
    """
    found = _nvml(device, library)
    if found is None:
        return None
    nvml, handle = found
    try:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError:  # before Volta there is none
        return None

    def used() -> float:
        try:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
        except nvml.NVMLError as error:
            raise UnreadError from error

    return used


def driver_version(library: str = "pynvml") -> str | None:
    """Return the version of NVIDIA's driver, None where NVML is not there."""
    try:
        nvml: Any = importlib.import_module(library)
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        return str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        return None


def _nvml(device: torch.device, library: str) -> tuple[Any, Any] | None:
    """Return the library and a device's handle, None where there is none; a partition (MIG) has names of its own."""
    if device.type != "cuda":
        return None
    try:
        nvml: Any = importlib.import_module(library)
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid).removeprefix("GPU-").removeprefix("MIG-")
        try:
            return nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except nvml.NVMLError:
            return nvml, nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
    except nvml.NVMLError:
        return None


def read_load(nvml: Any, handle: Any) -> Load:
    """Return the load of a device by its NVML handle."""
    reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return Load(
        watts=nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        temperature=float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        clock_mhz=float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        throttling=tuple(name for bit, name in THROTTLING.items() if reasons & bit),
        other_processes=max(0, len(processes) - 1),  # containers see other process ids than NVML does
    )


def joules(readings: Sequence[tuple[float, Load | None]]) -> float:
    """Return the energy of (seconds, load) in order of time: power integrated by the trapezoid rule.

    What lies before the first or behind the last reading that did not fail has the mean power of the others.

    Raises:
        UnreadError: fewer than two did not fail.
    """
    known = [(seconds, load) for seconds, load in readings if load is not None]
    if len(known) < 2:
        raise UnreadError
    area = sum(
        (later - sooner) * (one.watts + other.watts) / 2 for (sooner, one), (later, other) in pairwise(known)
    )
    return area * (readings[-1][0] - readings[0][0]) / (known[-1][0] - known[0][0])


def while_reading(
    work: Callable[[], object],
    read: Reader,
    clock: Callable[[], float],
    per_second: float = READINGS_PER_SECOND,
) -> list[tuple[float, Load | None]]:
    """Run `work` and return (seconds, load) from its start to its end; the load is read from another thread.

    The load is None where a reading failed.
    """
    readings = [(clock(), read())]
    is_done = threading.Event()

    def keep_reading() -> None:
        while not is_done.wait(1 / per_second):
            readings.append((clock(), read()))

    thread = threading.Thread(target=keep_reading, daemon=True)
    thread.start()
    try:
        work()
    finally:
        is_done.set()
        thread.join()
    readings.append((clock(), read()))
    return readings


def load_of(readings: Sequence[Load]) -> Load:
    """Return one load for those read while a device worked: whatever once held it down or kept it company counts."""
    return Load(
        watts=statistics.fmean(one.watts for one in readings),
        temperature=max(one.temperature for one in readings),
        clock_mhz=min(one.clock_mhz for one in readings),
        throttling=tuple(
            name for name in THROTTLING.values() if any(name in one.throttling for one in readings)
        ),
        other_processes=max(one.other_processes for one in readings),
    )
