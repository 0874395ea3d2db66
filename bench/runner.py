"""One run: configuration -> checkpoints, header, then one record per method, sigma and image, then the costs.

The runner prints nothing; it tells an Observer what happens. Repeating a run does only what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from bench import cost, hardware, registry, smoothing, subsets, zoo
from bench.arithmetic import at_precision, compiled
from bench.batching import halving, measured_batch_size
from bench.config import RunConfig, run_name, to_json
from bench.errors import CheckpointError, NumericalError, RecordsError, UsageError
from bench.noise import NOISE_BLOCK, image_uniform
from bench.records import RecordsFile, read_run
from bench.smoothing import Protocol
from bench.train import Progress
from bench.training import load_split, train_method
from bench.types import SCHEMA_VERSION, Certificate, Classifier, Record, Run, RunHeader, Split

RUNS = Path("results") / "runs"
"""Where runs lie, below the current folder, when no --out is given."""

LIBRARIES = ("torch", "torchvision", "timm", "diffusers", "numpy", "scipy")


class Observer:
    """What a run tells while it goes on; every method may be overridden, and by default says nothing."""

    def note(self, text: str) -> None:
        """Take a sentence that the user should read."""

    def training(self, method: str, sigma: float, progress: Progress) -> None:
        """Take the progress of a training."""

    def begin(self, method: str, sigma: float, total: int, done: int, certified: int) -> None:
        """Take the start of a method at a sigma: images in all, done before, and certified among those."""

    def certified(self, record: Record) -> None:
        """Take a record that was just written."""

    def measuring(self, methods: tuple[str, ...]) -> None:
        """Take the start of the cost measurement."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all certificates of a run share; `note` takes sentences for the user."""

    config: RunConfig
    split: Split
    indices: tuple[int, ...]
    device: torch.device
    note: Callable[[str], None] = lambda sentence: None


def run_folder(config: RunConfig) -> Path:
    """Return the folder of a validated configuration's run."""
    return RUNS / run_name(config) if config.out is None else config.out


def prepare(config: RunConfig) -> Setup:
    """Return the test split, the certified indices and the device.

    Raises:
        DataError, UsageError: the data or the device is not there.
    """
    device = hardware.resolve_device(config.device)
    if config.precision == "tf32" and device.type != "cuda":
        raise UsageError(f"precision tf32 needs a CUDA device, this one is {device.type}: use float32")
    split = load_split(config, "test")
    indices = subsets.certified_subset(split, config.subset, config.skip, config.limit)
    return Setup(config=config, split=split, indices=indices, device=device)


def run(config: RunConfig, *, command: str, observer: Observer) -> tuple[RunHeader, Path]:
    """Certify every image with every method at every sigma, measure the costs, and return header and folder.

    Args:
        config: a validated configuration.
        command: the command line, kept in the header.

    Raises:
        BenchError: whatever the user can mend; all records written before are kept, and repeating continues.
    """
    setup = replace(prepare(config), note=observer.note)
    checkpoints = find_or_train(setup, command, observer)
    folder = run_folder(config)
    batch_sizes = known_batch_sizes(folder)
    if not batch_sizes.keys() >= set(config.methods):
        batch_sizes = choose_batch_sizes(setup, checkpoints) | batch_sizes
    header = make_header(setup, checkpoints, command, batch_sizes)
    with RecordsFile.create_or_resume(folder, header) as records:
        if records.repaired:
            observer.note(records.repaired)
        for sigma in config.sigmas:
            for method in config.methods:
                _certify_images(setup, method, sigma, checkpoints[method, sigma], records, observer)
        if config.cost_repetitions > 0 and not _costs_known(records.run):
            observer.measuring(records.run.header.methods)
            for measured in measure_costs(setup, checkpoints, records.run.header):
                records.append(measured)
        return records.run.header, folder


BATCH_SIZES = tuple(2**power for power in range(7, 14))
"""Samples per call that are tried on an accelerator."""

Checkpoints = dict[tuple[str, float], Path | None]
"""(method, sigma) -> file; None for a method that has no checkpoints."""


def find_checkpoint(setup: Setup, method: str, sigma: float) -> tuple[str | None, Path | None]:
    """Return the file name of the method's checkpoint (None: it has none) and where it lies (None: nowhere)."""
    module = registry.load(method)
    if not hasattr(module, "checkpoint_name"):
        return None, None
    config = setup.config
    options = config.options.get(method, {})
    name = module.checkpoint_name(registry.configure(method, setup.split.task, sigma, options))
    return name, None if name is None else zoo.find(config.zoo, config.dataset, name)


def find_or_train(setup: Setup, command: str, observer: Observer) -> Checkpoints:
    """Return the checkpoint of every method and sigma, training those that no zoo holds."""
    config = setup.config
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


def require_checkpoint(setup: Setup, method: str, sigma: float) -> Path | None:
    """Return the method's checkpoint, or None where it has none.

    Raises:
        CheckpointError: the method has one, but it is not there yet; the message says how to train it.
    """
    name, checkpoint = find_checkpoint(setup, method, sigma)
    if name is not None and checkpoint is None:
        dataset = setup.config.dataset
        raise CheckpointError(
            f"no {name} for {dataset}: train it first with "
            f"`bench train {method} --dataset {dataset} --sigma {sigma:g}`, or name its --zoo"
        )
    return checkpoint


