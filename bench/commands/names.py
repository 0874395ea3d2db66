"""What names there are: `bench list`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import click

from bench.config.names import DATASETS
from bench.errors import UsageError

Tables = Iterable[tuple[Sequence[str], Sequence[Sequence[str]]]]


def _methods() -> Tables:
    from bench.config.methods import methods

    rows = [(one.name, one.display_name or one.name, one.summary) for one in methods().values()]
    return [(("method", "in papers", "what it is"), rows)]


def _datasets() -> Tables:
    return [(("data set", "what it is"), list(DATASETS.items()))]


def _presets() -> Tables:
    from bench.config.run import list_presets

    rows = [
        (preset.name, "\n".join(filter(None, (preset.description, preset.cost, preset.expected))))
        for preset in list_presets()
    ]
    return [(("preset", "what it is, its cost, the expected result"), rows)]


def _models() -> Tables:
    from bench.methods.registry import networks
    from bench.methods.sizes import measure

    headers = ("network", "image", "encoder parameters", "projector", "head", "FLOPs per image")
    rows = []
    for one in map(measure, networks()):
        counts = (f"{count:,}" for count in (one.body, one.projector, one.head, one.flops))
        rows.append((one.name, "x".join(map(str, one.image)), *counts))
    return [(headers, rows)]


def _options(method: str) -> list[tuple[str, str, str]]:
    """Return name, type and default of each option of a method."""
    import dataclasses
    from typing import get_type_hints

    from bench.config.overrides import describe
    from bench.methods import registry

    config = registry.load(method).Config
    hints = get_type_hints(config)
    rows = []
    for one in dataclasses.fields(config):
        if one.name not in ("task", "sigma"):
            default = one.default if one.default is not dataclasses.MISSING else ""
            rows.append(
                (f"{method}.{one.name}", describe(hints[one.name]), str(getattr(default, "name", default)))
            )
    if "checkpoint" not in hints and ":" not in method:
        rows.append((f"{method}.checkpoint", "a path", "the zoo's"))
    return rows


def _recipes() -> Tables:
    from bench.methods.registry import recipe_tables

    return recipe_tables()


LISTS: Mapping[str, Callable[[], Tables]] = {
    "methods": _methods,
    "datasets": _datasets,
    "presets": _presets,
    "models": _models,
    "recipes": _recipes,
}


@click.command(name="list")
@click.argument("what", type=click.Choice([*LISTS, "options"]))
@click.argument("method", required=False)
def list_names(what: str, method: str | None) -> None:
    """List the methods, data sets, presets, networks with their sizes, training recipes, or the options of METHOD."""
    from bench.commands.printing import name_table

    if (what == "options") != (method is not None):
        raise UsageError("`bench list options METHOD` names one method, and the other lists none")
    if method is not None:
        name_table(("--set", "value", "default"), _options(method))
        return
    for headers, rows in LISTS[what]():
        name_table(headers, rows)
