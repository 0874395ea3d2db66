"""The device to compute on, and what a run says of the machine and the program it was made by."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from bench.device.host import cpu_info
from bench.device.linear import computed_by
from bench.device.power import driver_version
from bench.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """Return the device; "auto" takes CUDA, then Apple's MPS, then the CPU.

    A GPU that is named, "cuda:1", becomes the current one, on which libraries start what is given no device.

    Raises:
        UsageError: a device that this machine does not have.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, present in available.items() if present)
    kind, colon, number = name.partition(":")
    if not available.get(kind) or bool(colon) != number.isdecimal():
        raise UsageError(f"device {name!r} is not available here; use --device auto or cpu")
    if kind == "cuda" and number:
        _choose_gpu(name, int(number))
    return torch.device(name)


def _choose_gpu(name: str, number: int) -> None:
    count = torch.cuda.device_count()
    if number >= count:
        raise UsageError(
            f"device {name!r} is not available here: this process sees {count} GPUs, cuda:0 to cuda:{count - 1} "
            "(CUDA_VISIBLE_DEVICES chooses which)"
        )
    torch.cuda.set_device(number)


def visible_gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that this process sees, as CUDA_VISIBLE_DEVICES has them: numbers or UUIDs.

    Of MIG partitions one process sees a single one, whichever are listed, and other processes may see the others.
    """
    count = torch.cuda.device_count()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if listed is None else listed.split(",")
    names = [name.strip() for name in names if name.strip()]
    if count and all(name.startswith("MIG-") for name in names):
        return tuple(names)
    return tuple(names[:count])


def as_float64(x: Tensor) -> Tensor:
    """Return x in float64, where it is, or on the CPU where the device, Apple's, has no float64."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


def device_name(device: torch.device) -> str:
    """Return the device's product name; for a CPU its model and the number of threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    model = cpu_info("model name") or platform.processor() or platform.machine()
    return f"{model}, {threads} thread{'s' * (threads > 1)}"


PEAKS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "H200 NVL": {"bfloat16": 835.5e12, "tf32": 417.5e12, "float32": 60.0e12},
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
    """Return the operations per second that the device can do at most, None where it is not known.

    A partition of a board ("NVIDIA H100 80GB HBM3 MIG 1g.10gb") has a part of its processors: unknown.
    """
    if "MIG" in device:
        return None
    known = next((peaks for name, peaks in PEAKS.items() if name in device), {})
    return known.get(precision)


def describe(device: torch.device) -> dict[str, Any]:
    """Return device, cores, memory in bytes, system and Python version, as JSON values.

    A GPU's memory, driver and libraries are added; of a CPU, what computes linear layers.
    """
    described = {
        "device": device_name(device),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if device.type == "cpu":
        return described | {"linear_layers": computed_by()}
    return described | _describe_gpu(device) if device.type == "cuda" else described


def _describe_gpu(device: torch.device) -> dict[str, Any]:
    """Return the memory of a GPU in bytes, its driver, and the versions of what programs it; "unknown" where hidden."""
    return {
        "gpu_memory_bytes": torch.cuda.get_device_properties(device).total_memory,
        "driver": driver_version() or "unknown",
        "cuda": torch.version.cuda or "unknown",
        "cudnn": torch.backends.cudnn.version() or "unknown",
        "triton": _version("triton"),
    }


def memory_of_others(device: torch.device) -> int | None:
    """Return the bytes of a GPU's memory that this process's tensors do not hold; None for other devices."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def git_revision() -> str:
    """Return the revision of the checkout this program runs from, "-dirty" added where it is changed, or "unknown".

    Unknown too where it was installed into a folder of another project's checkout, whose revision tells nothing.
    """
    root = Path(__file__).parents[2]
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top or not Path(top).is_dir() or not root.samefile(top):
        return "unknown"
    return _git(root, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or "unknown"


def _git(folder: Path, *arguments: str) -> str:
    """Return what git answers in a folder, "" where there is no git or no checkout."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
