"""rRCM Bench: certify image classifiers by randomized smoothing, and read and make its runs.

Importing this package imports no torch; the names below do, when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.data.sets import load as load_data
    from bench.runs.results import Results, certify_many, load, load_model, run
    from bench.smoothing.api import certify, from_module, predict

__version__ = "0.1.0"

__all__ = [
    "Results",
    "certify",
    "certify_many",
    "from_module",
    "load",
    "load_data",
    "load_model",
    "predict",
    "run",
]

_WHERE = {
    **dict.fromkeys(("certify", "from_module", "predict"), "bench.smoothing.api"),
    **dict.fromkeys(("Results", "certify_many", "load", "load_model", "run"), "bench.runs.results"),
    "load_data": "bench.data.sets",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        try:
            return import_module(f"bench.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"bench.{name}":  # one that it needs
                raise
            raise AttributeError(f"module 'bench' has no attribute {name!r}") from error
    return getattr(import_module(_WHERE[name]), "load" if name == "load_data" else name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
