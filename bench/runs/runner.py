"""One run: configuration -> checkpoints, header, then one record per method, sigma and image, then the costs.

The runner prints nothing; it tells an Observer what happens. Repeating a run does only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torch import nn

from bench.config.run import RunConfig, run_name, to_json
from bench.device import hardware
from bench.device.batching import measured_batch_size
from bench.device.timing import instruments, measure
from bench.errors import RecordsError
from bench.methods import registry
from bench.records.codec import PROGRAM
from bench.records.file import FILE_NAME, RecordsFile, read_run
from bench.records.shards import Shard, check_folder
from bench.runs.engines.base import Engine, LocalEngine
from bench.runs.progress import Observer, pending_jobs, write_results
from bench.runs.stream import Stream
from bench.runs.train import train_method
from bench.runs.workbench import (
    Checkpoints,
    Setup,
    Workbench,
    digests,
    find_checkpoint,
    load_classifier,
    prepare,
    require_checkpoint,
)
from bench.smoothing.noise import NOISE_BLOCK
from bench.types import SCHEMA_VERSION, CostRecord, Run, RunHeader

RUNS = Path("results") / "runs"
"""Where runs lie, below the current folder, when no --out is given."""

LIBRARIES = ("torch", "torchvision", "timm", "diffusers", "numpy", "scipy")


def run_folder(config: RunConfig) -> Path:
    """Return the folder of a validated configuration's run."""
    return RUNS / run_name(config) if config.out is None else config.out


