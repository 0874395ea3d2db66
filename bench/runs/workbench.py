"""What a worker needs to certify: the data, the classifiers, and images -> their records.

Every process of a run has its own; the runner and its engines know no more than `Workbench`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.config.run import RunConfig
from bench.data import subsets
from bench.device import hardware
from bench.device.batching import halving
from bench.device.precision import at_precision, compiled
from bench.errors import CheckpointError, ModelError, NumericalError, UsageError
from bench.methods import registry, zoo
from bench.runs.train import load_split
from bench.smoothing import certifier
from bench.smoothing.certifier import Protocol
from bench.smoothing.noise import image_uniform
from bench.training.checkpoints import check_trained_as, load_metadata
from bench.training.recipes import trained_options
from bench.types import Certificate, Classifier, Record, Split

Checkpoints = dict[tuple[str, float], Path | None]
"""(method, sigma) -> file; None for a method that has no checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all certificates of a run share; `note` takes sentences for the user."""

    config: RunConfig
    split: Split
    indices: tuple[int, ...]
    device: torch.device
    note: Callable[[str], None] = lambda sentence: None


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


def find_checkpoint(setup: Setup, method: str, sigma: float) -> tuple[str | None, Path | None]:
    """Return the file name of the method's checkpoint (None: it has none) and where it lies (None: nowhere).

    It lies in the zoo, or where the method's option `checkpoint` says.

    Raises:
        CheckpointError: it was trained with other values of the options that are given, or is another method's.
    """
    module = registry.load(method)
    if not hasattr(module, "checkpoint_name"):
        return None, None
    config = setup.config
    given = config.options.get(method, {})
    configured = registry.configure(method, setup.split.task, sigma, given, trains=False)
    name = module.checkpoint_name(configured)
    if file := getattr(configured, "checkpoint", ""):
        _check_declared(Path(file), method, sigma, setup.note)
        return name, Path(file)
    path = None if name is None else zoo.find(config.zoo, config.dataset, name)
    if path is not None:
        options = trained_options(configured)
        check_trained_as(path, {option: options[option] for option in given if option in options}, method)
    return name, path


def _check_declared(path: Path, method: str, sigma: float, note: Callable[[str], None]) -> None:
    """Refuse a file that says it is another method's; note one that says another sigma."""
    if path.suffix != ".safetensors":
        return
    declared = load_metadata(path).get("config", {})
    if declared.get("method") not in (None, method):
        raise CheckpointError(
            f"{path} was made by {declared['method']}: give it as {declared['method']}.checkpoint, not {method}'s"
        )
    if declared.get("sigma") not in (None, sigma):
        note(f"{path} was trained at sigma {declared['sigma']:g} and is used at {sigma:g}.")


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


def digests(setup: Setup, method: str, sigma: float, checkpoint: Path | None) -> dict[str, str]:
    """Return the SHA-256 of all files that a classifier is built from, by "method/sigma" and "method/sigma/part".

    A part that is missing has none: opening it says what to do.

    Raises:
        CheckpointError: one of them cannot be read.
    """
    key, module = f"{method}/{sigma:g}", registry.load(method)
    found = {} if checkpoint is None else {key: zoo.sha256(checkpoint)}
    if hasattr(module, "foreign_files"):
        options = setup.config.options.get(method, {})
        config = registry.configure(method, setup.split.task, sigma, options, trains=False)
        parts = module.foreign_files(config)
        found |= {f"{key}/{part}": zoo.sha256(path) for part, path in parts.items() if path.exists()}
    return found


def load_classifier(setup: Setup, method: str, sigma: float, checkpoint: Path | None) -> Classifier:
    """Return the method's classifier on the device, at the run's precision.

    Raises:
        UsageError, CheckpointError: an option or the checkpoint does not fit.
    """
    options = setup.config.options.get(method, {})
    config = registry.configure(method, setup.split.task, sigma, options, trains=False)
    built = registry.load(method).build(config, checkpoint)
    if isinstance(built, nn.Module):
        built.to(setup.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    quick = compiled(built, setup.config.compile, setup.note)
    return halving(at_precision(quick, setup.device.type, setup.config.precision))


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
        DataError, UsageError, ModelError, NumericalError: as in `smoothing.certify_group`.
    """
    split = setup.split
    started = time.perf_counter()
    certificates = certifier.certify_group(
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


@dataclass(kw_only=True)
class Workbench:
    """All that certifying a run's images takes; a copy sent to another process prepares its own data there.

    Attributes:
        config: validated, its device spelled out: a process without that device refuses.
        checkpoints: of every method and sigma.
        batch_sizes: samples per call of each method.
        setup: the prepared data; None until it is first needed.
    """

    config: RunConfig
    checkpoints: Checkpoints
    batch_sizes: dict[str, int]
    setup: Setup | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"setup": None}

    def together(self, method: str) -> int:
        """Return how many images of a method are certified together."""
        self.setup = self.setup or prepare(self.config)
        return group_size(self.setup, self.batch_sizes[method])

    def __call__(self, method: str, sigma: float) -> Callable[[Sequence[int]], list[Record]]:
        """Return what certifies images of the test split by their indices, with the classifier loaded once.

        Raises:
            BenchError: as `prepare` and `load_classifier`; what is returned raises as `certify_images`.
        """
        self.setup = setup = self.setup or prepare(self.config)
        classifier = load_classifier(setup, method, sigma, self.checkpoints[method, sigma])

        def certify(indices: Sequence[int]) -> list[Record]:
            try:
                return certify_images(setup, classifier, method, sigma, indices, self.batch_sizes[method])
            except (ModelError, NumericalError) as error:
                raise type(error)(f"{method}: {error}") from error

        return certify
