"""Tables of networks and published recipes, kept for the built-in methods: to list them takes no import of any.

`python -m bench.methods.listed` writes the kept tables anew; methods of other packages are asked each time.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from bench.config.methods import BUILT_IN, methods

LISTED = Path(__file__).with_name("listed.json")
"""Where the kept tables stand."""

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Headers, and rows of as many cells."""

HEADERS = ("network", "image", "encoder parameters", "projector", "head", "FLOPs per image")


def model_tables() -> list[Table]:
    """Return the networks that methods offer by name, with their sizes."""
    return _listed("models")


def recipe_tables() -> list[Table]:
    """Return the published recipes that options can name; methods of equal headers share a table."""
    return _listed("recipes")


def asked(names: Collection[str]) -> dict[str, list[Table]]:
    """Return what the methods of these names offer, "models" and "recipes", by importing and measuring them."""
    from bench.methods import registry
    from bench.methods.sizes import measure

    rows = []
    for one in map(measure, registry.networks(names)):
        counts = (f"{count:,}" for count in (one.body, one.projector, one.head, one.flops))
        rows.append((one.name, "x".join(map(str, one.image)), *counts))
    return {"models": [(HEADERS, rows)], "recipes": registry.recipe_tables(names)}


def _listed(what: str) -> list[Table]:
    kept = json.loads(LISTED.read_text())[what]
    tables = {tuple(headers): [tuple(row) for row in rows] for headers, rows in kept}
    added = [name for name in methods() if name not in BUILT_IN]
    for headers, rows in asked(added)[what] if added else ():
        tables.setdefault(headers, []).extend(rows)
    return [*tables.items()]


if __name__ == "__main__":
    LISTED.write_text(json.dumps(asked(BUILT_IN), indent=1) + "\n")
