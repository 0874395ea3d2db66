"""Power, clocks, temperature and company of a GPU through NVML, where `pynvml` is installed; and energy."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

THROTTLING = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's reasons for lower clocks -> their names; others, such as an idle device, are no throttling."""

READINGS_PER_SECOND = 20
"""How often power is read while energy is measured."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a device says of itself at one moment.

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


Reader = Callable[[], Load]


def nvml_reader(device: torch.device, library: str = "pynvml") -> Reader | None:
    """Return what reads a CUDA device's load, or None for other devices and where NVML is not there."""
    if device.type != "cuda":
        return None
    try:
        nvml: Any = importlib.import_module(library)
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        read_load(nvml, handle)
    except nvml.NVMLError:  # a container or a partition may not be allowed to ask
        return None
    return lambda: read_load(nvml, handle)


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


def joules(readings: Sequence[tuple[float, float]]) -> float:
    """Return the energy of (seconds, watts) in order of time: power integrated by the trapezoid rule."""
    return sum((later - sooner) * (one + other) / 2 for (sooner, one), (later, other) in pairwise(readings))


def while_reading(
    work: Callable[[], object], read: Reader, clock: Callable[[], float]
) -> list[tuple[float, float]]:
    """Run `work` and return (seconds, watts) from its start to its end; power is read from another thread."""
    readings = [(clock(), read().watts)]
    is_done = threading.Event()

    def keep_reading() -> None:
        while not is_done.wait(1 / READINGS_PER_SECOND):
            readings.append((clock(), read().watts))

    thread = threading.Thread(target=keep_reading, daemon=True)
    thread.start()
    try:
        work()
    finally:
        is_done.set()
        thread.join()
    readings.append((clock(), read().watts))
    return readings
