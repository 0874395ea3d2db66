"""The options of `bench cost` -> a plan, the folder of its records and a measurement that fills it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench.config.names import IMAGE_SHAPES, NUM_CLASSES, image_shape, nearest_hint
from bench.config.run import RunConfig, list_presets
from bench.cost import certifier
from bench.cost.measure import Measurement, measurement
from bench.cost.plan import Plan, check_settings
from bench.cost.presets import COST_PRESETS, ORDINARY_BATCH_SIZES
from bench.cost.records import COST_SCHEMA_VERSION, CostFile, CostHeader, CostSession, open_cost_file
from bench.data.sets import load_split
from bench.device import hardware
from bench.device.timing import instruments
from bench.errors import UsageError
from bench.methods import registry
from bench.runs.header import LIBRARIES
from bench.training.architectures import Architecture, Chains
from bench.types import Task

RESULTS = Path("results") / "cost"

_MEASURED = ("methods", "device", "n", "n0", "precision")
_OF_NETWORKS = ("dataset", "data_dir", "image_size", "backbone", "changes")


@dataclass(frozen=True, kw_only=True)
class Request:
    """Options as typed; `given` holds those that `bench run` has too, None where they were left out."""

    preset: str
    command: str
    sigma: str
    repetitions: int
    folder: Path | None
    max_seconds: float | None
    batch_sizes: str
    steps: int
    votes: int
    given: Mapping[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """What was given of `given`."""
        return {name: value for name, value in self.given.items() if value not in (None, ())}


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A plan, its device, where its records lie, and what they begin with."""

    plan: Plan
    device: torch.device
    folder: Path
    header: CostHeader
    session: CostSession
    max_seconds: float | None


Resolve = Callable[[str, dict[str, Any]], RunConfig]
"""(preset, options) -> the configuration that `bench run` would have."""


def resolved(request: Request, resolve: Resolve) -> Resolved:
    """Return what a request asks for.

    Raises:
        UsageError: an option that is unknown, out of its range, or without meaning for the preset.
    """
    sigma = _positive(request.sigma)
    device = hardware.resolve_device(str(request.options.get("device", "auto")))
    paper = COST_PRESETS.get(request.preset)
    if paper is None:
        architectures, dataset, samples = _ordinary(request, resolve, sigma)
        sweep = ORDINARY_BATCH_SIZES + (() if device.type == "cpu" else (512, 2048))
    else:
        architectures, dataset = _published(request), paper.dataset
        samples, sweep = paper.samples, paper.cpu_batch_sizes if device.type == "cpu" else paper.batch_sizes
    name, preset = hardware.device_name(device), Path(request.preset).stem
    plan = Plan(
        architectures=architectures,
        settings=_settings(request, device),
        batch_sizes=None if request.batch_sizes == "auto" else _integers("batch-sizes", request.batch_sizes),
        sweep=sweep,
        device_type=device.type,
        repetitions=request.repetitions,
        n0=_integers("n0", request.options.get("n0", "100"))[0],
        n=_integers("n", request.options["n"]) if "n" in request.options else samples,
    )
    header = CostHeader(
        schema_version=COST_SCHEMA_VERSION,
        preset=preset,
        dataset=dataset,
        device=name,
        device_type=device.type,
        sigma=sigma,
        steps=request.steps,
        votes=request.votes,
    )
    return Resolved(
        plan=plan,
        device=device,
        folder=request.folder or RESULTS / certifier.default_folder(name).name / preset,
        header=header,
        session=_session(request.command, device, plan),
        max_seconds=request.max_seconds,
    )


def _session(command: str, device: torch.device, plan: Plan) -> CostSession:
    return CostSession(
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        git_revision=hardware.git_revision(),
        hardware=hardware.describe(device),
        libraries={library: version(library) for library in LIBRARIES},
        n0=plan.n0,
        n=plan.n,
    )


def _published(request: Request) -> dict[str, Architecture]:
    """Return the asked methods of a preset of published sizes, in the preset's order."""
    preset = COST_PRESETS[request.preset]
    _refuse_others(request, _MEASURED)
    asked = str(request.options.get("methods", ",".join(preset.methods))).split(",")
    for name in asked:
        if name not in preset.methods:
            raise UsageError(
                f"unknown method {name!r} of {request.preset}; {nearest_hint(name, preset.methods)}"
            )
    known = registry.architectures(preset.family, Chains(steps=request.steps, votes=request.votes))
    return {name: known[name] for name in preset.methods if name in asked}


def _ordinary(
    request: Request, resolve: Resolve, sigma: float
) -> tuple[dict[str, Architecture], str, tuple[int, ...]]:
    """Return the methods of a preset of `bench run` with its options, its data set and its n."""
    _refuse_others(request, (*_MEASURED, *_OF_NETWORKS))
    known = [*COST_PRESETS, *(preset.name for preset in list_presets())]
    if request.preset not in known and not request.preset.endswith(".toml"):
        raise UsageError(
            f"unknown preset {request.preset!r}; {nearest_hint(request.preset, known)} (a path must end in .toml)"
        )
    options = {
        name: value for name, value in request.options.items() if name in (*_OF_NETWORKS, "methods", "device")
    }
    config = resolve(request.preset, {**options, "sigmas": request.sigma})
    task = _task(config)
    methods = {
        name: registry.architecture(name, task, sigma, config.options.get(name, {}))
        for name in config.methods
    }
    return methods, config.dataset, (config.n,)


def _task(config: RunConfig) -> Task:
    if config.dataset not in IMAGE_SHAPES:
        return load_split(config, "test").task
    channels, pixels, _ = image_shape(config.dataset, config.image_size)
    classes = NUM_CLASSES[config.dataset]
    return Task(dataset=config.dataset, channels=channels, image_size=pixels, num_classes=classes)


def _refuse_others(request: Request, allowed: tuple[str, ...]) -> None:
    for name in request.options:
        if name not in allowed:
            shown = "set" if name == "changes" else name.replace("_", "-")
            raise UsageError(
                f"--{shown} has no meaning for the cost of {request.preset}; leave it out "
                "(--batch-sizes and --precision choose what is timed)"
            )


def _settings(request: Request, device: torch.device) -> tuple[str, ...]:
    """Return the settings asked for; by default float32, and on CUDA bfloat16 too, compiled and not."""
    default = "float32,bfloat16,bfloat16-compiled" if device.type == "cuda" else "float32"
    settings = check_settings(str(request.options.get("precision", default)).split(","))
    if device.type != "cuda" and any(setting.startswith("tf32") for setting in settings):
        raise UsageError(f"precision tf32 needs a CUDA device, this one is {device.type}: use float32")
    return settings


def _integers(name: str, text: object) -> tuple[int, ...]:
    parts = str(text).split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--{name} is {text!r}, expected integers >= 1, such as 10000,100000")
    return tuple(int(part) for part in parts)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UsageError(f"--sigma is {text!r}, expected one number > 0")
    return value


@contextlib.contextmanager
def opened(request: Resolved) -> Iterator[Measurement]:
    """Yield the measurement of a request, its records open and its sizes counted.

    Raises:
        ProtocolError, RecordsError: as in `open_cost_file`.
    """
    meters = instruments(request.device, request.header.device)
    with open_cost_file(request.folder, request.header) as file:
        file.append(request.session)
        yield _limited(request, file, meters)


def _limited(request: Resolved, file: CostFile, meters: Any) -> Measurement:
    plan = replace(request.plan, energy=meters.read_load is not None)
    made = measurement(plan, file, meters, request.device, sigma=request.header.sigma)
    return replace(made, max_seconds=request.max_seconds)