def load_classifier(setup: Setup, method: str, sigma: float, checkpoint: Path | None) -> Classifier:
    """Return the method's classifier on the device, at the run's precision.

    Raises:
        UsageError, CheckpointError: an option or the checkpoint does not fit.
    """
    options = setup.config.options.get(method, {})
    config = registry.configure(method, setup.split.task, sigma, options)
    built = registry.load(method).build(config, checkpoint)
    if isinstance(built, nn.Module):
        built.to(setup.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    quick = compiled(built, setup.config.compile, setup.note)
    return halving(at_precision(quick, setup.device.type, setup.config.precision))


def _certify_images(
    setup: Setup, method: str, sigma: float, checkpoint: Path | None, records: RecordsFile, observer: Observer
) -> None:
    done = {r.index: r for r in records.run.records if (r.method, r.sigma) == (method, sigma)}
    certified = sum(record.is_correct for record in done.values())
    observer.begin(method, sigma, len(setup.indices), len(done), certified)
    missing = [index for index in setup.indices if index not in done]
    if not missing:
        return
    classifier = load_classifier(setup, method, sigma, checkpoint)
    batch_size = records.run.header.batch_sizes[method]
    together = group_size(setup, batch_size)
    for first in range(0, len(missing), together):
        group = missing[first : first + together]
        try:
            new = certify_images(setup, classifier, method, sigma, group, batch_size)
        except NumericalError as error:
            raise NumericalError(f"{method}: {error}") from error
        for record in new:
            records.append(record)
            observer.certified(record)


GROUP_BATCHES, GROUP_MOST = 4, 64
"""Batches that images certified together fill, about, and how many images that may be: what a crash can lose."""


def group_size(setup: Setup, batch_size: int) -> int:
    """Return how many images are certified together: one, unless an image's samples fill too few batches.

    On a CPU it is always one, since a batch of one block of noise is full enough there.
    """
    if setup.device.type == "cpu":
        return 1
    return max(1, min(GROUP_MOST, GROUP_BATCHES * batch_size // setup.config.n))


def certify_images(
    setup: Setup, classifier: Classifier, method: str, sigma: float, indices: Sequence[int], batch_size: int
) -> list[Record]:
    """Return the records of images of the test split, certified together; their time is shared out by samples.

    Raises:
        DataError, UsageError, NumericalError: as in `smoothing.certify_group`.
    """
    split = setup.split
    started = time.perf_counter()
    certificates = smoothing.certify_group(
        classifier,
        [split.images[index].to(setup.device) for index in indices],
        sigma=sigma,
        indices=indices,
        protocol=protocol_of(setup.config),
        batch_size=batch_size,
        num_classes=split.task.num_classes,
        labels=[split.labels[index] for index in indices],
    )
    seconds = time.perf_counter() - started
    samples = sum(certificate.samples for certificate in certificates)
    return [
        _record(setup, method, sigma, index, certificate, seconds * certificate.samples / samples)
        for index, certificate in zip(indices, certificates, strict=True)
    ]


def _record(
    setup: Setup, method: str, sigma: float, index: int, certificate: Certificate, seconds: float
) -> Record:
    config = setup.config
    return Record(
        method=method,
        sigma=sigma,
        index=index,
        label=setup.split.labels[index],
        predict=certificate.predict,
        radius=certificate.radius,
        counts_selection=certificate.counts_selection,
        counts_estimation=certificate.counts_estimation,
        n0=config.n0,
        n=config.n,
        samples=certificate.samples,
        seconds=seconds,
        uniform=image_uniform(config.seed, index) if config.bound == "randomised" else None,
    )


def protocol_of(config: RunConfig) -> Protocol:
    """Return the certify protocol of a configuration."""
    return Protocol(
        n0=config.n0,
        n=config.n,
        alpha=config.alpha,
        seed=config.seed,
        estimation=config.estimation,
        bound=config.bound,
        radii=config.radii,
    )


def _costs_known(run: Run) -> bool:
    return {measured.method for measured in run.costs} >= set(run.header.methods)


def measure_costs(setup: Setup, checkpoints: Checkpoints, header: RunHeader) -> tuple[cost.CostRecord, ...]:
    """Return the measured cost of every method of a run, at its first sigma.

    Cost depends on the network and not on sigma or the weights: a method that this command did not certify is
    measured with random weights.
    """
    config, batch_sizes = setup.config, header.batch_sizes
    sigma = header.sigmas[0]
    x = setup.split.images[setup.indices[0]].to(setup.device)
    contenders = []
    for method in header.methods:
        classifier = load_classifier(setup, method, sigma, checkpoints.get((method, sigma)))
        contenders.append(
            cost.Contender(
                method=method,
                sigma=sigma,
                device=hardware.device_name(setup.device),
                batch_size=batch_sizes[method],
                work=cost.noisy_work(classifier, x, sigma, batch_sizes[method]),
                samples_per_certificate=config.n0 + config.n,
                parameters=_parameters(setup, method, sigma),
            )
        )
    return cost.measure(
        contenders,
        repetitions=config.cost_repetitions,
        synchronize=cost.synchronizer(setup.device),
        peak_memory=cost.peak_memory_meter(setup.device),
    )


def _parameters(setup: Setup, method: str, sigma: float) -> int:
    config = registry.configure(method, setup.split.task, sigma, setup.config.options.get(method, {}))
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
        checkpoints={f"{m}/{s:g}": zoo.sha256(path) for (m, s), path in checkpoints.items() if path},
        batch_sizes=batch_sizes,
        hardware=hardware.describe(setup.device),
        libraries={name: version(name) for name in LIBRARIES},
    )


def known_batch_sizes(folder: Path) -> dict[str, int]:
    """Return the batch sizes of the run in a folder, to be used again; empty where there is none to read."""
    try:
        return read_run(folder).header.batch_sizes
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
    classifier = load_classifier(setup, method, sigma, checkpoints[method, sigma])
    x = setup.split.images[setup.indices[0]].to(setup.device)
    return measured_batch_size(
        lambda size: cost.noisy_work(classifier, x, sigma, size),
        BATCH_SIZES,
        synchronize=cost.synchronizer(setup.device),
    )
