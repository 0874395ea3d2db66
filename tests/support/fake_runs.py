"""Runs with realistic values, made without any of the harness's code, for tests of tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bench.types import ABSTAIN, SCHEMA_VERSION, CostRecord, Record, Run, RunHeader

METHODS = ("rrcm", "gaussian", "consistency", "dds")
LABELS = ("rRCM", "Gaussian", "Consistency", "DDS")
SIGMAS = (0.25, 0.5, 1.0)
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_SKILL = {"rrcm": 2.6, "gaussian": 2.2, "consistency": 2.9, "dds": 2.4}
_RATE = {"rrcm": 5200.0, "gaussian": 9100.0, "consistency": 8600.0, "dds": 290.0}
_PARAMETERS = {"rrcm": 1_900_000, "gaussian": 700_000, "consistency": 700_000, "dds": 2_600_000}


ONE_SIGMA = ("certified_accuracy", "differences", "p_lower", "accuracy_against_cost", "samples", "levels")
"""Figures of a run of one sigma."""


def make_record(
    *,
    predict: int = 0,
    radius: float = 0.5,
    method: str = "rrcm",
    sigma: float = 0.5,
    index: int = 0,
    label: int = 0,
) -> Record:
    """Return one record with the given outcome and empty counts."""
    return Record(
        method=method,
        sigma=sigma,
        index=index,
        label=label,
        predict=predict,
        radius=0.0 if predict == ABSTAIN else radius,
        counts_selection=(),
        counts_estimation=(),
        n0=100,
        n=1000,
        samples=1100,
        seconds=0.2,
    )


def make_run(
    folder: Path = Path("run"),
    *,
    methods: Sequence[str] = METHODS,
    sigmas: Sequence[float] = SIGMAS,
    images: int = 40,
    with_costs: bool = True,
    seed: int = 0,
) -> Run:
    """Return a complete run: `images` images certified by every method at every sigma, with costs."""
    generator = np.random.default_rng(seed)
    indices = tuple(range(0, 20 * images, 20))
    hardness = generator.normal(0, 1.0, images)
    records = [
        _certificate(generator, method, sigma, index, hardness[position])
        for method in methods
        for sigma in sigmas
        for position, index in enumerate(indices)
    ]
    costs = [_cost(generator, method, sigma) for method in methods for sigma in sigmas] if with_costs else []
    return Run(
        folder=folder,
        header=make_header(methods=tuple(methods), sigmas=tuple(sigmas), indices=indices),
        records=tuple(records),
        costs=tuple(costs),
    )


def make_header(**changes: Any) -> RunHeader:
    """Return a header of the default protocol, of one image unless told otherwise."""
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "command": "bench run",
        "created": "2025-01-01T00:00:00+00:00",
        "git_revision": "0" * 40,
        "dataset": "mnist5k",
        "subset": "balanced",
        "indices": (0,),
        "class_names": tuple("0123456789"),
        "image_shape": (1, 28, 28),
        "methods": METHODS,
        "sigmas": SIGMAS,
        "noise_block": 128,
        "noise_version": 2,
        "precision": "float32",
        "device_type": "cpu",
        "radii": RADII,
        "config": {},
        "checkpoints": {},
        "batch_sizes": dict.fromkeys(changes.get("methods", METHODS), 128),
        "hardware": {"device": "cpu", "cores": 2},
        "libraries": {},
    }
    return RunHeader(**(values | changes))


def _certificate(
    generator: np.random.Generator, method: str, sigma: float, index: int, hardness: float
) -> Record:
    label = index // 20 % 10
    margin = _SKILL.get(method, 2.0) - 1.3 * sigma - 0.8 * hardness + generator.normal(0, 0.3)
    k = int(generator.binomial(1000, stats.norm.cdf(margin)))
    p_lower = stats.beta.ppf(0.001, k, 1001 - k) if k else 0.0
    radius = sigma * float(stats.norm.ppf(p_lower)) if p_lower > 0.5 else 0.0
    is_misled = generator.random() < 0.04
    predicted = (label + 1) % 10 if is_misled else label
    return Record(
        method=method,
        sigma=sigma,
        index=index,
        label=label,
        predict=predicted if radius > 0 else ABSTAIN,
        radius=radius,
        counts_selection=((predicted, 100),),
        counts_estimation=tuple(sorted({predicted: k, (predicted + 1) % 10: 1000 - k}.items())),
        n0=100,
        n=1000,
        samples=1100,
        seconds=1100 / _RATE.get(method, 4000.0) * float(generator.lognormal(0.02, 0.06)),
        clean=(label + (index % 140 == 0)) % 10,
    )


def _cost(generator: np.random.Generator, method: str, sigma: float) -> CostRecord:
    seconds = 512 / _RATE.get(method, 4000.0) * generator.lognormal(0, 0.05, 9)
    return CostRecord(
        method=method,
        sigma=sigma,
        device="cpu",
        batch_size=128,
        samples_per_repetition=512,
        repetition_seconds=tuple(map(float, seconds)),
        samples_per_certificate=1100,
        parameters=_PARAMETERS.get(method, 1_000_000),
        peak_memory_bytes=int(generator.integers(200, 900)) * 2**20,
    )
