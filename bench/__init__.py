"""rRCM Bench: `from bench import certify, from_module` certifies any torch classifier.

Importing this package imports no torch; the names below do, when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.smoothing.api import certify, from_module, predict

__all__ = ["certify", "from_module", "predict"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    from bench.smoothing import api

    return getattr(api, name)
