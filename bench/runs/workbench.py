"""What a worker needs to certify: the data, the classifiers, and images -> their records.

Every process of a run has its own; the runner and its engines know no more than `Workbench`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from bench.config.run import RunConfig
from bench.data import subsets
from bench.data.sets import load_split
from bench.device import hardware
from bench.device.batching import filled, halving, measured_batch_size
from bench.device.precision import at_precision, compiled, layout, make_ready
from bench.device.timing import instruments
from bench.errors import CheckpointError, ModelError, NumericalError, UsageError
from bench.methods.weights import fingerprint
from bench.runs.entrant import Entrant, enter
from bench.runs.stream import Stream
from bench.smoothing.api import explained
from bench.smoothing.certifier import Smoothed, smoothed_of
from bench.smoothing.classifiers import in_eval_mode
from bench.smoothing.noise import NOISE_BLOCK, bound_uniform
from bench.training.provenance import check_classes
from bench.types import Classifier, Record, Split, Task

Entrants = dict[tuple[str, float], Entrant]
"""(method, sigma) -> what certifies there."""


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


def entrant(setup: Setup, method: str, sigma: float) -> Entrant:
    """Return a method at a sigma, with its checkpoint as far as it is there; see `enter`."""
    return _of_split(enter(setup.config, setup.split.task, method, sigma, setup.note), setup.split)


def enter_all(setup: Setup) -> Entrants:
    """Return the entrants of a run; see `enter`."""
    entrants = enter_with(setup.config, setup.split.task, setup.note)
    return {key: _of_split(one, setup.split) for key, one in entrants.items()}


def _of_split(one: Entrant, split: Split) -> Entrant:
    """Return an entrant whose checkpoint is of the classes of a split; see `check_classes`."""
    if one.checkpoint is not None:
        check_classes(one.checkpoint, split)
    return one


def enter_with(config: RunConfig, task: Task, note: Callable[[str], None]) -> Entrants:
    """Return the entrants of a configuration on the task of its data set; see `enter`."""
    return {(m, s): enter(config, task, m, s, note) for m in config.methods for s in config.sigmas}


def smoothed(setup: Setup, one: Entrant, batch_size: int, weights: str | None = None) -> Smoothed:
    """Return an entrant's smoothed classifier on the device, at the run's precision.

    Args:
        weights: the fingerprint that its weights have in the run; None: any.

    Raises:
        UsageError, CheckpointError: an option or the checkpoint does not fit, or it has other weights.
    """
    built, precision = one.build(), setup.config.precision
    if weights is not None and (found := fingerprint(built)) != weights:
        raise CheckpointError(
            f"{one.method} at sigma {one.sigma:g} was built with other weights (SHA-256 {found}) than the run has "
            f"({weights}): give it the same weights each time, such as from a file, or by a seed"
        )
    if isinstance(built, nn.Module):
        wanted = layout(built, setup.device.type, precision)
        in_eval_mode(built.to(setup.device, memory_format=wanted))  # type: ignore[call-overload]

    def prepared(classifier: Classifier) -> Classifier:
        if isinstance(classifier, nn.Module):
            make_ready(classifier, setup.device.type, precision, setup.split.task.num_classes)
        quick = compiled(classifier, setup.config.compile)
        quick = halving(at_precision(quick, setup.device.type, precision))
        if setup.config.compile != "none":
            quick = filled(quick, batch_size)
        return explained(quick, classifier)

    if setup.config.compile != "none" and setup.config.protocol.estimation == "sequential":
        batch_size = min(batch_size, LARGEST_FILLED)
    return smoothed_of(
        built,
        prepared,
        sigma=one.sigma,
        num_classes=setup.split.task.num_classes,
        batch_size=batch_size,
    )


def first_image_stream(setup: Setup, one: Entrant) -> Stream:
    """Return noisy samples of the run's first image through an entrant's classifier, at the run's precision."""
    x = setup.split.images[setup.indices[0]].to(setup.device)
    return Stream(smoothed=smoothed(setup, one, NOISE_BLOCK), images=x[None])


BATCH_SIZES = tuple(2**power for power in range(4, 14))
"""Samples per call that are tried on an accelerator."""

LARGEST_FILLED = 512
"""Samples per call, at most, where an image may end after any block and a compiled network has one size of batches."""


