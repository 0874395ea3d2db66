"""The C library's heap: memory that one batch frees stays for the next one."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1


def keep_memory() -> bool:
    """Have glibc keep freed memory for what is allocated next; return whether there is a glibc that does.

    By itself it gives the activations of each forward pass back to the system, which has to clear them page by page for
    the next one. Call it before torch is imported.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _MOST)) and bool(mallopt(_MMAP_THRESHOLD, 2**30))


def release_memory() -> None:
    """Give freed memory back to the system, so that what it counts as in use is in use."""
    if (trim := _glibc("malloc_trim")) is not None:
        trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):  # another C library
        return None
