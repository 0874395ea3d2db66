"""How long, how fast and in which arithmetic a network is trained, and its learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

TrainingPrecision = Literal["float32", "tf32", "bfloat16", "float16"]
"""Arithmetic of training; tf32 is float32 with the products of CUDA's matrices and convolutions in TF32."""

LOOKS = 10
"""Looks at the held-out part in a training whose recipe does not say how often to look."""

IN_USE: Mapping[str, bool] = {"in_use": True}
"""Metadata of an option's field that says how a checkpoint is used, not how it is made."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast to train.

    Attributes:
        max_steps: steps at most; the horizon of the cosine schedule.
        evaluate_every: steps between two looks at the held-out part; 0 = a tenth of max_steps, so that all trainings
            have the same number of looks, LOOKS.
        patience: looks without a new best after which training stops.
        optimizer: AdamW, or SGD with momentum 0.9, whose weight decay is part of the gradient.
        schedule: "constant", "cosine" or "drops" (to a tenth), each after a linear warm-up of warmup_steps.
        cosine_steps: step at which the cosine reaches 0; 0 = max_steps.
        drop_every: steps from one drop to the next; 0 = no drop.
        rate_every: steps for which a learning rate is held; above 1 (an epoch) the first of them has rate 0.
        ema_decay: decay per step of the averaged weights, which are the ones evaluated and kept.
        ema_warmup: whether the decay grows as (k + 1)/(k + 10) at step k until it is ema_decay.
        clip: largest gradient norm; 0 = no clipping.
        clip_from: first step that is clipped.
        precision: arithmetic of the forward pass, tf32 of the backward pass too; weights and losses stay float32.
            float16 scales the loss.
        nonfinite_limit: steps in a row with a loss or gradient that is not finite at which training fails; fewer are
            skipped and counted.
    """

    max_steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 100
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["constant", "cosine", "drops"] = "cosine"
    cosine_steps: int = 0
    drop_every: int = 0
    rate_every: int = 1
    ema_decay: float = 0.998
    ema_warmup: bool = True
    evaluate_every: int = 0
    patience: int = LOOKS
    clip: float = 1.0
    clip_from: int = 0
    precision: TrainingPrecision = "float32"
    nonfinite_limit: int = 10

    @property
    def look_every(self) -> int:
        """Steps between two looks at the held-out part."""
        return self.evaluate_every or max(1, math.ceil(self.max_steps / LOOKS))


def trained_options(config: Any) -> dict[str, Any]:
    """Return the plain options of a method's Config that shape its checkpoint: no IN_USE ones; tuples as lists."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if not field.metadata.get("in_use") and isinstance(value, bool | int | float | str | tuple):
            found[field.name] = list(value) if isinstance(value, tuple) else value
    return found


def average_decay(step: int, recipe: Recipe) -> float:
    """Return the decay of the averaged weights at a step."""
    return min(recipe.ema_decay, (step + 1) / (step + 10)) if recipe.ema_warmup else recipe.ema_decay


def rate_scale(step: int, recipe: Recipe) -> float:
    """Return the factor in [0,1] on the base learning rate: linear warm-up, then constant, half a cosine or drops."""
    position = step // recipe.rate_every * recipe.rate_every
    if position < recipe.warmup_steps:
        return (position + (recipe.rate_every == 1)) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "drops":
        return 0.1 ** (position // recipe.drop_every) if recipe.drop_every else 1.0
    horizon = recipe.cosine_steps or recipe.max_steps
    done = (position - recipe.warmup_steps) / max(1, horizon - recipe.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