def run(
    config: RunConfig,
    *,
    command: str,
    observer: Observer,
    engine: Engine | None = None,
    shard: Shard | None = None,
    held: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[RunHeader, Path]:
    """Certify every image with every method at every sigma, measure the costs, and return header and folder.

    Args:
        config: a validated configuration.
        command: the command line, kept in the header.
        engine: computes the records; None: this process.
        shard: the part of the images to certify, into a file of its own; shard 1 measures the costs. A shard
            trains nothing.
        held: entered around each job (an image; on an accelerator a group of them) from its computation to its
            lines on the disk.

    Raises:
        BenchError: whatever the user can mend; all records written before are kept, and repeating continues.
    """
    setup = replace(prepare(config), note=observer.note)
    checkpoints = require_all(setup) if shard else find_or_train(setup, command, observer)
    folder, name = run_folder(config), shard.file_name if shard else FILE_NAME
    check_folder(folder, shard)
    batch_sizes = known_batch_sizes(folder / name)
    if not batch_sizes.keys() >= set(config.methods):
        batch_sizes = choose_batch_sizes(setup, checkpoints) | batch_sizes
    header = make_header(setup, checkpoints, command, batch_sizes)
    with RecordsFile.create_or_resume(folder, header, name) as records:
        if records.repaired:
            observer.note(records.repaired)
        work = Workbench(
            config=replace(config, device=setup.device.type),  # type: ignore[arg-type]
            checkpoints=checkpoints,
            batch_sizes=records.run.header.batch_sizes,
            setup=setup,
        )
        indices = shard.part(setup.indices) if shard else setup.indices
        jobs = pending_jobs(records.run, config, indices, observer, work.together)
        write_results((engine or LocalEngine()).results(work, jobs), records, observer, held)
        measures_costs = config.cost_repetitions > 0 and (shard is None or shard.number == 1)
        if measures_costs and not _costs_known(records.run):
            observer.measuring(records.run.header.methods)
            for measured in measure_costs(setup, checkpoints, records.run.header):
                records.append(measured)
        return records.run.header, folder


BATCH_SIZES = tuple(2**power for power in range(7, 14))
"""Samples per call that are tried on an accelerator."""


def find_or_train(setup: Setup, command: str, observer: Observer) -> Checkpoints:
    """Return the checkpoint of every method and sigma, training those that no zoo holds.

    Raises:
        UsageError: one of those has no recipe at its sigma; nothing has been trained then.
    """
    config = setup.config
    _check_recipes(setup)
    found: Checkpoints = {}
    for method in config.methods:
        for sigma in config.sigmas:
            name, found[method, sigma] = find_checkpoint(setup, method, sigma)
            if name is None or found[method, sigma] is not None:
                continue
            observer.note(
                f"no {name} for {config.dataset}: training {method} at sigma {sigma:g} first, "
                "the bar shows the time left at most (Ctrl-C keeps what is done)"
            )
            found[method, sigma] = train_method(
                method,
                sigma,
                config,
                command=command,
                report=lambda progress, m=method, s=sigma: observer.training(m, s, progress),  # type: ignore[misc]
            )
    return found


def _check_recipes(setup: Setup) -> None:
    """Return nothing where every checkpoint that no zoo holds can be trained by the recipe asked for."""
    config = setup.config
    for method in config.methods:
        for sigma in config.sigmas:
            name, checkpoint = find_checkpoint(setup, method, sigma)
            if name is not None and checkpoint is None:
                registry.configure(method, setup.split.task, sigma, config.options.get(method, {}))


def require_all(setup: Setup) -> Checkpoints:
    """Return the checkpoint of every method and sigma.

    Raises:
        CheckpointError: one is not there yet; the message says how to train it.
    """
    config = setup.config
    return {(m, s): require_checkpoint(setup, m, s) for m in config.methods for s in config.sigmas}


def _costs_known(run: Run) -> bool:
    return {measured.method for measured in run.costs} >= set(run.header.methods)


def measure_costs(setup: Setup, checkpoints: Checkpoints, header: RunHeader) -> list[CostRecord]:
    """Return the measured cost of every method of a run, at its first sigma, timed in interleaved rounds.

    Cost depends on the network and not on sigma or the weights: a method that this command did not certify is
    measured with random weights.
    """
    config, sigma, methods = setup.config, header.sigmas[0], header.methods
    works = [
        first_image_stream(setup, method, sigma, checkpoints.get((method, sigma))).work(
            header.batch_sizes[method]
        )
        for method in methods
    ]
    meters = instruments(setup.device)
    measured = measure(works, meters, repetitions=config.cost_repetitions)
    return [
        CostRecord(
            method=method,
            sigma=sigma,
            device=meters.device,
            batch_size=header.batch_sizes[method],
            samples_per_repetition=timings[0].samples,
            repetition_seconds=tuple(one.seconds for one in timings),
            samples_per_certificate=config.n0 + config.n,
            parameters=_parameters(setup, method, sigma),
            peak_memory_bytes=max((one.peak_memory for one in timings if one.peak_memory), default=None),
        )
        for method, timings in zip(methods, measured, strict=True)
    ]


def first_image_stream(setup: Setup, method: str, sigma: float, checkpoint: Path | None) -> Stream:
    """Return noisy samples of the run's first image through a method's classifier, at the run's precision."""
    return Stream(
        classifier=load_classifier(setup, method, sigma, checkpoint),
        images=setup.split.images[setup.indices[0]].to(setup.device)[None],
        sigma=sigma,
        num_classes=setup.split.task.num_classes,
    )


def _parameters(setup: Setup, method: str, sigma: float) -> int:
    options = setup.config.options.get(method, {})
    config = registry.configure(method, setup.split.task, sigma, options, trains=False)
    built = registry.load(method).build(config, None)
    return sum(value.numel() for value in built.parameters()) if isinstance(built, nn.Module) else 0


def make_header(
    setup: Setup, checkpoints: Checkpoints, command: str, batch_sizes: dict[str, int]
) -> RunHeader:
    """Return the header of a new run."""
    config, split = setup.config, setup.split
    shape = tuple(split.images[setup.indices[0]].shape)
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
        methods=config.methods,
        sigmas=config.sigmas,
        n0=config.n0,
        n=config.n,
        alpha=config.alpha,
        seed=config.seed,
        estimation=config.estimation,
        bound=config.bound,
        noise_block=NOISE_BLOCK,
        precision=config.precision if config.compile == "none" else f"{config.precision}, compiled",
        device_type=setup.device.type,
        radii=config.radii,
        config=to_json(config),
        checkpoints={
            name: digest
            for (method, sigma), path in checkpoints.items()
            for name, digest in digests(setup, method, sigma, path).items()
        },
        batch_sizes=batch_sizes,
        hardware=hardware.describe(setup.device),
        libraries=library_versions(),
    )


def library_versions() -> dict[str, str]:
    """Return the version of each library that records rest on, and of this program where it is installed."""
    versions = {name: version(name) for name in LIBRARIES}
    with suppress(PackageNotFoundError):
        versions[PROGRAM] = version(PROGRAM)
    return versions


def known_batch_sizes(file: Path) -> dict[str, int]:
    """Return the batch sizes of the run in a records file, to be used again; empty where there is none to read."""
    try:
        return read_run(file).header.batch_sizes
    except RecordsError:
        return {}


def choose_batch_sizes(setup: Setup, checkpoints: Checkpoints) -> dict[str, int]:
    """Return the samples per call of each method: as configured, one block of noise on a CPU, measured elsewhere.

    On a CPU larger batches gain nothing, and a measured size would make two runs of one command differ.
    """
    config = setup.config
    if config.batch_size != "auto" or setup.device.type == "cpu":
        size = NOISE_BLOCK if config.batch_size == "auto" else config.batch_size
        return dict.fromkeys(config.methods, size)
    return {method: _measured_size(setup, method, checkpoints) for method in config.methods}


def _measured_size(setup: Setup, method: str, checkpoints: Checkpoints) -> int:
    sigma = setup.config.sigmas[0]
    stream = first_image_stream(setup, method, sigma, checkpoints[method, sigma])
    return measured_batch_size(stream.work, BATCH_SIZES, instruments(setup.device))
