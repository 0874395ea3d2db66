"""What names there are: `bench list`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import click

from bench.config.names import DATASETS

Tables = Iterable[tuple[Sequence[str], Sequence[Sequence[str]]]]


def _methods() -> Tables:
    from bench.config.methods import methods

    rows = [(one.name, one.display_name or one.name, one.summary) for one in methods().values()]
    return [(("method", "in papers", "what it is"), rows)]


def _datasets() -> Tables:
    return [(("data set", "what it is"), list(DATASETS.items()))]


def _presets() -> Tables:
    from bench.config.run import list_presets

    rows = [(preset.name, preset.description, preset.cost, preset.expected) for preset in list_presets()]
    return [(("preset", "what it is", "cost", "expected result"), rows)]


def _models() -> Tables:
    from bench.methods.registry import networks
    from bench.methods.sizes import measure

    headers = ("network", "image", "encoder parameters", "projector", "head", "FLOPs per image")
    rows = []
    for one in map(measure, networks()):
        counts = (f"{count:,}" for count in (one.body, one.projector, one.head, one.flops))
        rows.append((one.name, "x".join(map(str, one.image)), *counts))
    return [(headers, rows)]


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
@click.argument("what", type=click.Choice([*LISTS]))
def list_names(what: str) -> None:
    """List the methods, data sets, presets, networks with their sizes, or training recipes."""
    from bench.commands.printing import name_table

    for headers, rows in LISTS[what]():
        name_table(headers, rows)
