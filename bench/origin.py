"""What tells one training from another: its seed, its recipe, and the weights that it starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bench.recipes import Recipe, trained_options

LIMITS = ("patience", "evaluate_every", "nonfinite_limit")
"""Options that say when a training ends and is looked at; a training may go on under others."""

START = "starting weights"


def origin(seed: int, recipe: Recipe, start: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return plain values, equal for two trainings that go the same way; max_steps counts where the rate follows it."""
    options = {name: value for name, value in trained_options(recipe).items() if name not in LIMITS}
    steps = options.pop("max_steps")
    horizon = {"max_steps": steps} if recipe.schedule == "cosine" and recipe.cosine_steps == 0 else {}
    return {"seed": seed, **options, **horizon, START: digest(start)}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors and their names, 64 hexadecimal digits."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return found.hexdigest()


def difference(state: Any, expected: Mapping[str, Any]) -> str:
    """Return the first thing in which a saved state's origin differs from the expected one, "" for none."""
    saved = state.get("origin", {}) if isinstance(state, dict) else {}
    for name, value in expected.items():
        if name not in saved:
            return f"it does not say its {name}"
        if saved[name] != value:
            return f"other {START}" if name == START else f"{name} {saved[name]} instead of {value}"
    return ""
