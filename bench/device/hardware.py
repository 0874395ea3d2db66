"""The device to compute on, and what a run says of the machine and the program it was made by."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from bench.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """Return the device; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UsageError: a device that this machine does not have.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, present in available.items() if present)
    if not available.get(name):
        raise UsageError(f"device {name!r} is not available here; use --device auto or cpu")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """Return the device's product name; for a CPU its model and the number of threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"{_cpu_model()}, {threads} thread{'s' * (threads > 1)}"


PEAKS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "H200": {"bfloat16": 989.4e12, "tf32": 494.7e12, "float32": 66.9e12},
        "H100 NVL": {"bfloat16": 835.5e12, "tf32": 417.5e12, "float32": 60.0e12},
        "H100 PCIe": {"bfloat16": 756.5e12, "tf32": 378.0e12, "float32": 51.2e12},
        "H100": {"bfloat16": 989.4e12, "tf32": 494.7e12, "float32": 66.9e12},
    }
)
"""Part of a device's name -> operations per second that its data sheet gives for dense matrices, by arithmetic.

The first name that fits counts; plain H100 is the SXM board.
"""


def peak_flops(device: str, precision: str) -> float | None:
    """Return the operations per second that the device can do at most, None where it is not known."""
    known = next((peaks for name, peaks in PEAKS.items() if name in device), {})
    return known.get(precision)


def describe(device: torch.device) -> dict[str, Any]:
    """Return device, cores, memory in bytes, system and Python version, as JSON values."""
    return {
        "device": device_name(device),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def git_revision() -> str:
    """Return the revision of the checkout this program runs from, "-dirty" added where it is changed, or "unknown"."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return described.stdout.strip() or "unknown"
