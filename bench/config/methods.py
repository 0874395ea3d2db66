"""Methods by name, without importing them: the built-in ones, and those that installed packages add.

The one file of bench that names baselines and rrcm.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Literal, get_args

from bench.errors import UsageError

ENTRY_POINT_GROUP = "bench.methods"
"""Group of the entry points, method name -> module, through which a package adds methods."""

Kind = Literal["studied", "noisy", "purifier"]
"""The method under study, a classifier trained on noisy images, or one that denoises and then classifies."""


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


_BUILT_IN = (
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
        color="#b86e00",
        kind="noisy",
    ),
    MethodEntry(
        name="consistency",
        module="baselines.consistency",
        summary="consistency regularization (arXiv 2006.04062): noisy copies must agree",
        display_name="Consistency",
        color="#00835c",
        kind="noisy",
    ),
    MethodEntry(
        name="dds",
        module="baselines.dds",
        summary="diffusion denoised smoothing (arXiv 2206.10550): denoise once, then classify",
        display_name="DDS",
        color="#a9489a",
        kind="purifier",
    ),
    MethodEntry(
        name="densepure",
        module="baselines.densepure",
        summary="DensePure (arXiv 2211.00322): several reverse chains, each classified, and a majority vote",
        display_name="DensePure",
        color="#7a4b2a",
        kind="purifier",
    ),
    MethodEntry(
        name="consistency-model",
        module="baselines.consistency_model",
        summary="consistency-model purification (arXiv 2303.01469): one call of a consistency model, then classify",
        display_name="Consistency model",
        color="#5a5f66",
        kind="purifier",
    ),
    MethodEntry(
        name="smoothadv",
        module="baselines.smoothadv",
        summary="SmoothAdv (arXiv 1906.04584): training on attacks of the smoothed classifier",
        display_name="SmoothAdv",
        color="#c63d2f",
        kind="noisy",
    ),
    MethodEntry(
        name="macer",
        module="baselines.macer",
        summary="MACER (arXiv 2001.02378): training for a large certified radius",
        display_name="MACER",
        color="#1a8fb0",
        kind="noisy",
    ),
)

BUILT_IN = {entry.name: entry for entry in _BUILT_IN}
"""Name -> built-in method."""


def methods() -> dict[str, MethodEntry]:
    """Return the known methods by name, the built-in ones first, without importing any.

    Raises:
        UsageError: a package adds a method under a name that is taken.
    """
    known = dict(BUILT_IN)
    for name, module in _added(tuple(sys.path)):
        if name in known and known[name].module != module:
            raise UsageError(
                f"method {name!r} is {known[name].module} and also {module}; "
                "uninstall one, or rename its entry point"
            )
        known[name] = MethodEntry(name=name, module=module, summary=f"from {module}")
    return known


@functools.lru_cache(maxsize=4)
def _added(path: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return (name, module) of what installed packages add, sorted; all of them are read once for an import path."""
    return tuple(sorted((point.name, point.value) for point in entry_points(group=ENTRY_POINT_GROUP)))


def described(names: Iterable[str]) -> dict[str, MethodEntry]:
    """Return the methods of these names with all that is known of them.

    What an installed package adds tells by DISPLAY_NAME, COLOR and KIND in its module. A method that is not installed,
    or whose module cannot be imported, has its name alone.

    Raises:
        UsageError: a module's COLOR or KIND is none.
    """
    known = methods()
    return {name: _described(known.get(name, MethodEntry(name=name))) for name in names}


def _described(entry: MethodEntry) -> MethodEntry:
    if entry.name in BUILT_IN or not entry.module:
        return entry
    try:
        module = importlib.import_module(entry.module)
    except (
        Exception,
        SystemExit,
    ):  # a report of an old run needs no method; who asks for the method is told why
        return entry
    told = ("display_name", "color", "kind")
    found = replace(entry, **{name: getattr(module, name.upper(), getattr(entry, name)) for name in told})
    if not re.fullmatch(r"(#[0-9a-fA-F]{6})?", str(found.color)):
        raise UsageError(f"{entry.module}: COLOR is {found.color!r}, expected '#rrggbb', such as '#0173b2'")
    if found.kind not in (None, *get_args(Kind)):
        raise UsageError(
            f"{entry.module}: KIND is {found.kind!r}, expected one of {', '.join(get_args(Kind))}"
        )
    return found


def kinds(names: Iterable[str]) -> dict[str, Kind | None]:
    """Return what the method of each name is; "dds-multistep" is a "dds" of another size, and so on."""
    known = methods()
    owners = {
        name: max((one for one in known if f"{name}-".startswith(f"{one}-")), key=len, default=name)
        for name in names
    }
    found = described(owners.values())
    return {name: found[owner].kind for name, owner in owners.items()}
