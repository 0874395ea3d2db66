"""What `bench cost` is asked for -> a plan, the folder of its records and a measurement that fills it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from bench.config.levels import check_size, noise_level
from bench.config.names import IMAGE_SHAPES, NUM_CLASSES, image_shape, nearest_hint, split_names
from bench.config.numbers import integer
from bench.config.run import MOST_COUNT, RunConfig
from bench.cost.certifier import folder_name
from bench.cost.measure import Measurement, missing_sizes
from bench.cost.plan import Plan, check_settings
from bench.cost.presets import COST_PRESETS, ORDINARY_BATCH_SIZES
from bench.cost.records import COST_SCHEMA_VERSION, CostHeader, CostSession, open_cost_file
from bench.data.sets import load_split
from bench.device import hardware
from bench.device.timing import Instruments, instruments
from bench.errors import UsageError, shown
from bench.methods import registry
from bench.report.rates import REFERENCE
from bench.runs.header import LIBRARIES, machine
from bench.training.architectures import Architecture, Chains
from bench.types import Task

RESULTS = Path("results") / "cost"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be measured; texts are as typed, None where left out.

    Attributes:
        preset: in COST_PRESETS, or that of `config`.
        config: the configuration whose methods are measured; None for a preset in COST_PRESETS.
        methods: of a preset in COST_PRESETS, separated by commas; `config` has its own.
        folder: of the records; None: below RESULTS, named after device and preset.
    """

    preset: str
    config: RunConfig | None
    command: str
    sigma: float
    methods: str | None
    device: str | None
    n: str | None
    n0: str | None
    precision: str | None
    batch_sizes: str
    repetitions: int
    steps: int
    votes: int
    folder: Path | None


@contextlib.contextmanager
def opened(request: Request) -> Iterator[Measurement]:
    """Yield the measurement of a request, its records open and its sizes counted.

    Raises:
        UsageError: an option that is unknown or out of its range.
        ProtocolError, RecordsError: as in `open_cost_file`; or the file holds other networks of these names.
    """
    device = hardware.resolve_device("auto" if request.device is None else request.device)
    meters, preset = instruments(device), Path(request.preset).stem
    plan = _plan(request, meters)
    header = CostHeader(
        schema_version=COST_SCHEMA_VERSION,
        preset=preset,
        dataset=COST_PRESETS[preset].dataset if request.config is None else request.config.dataset,
        device=meters.device,
        device_type=meters.type,
        sigma=request.sigma,
        steps=request.steps,
        votes=request.votes,
    )
    folder = request.folder or RESULTS / folder_name(meters.device) / preset
    with open_cost_file(folder, header) as file:
        sizes = missing_sizes(plan, file, request.sigma, is_checked=request.config is not None)
        file.append(_session(request.command, device, plan), *sizes)
        yield Measurement(plan, file, meters, device, request.sigma)


def _plan(request: Request, meters: Instruments) -> Plan:
    is_cpu = meters.type == "cpu"
    if request.config is None:
        paper = COST_PRESETS[request.preset]
        architectures, samples = _published(request), paper.samples
        sweep = paper.cpu_batch_sizes if is_cpu else paper.batch_sizes
    else:
        architectures, samples = _ordinary(request.config, request.sigma), (request.config.n,)
        sweep = ORDINARY_BATCH_SIZES if is_cpu else (*ORDINARY_BATCH_SIZES, 512, 2048)
    return Plan(
        architectures=architectures,
        settings=_settings(request.precision, meters.type),
        batch_sizes=None if request.batch_sizes == "auto" else _integers("batch-sizes", request.batch_sizes),
        sweep=sweep,
        device_type=meters.type,
        repetitions=request.repetitions,
        n0=_one_n0(request),
        n=samples if request.n is None else _integers("n", request.n),
        energy=meters.read_load is not None or meters.used_joules is not None,
        layouts=meters.type == "cuda",
        first=() if request.config is not None else COST_PRESETS[request.preset].first,
        reference=REFERENCE if not is_cpu and REFERENCE in architectures and len(architectures) > 1 else None,
    )


def _one_n0(request: Request) -> int:
    """Return n0: the one given, or that of `bench run` where its preset is timed, else 100."""
    if request.n0 is None:
        return 100 if request.config is None else request.config.n0
    values = _integers("n0", request.n0)
    if len(values) > 1:
        raise UsageError(f"--n0 is {shown(request.n0)}, expected one integer >= 1")
    return values[0]


def _session(command: str, device: torch.device, plan: Plan) -> CostSession:
    return CostSession(
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        git_revision=hardware.git_revision(),
        hardware=machine(device),
        libraries={library: version(library) for library in LIBRARIES},
        n0=plan.n0,
        n=plan.n,
    )


def _published(request: Request) -> dict[str, Architecture]:
    """Return the asked methods of a preset of published sizes, in the preset's order."""
    preset = COST_PRESETS[request.preset]
    asked = preset.methods if request.methods is None else split_names(request.methods)
    for name in asked:
        if name not in preset.methods:
            raise UsageError(
                f"unknown method {name!r} of {request.preset}; {nearest_hint(name, preset.methods)}"
            )
    known = registry.architectures(preset.family, Chains(steps=request.steps, votes=request.votes))
    return {name: known[name] for name in preset.methods if name in asked}


def _ordinary(config: RunConfig, sigma: float) -> dict[str, Architecture]:
    """Return the methods of a configuration of `bench run` at their own sizes."""
    task = _task(config)
    return {
        name: registry.architecture(name, task, sigma, config.options.get(name, {}))
        for name in config.methods
    }


def _task(config: RunConfig) -> Task:
    if config.dataset not in IMAGE_SHAPES:
        return load_split(config, "test").task
    channels, pixels, _ = image_shape(config.dataset, config.image_size)
    classes = NUM_CLASSES[config.dataset]
    return Task(dataset=config.dataset, channels=channels, image_size=pixels, num_classes=classes)


def _settings(precision: str | None, device_type: str) -> tuple[str, ...]:
    """Return the settings asked for; by default float32, and on CUDA bfloat16 too, compiled and not."""
    default = "float32,bfloat16,bfloat16-compiled" if device_type == "cuda" else "float32"
    settings = check_settings((default if precision is None else precision).split(","))
    if device_type != "cuda" and any(setting.startswith("tf32") for setting in settings):
        raise UsageError(f"precision tf32 needs a CUDA device, this one is {device_type}: use float32")
    return settings


def _integers(name: str, text: str) -> tuple[int, ...]:
    try:
        values = tuple(map(integer, text.split(",")))
    except ValueError:
        values = (0,)
    if not all(0 < value <= MOST_COUNT for value in values):
        raise UsageError(f"--{name} is {shown(text)}, expected integers >= 1, such as 10000,100000")
    return values


def positive(text: str) -> float:
    """Return a sigma as a number.

    Raises:
        UsageError: it is none, or not above 0.
    """
    if "," in text:
        raise UsageError(f"--sigma is {shown(text)}, expected one number > 0")
    value = noise_level(text)
    if value <= 0:
        raise UsageError(f"--sigma is {shown(text)}, expected one number > 0")
    check_size(value)
    return value
