"""What this machine, or the container on it, lets the process have: processors and memory. No torch."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux (version 2 of its control groups) states the limits of the container that a process runs in."""


def cores(cgroup: Path = CGROUP) -> int:
    """Return how many processors this process may use; a queue or a container may leave it fewer than all."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _stated(cgroup / "cpu.max").partition(
        " "
    )  # of its time in microseconds, "max" for all
    if not (quota.isdecimal() and period.isdecimal()):
        return seen
    return max(1, min(seen, math.ceil(int(quota) / int(period))))


def available_memory(cgroup: Path = CGROUP) -> int:
    """Return the bytes of memory that programs may still take; where the system does not tell, all that there is."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _stated(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit, used = _stated(cgroup / "memory.max"), _stated(cgroup / "memory.current")
    if not (limit.isdecimal() and used.isdecimal()):
        return free
    # files that are kept as long as programs do not need the room
    cached = sum(
        int(line.split()[1])
        for line in _stated(cgroup / "memory.stat").splitlines()
        if line.startswith("inactive_file ")
    )
    return max(0, min(free, int(limit) - int(used) + cached))


def cpu_info(field: str) -> str:
    """Return what Linux says of the first processor in a field such as "model name", "" where there is none."""
    lines = (line.split(":", 1) for line in _stated(Path("/proc/cpuinfo")).splitlines() if ":" in line)
    return next((value.strip() for name, value in lines if name.strip() == field), "")


def _stated(path: Path) -> str:
    """Return what a file of the system contains, "" where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