def choose_batch_sizes(setup: Setup, entrants: Iterable[Entrant]) -> dict[str, int]:
    """Return the samples per call of each method: as configured, one block of noise on a CPU, measured elsewhere.

    On a CPU larger batches gain nothing, and a measured size would make two runs of one command differ.
    """
    size = setup.config.batch_size
    if size == "auto" and setup.device.type == "cpu":
        size = NOISE_BLOCK
    first = {one.method: one for one in entrants if one.sigma == setup.config.sigmas[0]}
    return {method: _measured_size(setup, one) if size == "auto" else size for method, one in first.items()}


def _measured_size(setup: Setup, one: Entrant) -> int:
    setup.note(f"Trying batch sizes of {one.method}; --batch-size INT leaves that out")
    plain = replace(
        setup, config=replace(setup.config, compile="none")
    )  # compiling each size would take minutes
    stream = first_image_stream(plain, one)
    is_filled = setup.config.compile != "none" and setup.config.protocol.estimation == "sequential"
    sizes = [size for size in BATCH_SIZES if size <= LARGEST_FILLED or not is_filled]
    size = measured_batch_size(stream.work, sizes, instruments(setup.device))
    setup.note(f"{one.method} has batches of {size} samples")
    del stream
    free_memory(setup.device)
    return size


def free_memory(device: torch.device) -> None:
    """Give a GPU the memory back that nothing here uses: the workers of another engine may share it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def warm_up(setup: Setup, smoothed: Smoothed) -> None:
    """Classify one batch on an accelerator, so that libraries and kernels are ready before the first certificate."""
    if setup.device.type != "cpu":
        x = setup.split.images[setup.indices[0]].to(setup.device)
        Stream(smoothed=smoothed, images=x[None]).work(smoothed.batch_size).batch()
        instruments(setup.device).synchronize()


GROUP_BATCHES, FILLED_BATCHES, GROUP_MOST = 4, 32, 64
"""Batches that images certified together fill, about, more where each stage's last one is filled up for a compiled
network; and how many images that may be: what a crash can lose."""


def group_size(setup: Setup, batch_size: int) -> int:
    """Return how many images are certified together: one, unless an image's samples fill too few batches.

    On a CPU it is always one, since a batch of one block of noise is full enough there.
    """
    if setup.device.type == "cpu":
        return 1
    batches = GROUP_BATCHES if setup.config.compile == "none" else FILLED_BATCHES
    return max(1, min(GROUP_MOST, batches * batch_size // setup.config.n))


def certify_images(setup: Setup, method: str, smoothed: Smoothed, indices: Sequence[int]) -> list[Record]:
    """Return a method's records of images of the test split, certified together; samples share out their time.

    Raises:
        DataError, UsageError, ModelError, NumericalError: as in `Smoothed.certify`.
    """
    split, protocol = setup.split, setup.config.protocol
    started = time.perf_counter()
    images = list(torch.stack([split.images[index] for index in indices]).to(setup.device))  # one copy
    labels = [split.labels[index] for index in indices]
    certificates = smoothed.certify_group(images, indices, protocol, labels)
    seconds = time.perf_counter() - started
    clean = smoothed.clean_classes(images, indices, protocol)  # no part of a certificate, nor of its time
    samples = sum(certificate.samples for certificate in certificates)
    return [
        Record(
            method=method,
            sigma=smoothed.sigma,
            index=index,
            label=label,
            n0=protocol.n0,
            n=protocol.n,
            seconds=seconds * certificate.samples / samples,
            uniform=bound_uniform(protocol, index),
            clean=clean_class,
            **vars(certificate),
        )
        for index, label, certificate, clean_class in zip(indices, labels, certificates, clean, strict=True)
    ]


@dataclass(kw_only=True)
class Workbench:
    """All that certifying a run's images takes; a copy sent to another process prepares its own data there.

    Attributes:
        config: validated, its device spelled out: a process without that device refuses.
        entrants: of every method and sigma.
        batch_sizes: samples per call of each method.
        weights: fingerprint of each entrant's weights by its key, which every process must find; see `smoothed`.
        setup: the prepared data; None until it is first needed.
    """

    config: RunConfig
    entrants: Entrants
    batch_sizes: dict[str, int]
    weights: dict[str, str]
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
            BenchError: as `prepare` and `smoothed`; what is returned raises as `certify_images`.
        """
        self.setup = setup = self.setup or prepare(self.config)
        entered = self.entrants[method, sigma]
        one = smoothed(setup, entered, self.batch_sizes[method], self.weights.get(entered.key))
        warm_up(setup, one)

        def certify(indices: Sequence[int]) -> list[Record]:
            try:
                return certify_images(setup, method, one, indices)
            except (ModelError, NumericalError) as error:
                raise type(error)(f"{method}: {error}") from error

        return certify
