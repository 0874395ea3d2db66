"""How long the steps of a plan take: by what was timed of them, else by operations."""

from __future__ import annotations

import math

from bench.cost.plan import (
    COMPILE_SECONDS,
    COMPILED,
    ENERGY_SECONDS,
    FIRST_CALLS_SECONDS,
    SETTLING_SECONDS,
    TARGET_SECONDS,
    Plan,
    Step,
    checked,
    rates,
)
from bench.cost.records import CostRun
from bench.device.batching import trial_batches
from bench.device.precision import LAYOUTS


def expected_seconds(
    plan: Plan, step: Step, run: CostRun, *, flops_per_second: float, is_warm: bool
) -> float:
    """Return about how long a step takes: by what was timed of it, else of the method nearest in operations.

    Args:
        flops_per_second: what the device does in float32, by a trial.
        is_warm: its pair has been run in this process; another one is run once more, or compiled, before it is timed.
    """
    batch = _batch_seconds(step, run, flops_per_second)
    if step.kind == "layouts":
        return len(LAYOUTS) * trial_batches(batch) * batch
    warming = 0.0 if is_warm else _warming_seconds(step, run, batch)
    if step.kind == "stages":
        return warming + batch
    if step.kind == "energy":
        return (
            warming + max(ENERGY_SECONDS, batch) + (max(SETTLING_SECONDS, batch) if settles(batch) else 0.0)
        )
    if step.kind == "image":
        images, samples = checked(plan, step.method, step.setting, run) or (0, 0)
        seconds = images * samples * batch / step.batch_size
        return warming + (seconds if seconds >= FIRST_CALLS_SECONDS else 2 * seconds)
    return warming + max(TARGET_SECONDS, batch)


def settles(batch_seconds: float) -> bool:
    """Return whether a method runs alone before its power is read: what came before weighs little in a long batch."""
    return batch_seconds < 10 * SETTLING_SECONDS


def _warming_seconds(step: Step, run: CostRun, batch: float) -> float:
    """Return how long a pair takes to be ready: what it took before, else one batch, and a compilation where asked."""
    known = [one.warming for one in run.repetitions if one.pair == step.pair and one.warming]
    if known:
        return max(known)
    return batch + min(batch, TARGET_SECONDS) + (COMPILE_SECONDS if step.setting.endswith(COMPILED) else 0.0)


def _batch_seconds(step: Step, run: CostRun, flops_per_second: float) -> float:
    known = rates(run, step.method, step.setting)
    if step.batch_size in known:
        return step.batch_size / known[step.batch_size]
    flops = {size.method: size.flops for size in run.sizes}
    own, guesses = flops[step.method], []
    for setting in (step.setting, step.setting.removesuffix(COMPILED), "float32"):
        if found := rates(run, step.method, setting):
            guesses.append(step.batch_size / found.get(step.batch_size, max(found.values())))
            break
    others = [
        (abs(math.log(flops[name] / own)), max(found.values()) * flops[name])
        for name in flops
        if name != step.method and (found := rates(run, name, step.setting) or rates(run, name, "float32"))
    ]
    if others:
        guesses.append(step.batch_size * own / min(others)[1])
    return min(guesses, default=step.batch_size * own / flops_per_second)
