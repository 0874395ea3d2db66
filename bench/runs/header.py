"""The header of a new run: under which protocol, by which command, and on what its records are made."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from bench.config.run import to_json
from bench.device import hardware
from bench.methods.weights import fingerprint
from bench.records.codec import PROGRAM
from bench.runs.entrant import Entrant, parameter_count
from bench.runs.workbench import Setup
from bench.smoothing.noise import NOISE_BLOCK, drawn_with
from bench.training.origin import image_digest
from bench.types import NOISE_VERSION, SCHEMA_VERSION, RunHeader

LIBRARIES = ("torch", "torchvision", "timm", "diffusers", "numpy", "scipy")
"""Libraries that records rest on."""


def make_header(
    setup: Setup, entrants: Iterable[Entrant], command: str, batch_sizes: dict[str, int]
) -> RunHeader:
    """Return the header of a new run."""
    config, split, made = setup.config, setup.split, list(entrants)
    shape = tuple(split.images[setup.indices[0]].shape)
    checkpoints = {name: digest for one in made for name, digest in one.digests().items()}
    weights: dict[str, str] = {}
    training: dict[str, dict[str, int | float]] = {}
    for one in made:
        built = one.build()
        weights[one.key] = fingerprint(built)
        training |= one.training(parameter_count(built))
    return RunHeader(
        schema_version=SCHEMA_VERSION,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        git_revision=hardware.git_revision(),
        dataset=config.dataset,
        subset=config.subset,
        indices=setup.indices,
        class_names=split.class_names,
        image_shape=(shape[0], shape[1], shape[2]),
        image_geometry="" if config.geometry == "resize-256" else config.geometry,
        image_digest=image_digest(split),
        methods=config.methods,
        sigmas=config.sigmas,
        noise_block=NOISE_BLOCK,
        noise_version=NOISE_VERSION,
        precision=config.precision if config.compile == "none" else f"{config.precision}, compiled",
        device_type=setup.device.type,
        config=to_json(config),
        checkpoints=checkpoints,
        weights=weights,
        unfinished={name: steps for one in made for name, steps in one.unfinished().items()},
        training=training,
        batch_sizes=batch_sizes,
        hardware=machine(setup.device),
        libraries=library_versions(),
        **vars(config.protocol),
    )


def machine(device: torch.device) -> dict[str, Any]:
    """Return what a run's records are made on, and what draws their noise, as JSON values."""
    return hardware.describe(device) | {"noise": drawn_with(device)}


def library_versions() -> dict[str, str]:
    """Return the version of each library that records rest on, and of this program where it is installed."""
    versions = {name: version(name) for name in LIBRARIES}
    with suppress(PackageNotFoundError):
        versions[PROGRAM] = version(PROGRAM)
    return versions
