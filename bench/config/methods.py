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


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """What is known of a method before its module is imported.

    Attributes:
        module: the module that holds it.
        summary: one line about it.
        display_name: as tables and figures for readers call it.
        color: "#rrggbb" of its curves in every figure; "": the next one that no other method has.
        kind: what it is; None where nothing tells.
    """

    name: str
    module: str
    summary: str
    display_name: str = ""
    color: str = ""
    kind: Kind | None = None


_TABLE = (
    MethodEntry(
        name="rrcm",
        module="rrcm.model",
        summary="rRCM (arXiv 2501.13094): a pre-trained encoder told the noise level, one forward pass",
        display_name="rRCM",
        color="#0173b2",
        kind="studied",
    ),
    MethodEntry(
        name="gaussian",
        module="baselines.gaussian",
        summary="Gaussian augmentation (arXiv 1902.02918): cross entropy on noisy images",
        display_name="Gaussian",
        color="#de8f05",
        kind="noisy",
    ),
    MethodEntry(
        name="consistency",
        module="baselines.consistency",
        summary="consistency regularisation (arXiv 2006.04062): noisy copies must agree",
        display_name="Consistency",
        color="#029e73",
        kind="noisy",
    ),
    MethodEntry(
        name="dds",
        module="baselines.dds",
        summary="diffusion denoised smoothing (arXiv 2206.10550): denoise once, then classify",
        display_name="DDS",
        color="#cc78bc",
        kind="purifier",
    ),
    MethodEntry(
        name="densepure",
        module="baselines.densepure",
        summary="DensePure (arXiv 2211.00322): several reverse chains, each classified, and a majority vote",
        display_name="DensePure",
        kind="purifier",
    ),
    MethodEntry(
        name="consistency-model",
        module="baselines.consistency_model",
        summary="consistency-model purification (arXiv 2303.01469): one call of a consistency model, then classify",
        display_name="Consistency model",
        kind="purifier",
    ),
    MethodEntry(
        name="smoothadv",
        module="baselines.smoothadv",
        summary="SmoothAdv (arXiv 1906.04584): training on attacks of the smoothed classifier",
        display_name="SmoothAdv",
        kind="noisy",
    ),
    MethodEntry(
        name="macer",
        module="baselines.macer",
        summary="MACER (arXiv 2001.02378): training for a large certified radius",
        display_name="MACER",
        kind="noisy",
    ),
)
BUILT_IN = {entry.name: entry for entry in _TABLE}
"""Name -> built-in method."""


def methods() -> dict[str, MethodEntry]:
    """Return all known methods by name: the built-in ones, then those that installed packages add.

    Raises:
        UsageError: an installed package takes the name of another method.
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
    """Return the methods of these names as readers see them, each with a display name.

    The module of a method that an installed package adds tells its DISPLAY_NAME, COLOR and KIND. A method that is
    not installed, or whose module cannot be imported, is called by its own name.
    """
    known = methods()
    return {name: _described(known.get(name), name) for name in names}


def _described(entry: MethodEntry | None, name: str) -> MethodEntry:
    if entry is None:
        return MethodEntry(name=name, module="", summary="", display_name=name)
    if name in BUILT_IN:
        return replace(entry, display_name=entry.display_name or name)
    try:
        module = importlib.import_module(entry.module)
    except ImportError:
        return replace(entry, display_name=name)
    told = {"display_name": "DISPLAY_NAME", "color": "COLOR", "kind": "KIND"}
    found = {field: getattr(module, hook) for field, hook in told.items() if hasattr(module, hook)}
    return replace(entry, **{"display_name": name, **found})


def kinds(names: Iterable[str]) -> dict[str, Kind | None]:
    """Return what the method of each name is; "dds-multistep" is a "dds" of another size, and so on."""
    known = methods()
    owners = {
        name: max((one for one in known if f"{name}-".startswith(f"{one}-")), key=len, default=name)
        for name in names
    }
    found = described(owners.values())
    return {name: found[owner].kind for name, owner in owners.items()}
