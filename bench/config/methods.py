"""Methods by name, without importing them: the built-in ones, and those that installed packages add.

The one file of bench that names baselines and rrcm.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Literal

from bench.errors import UsageError

ENTRY_POINT_GROUP = "bench.methods"
"""Group of the entry points, method name -> module, through which a package adds methods."""

Kind = Literal["studied", "noisy", "purifier"]
"""The method under study, a classifier trained on noisy images, or one that denoises and then classifies."""


_MODULES = {
    "rrcm": (
        "rrcm.model",
        "rRCM (arXiv 2501.13094): a pre-trained encoder told the noise level, one forward pass",
    ),
    "gaussian": (
        "baselines.gaussian",
        "Gaussian augmentation (arXiv 1902.02918): cross entropy on noisy images",
    ),
    "consistency": (
        "baselines.consistency",
        "consistency regularisation (arXiv 2006.04062): noisy copies must agree",
    ),
    "dds": ("baselines.dds", "diffusion denoised smoothing (arXiv 2206.10550): denoise once, then classify"),
    "densepure": (
        "baselines.densepure",
        "DensePure (arXiv 2211.00322): several reverse chains, each classified, and a majority vote",
    ),
    "consistency-model": (
        "baselines.consistency_model",
        "consistency-model purification (arXiv 2303.01469): one call of a consistency model, then classify",
    ),
    "smoothadv": (
        "baselines.smoothadv",
        "SmoothAdv (arXiv 1906.04584): training on attacks of the smoothed classifier",
    ),
    "macer": ("baselines.macer", "MACER (arXiv 2001.02378): training for a large certified radius"),
}
_LOOKS: dict[str, tuple[str, str, Kind]] = {
    "rrcm": ("rRCM", "#0173b2", "studied"),
    "gaussian": ("Gaussian", "#de8f05", "noisy"),
    "consistency": ("Consistency", "#029e73", "noisy"),
    "dds": ("DDS", "#cc78bc", "purifier"),
    "densepure": ("DensePure", "", "purifier"),
    "consistency-model": ("Consistency model", "", "purifier"),
    "smoothadv": ("SmoothAdv", "", "noisy"),
    "macer": ("MACER", "", "noisy"),
}


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """What is known of a method without its networks.

    Attributes:
        module: the module that holds it, "" where the method is not installed; summary: one line about it.
        display_name: as readers of tables and figures know it; "": its name.
        color: "#rrggbb" of its curves in every figure; "": the next one that no other method has.
        kind: what it is; None where nothing tells.
    """

    name: str
    module: str = ""
    summary: str = ""
    display_name: str = ""
    color: str = ""
    kind: Kind | None = None


BUILT_IN = {
    name: MethodEntry(name=name, module=module, summary=summary, display_name=shown, color=color, kind=kind)
    for name, (module, summary) in _MODULES.items()
    for shown, color, kind in [_LOOKS[name]]
}
"""Name -> built-in method."""


def methods() -> dict[str, MethodEntry]:
    """Return the known methods by name, the built-in ones first, without importing any.

    Raises:
        UsageError: a package adds a method under a name that is taken.
    """
    known = dict(BUILT_IN)
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        if point.name in known and known[point.name].module != point.value:
            raise UsageError(
                f"method {point.name!r} is {known[point.name].module} and also {point.value}; "
                "uninstall one, or rename its entry point"
            )
        known[point.name] = MethodEntry(name=point.name, module=point.value, summary=f"from {point.value}")
    return known


def described(names: Iterable[str]) -> dict[str, MethodEntry]:
    """Return the methods of these names with all that is known of them.

    What an installed package adds tells by DISPLAY_NAME, COLOR and KIND in its module. A method that is not installed,
    or whose module cannot be imported, has its name alone.
    """
    known = methods()
    return {name: _described(known.get(name, MethodEntry(name=name))) for name in names}


def _described(entry: MethodEntry) -> MethodEntry:
    if entry.name in BUILT_IN or not entry.module:
        return entry
    try:
        module = importlib.import_module(entry.module)
    except ImportError:
        return entry
    told = ("display_name", "color", "kind")
    return replace(entry, **{name: getattr(module, name.upper(), getattr(entry, name)) for name in told})


def kinds(names: Iterable[str]) -> dict[str, Kind | None]:
    """Return what the method of each name is; "dds-multistep" is a "dds" of another size, and so on."""
    known = methods()
    owners = {
        name: max((one for one in known if f"{name}-".startswith(f"{one}-")), key=len, default=name)
        for name in names
    }
    found = described(owners.values())
    return {name: found[owner].kind for name, owner in owners.items()}
