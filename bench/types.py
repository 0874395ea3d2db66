"""Contracts between the harness and the methods: protocols, and frozen dataclasses for whatever is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

ABSTAIN = -1
"""Class returned when nothing can be certified; its radius is 0.0 and it counts as incorrect."""

SCHEMA_VERSION = 1
"""Version of the records format; raised whenever a field changes its meaning."""


Estimation = Literal["fixed", "skip-wrong", "sequential"]
"""How estimation samples are spent; see `bench.smoothing.estimation`."""

Bound = Literal["clopper-pearson", "randomised"]
"""Lower bound of the selected class's probability at n samples; see `bench.smoothing.stats`."""


Precision = Literal["float32", "tf32", "bfloat16"]
"""Arithmetic of the networks; see `bench.device.precision`."""

Compilation = Literal["none", "default", "cuda-graphs"]
"""How networks are compiled; see `bench.device.precision`."""


class Classifier(Protocol):
    """A classifier of noisy images: the only thing the certifier knows of a method."""

    def __call__(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return logits (B, K) for noisy images.

        Args:
            x_noisy: (B, C, H, W) float, pixel units ([0,1] plus noise, unclipped).
            sigma: standard deviation of the noise in pixel units, > 0.
            keys: (B,) int64, one identity per sample, for methods with randomness of their own.
        """
        ...


class Denoiser(Protocol):
    """A denoiser in model units ([-1,1], noise of standard deviation sigma_model = 2 sigma)."""

    def __call__(self, x_noisy: Tensor, sigma_model: float, keys: Tensor | None = None) -> Tensor:
        """Return x_hat (B, C, H, W) in [-1,1] for noisy images in model units."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a network must fit: the data set's name, image shape and classes."""

    dataset: str
    channels: int
    image_size: int
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network by name; `make(task, sigma)` returns a module from noisy pixels (B,C,H,W) to logits (B,K)."""

    name: str
    make: Callable[[Task, float], nn.Module] = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network by name for counting: its parts on the meta device, which hold shapes and no values.

    Attributes:
        task: the data it is made for.
        body: everything below the head; projector: what serves pre-training only; head: what gives the logits.
        forward: what is computed for one image, from (1,C,H,W) on the meta device.
    """

    name: str
    task: Task
    body: nn.Module
    forward: Callable[[Tensor], Tensor]
    projector: nn.Module | None = None
    head: nn.Module | None = None


Make = Callable[[str, "Callable[[], nn.Module]"], "nn.Module"]
"""(name, function) -> the network that the function makes, on the device that is asked for; one per name."""


@dataclass(frozen=True, kw_only=True)
class Chains:
    """How long the iterated purifiers of a cost measurement are.

    Attributes:
        steps: network calls of a reverse chain, >= 1.
        votes: chains of one sample whose predictions are put to the vote, >= 1.
    """

    steps: int = 10
    votes: int = 10


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A method at a given size, with random weights, for measuring what it costs.

    Attributes:
        task: the images it is given; at the same data set, methods may take other sizes.
        build: makes the classifier, its large networks by the function it is given, so that methods share them. The
            classifier may offer `stages()`: name -> the module whose time is told apart, in order of use.
        calls: network calls of its denoiser for one sample; 1 for methods without one.
        batch_size: samples per call that its program uses, for the comparison as published.
        published: its method's name among the published numbers, "" where none is of this size.
        source: where the size is published.
    """

    name: str
    task: Task
    build: Callable[[Make], nn.Module]
    calls: int = 1
    batch_size: int = 1000
    published: str = ""
    source: str = ""


class MethodModule(Protocol):
    """What a method's file offers.

    `checkpoint_name` may be absent if the method has no checkpoint (`build` then gets None), and so may
    `train(config, job)` if it cannot be trained here; see `bench.training.loop.TrainingJob`. Where some options
    stand for several others, NAMED_OPTIONS maps each to the names of those others and `expand(config)` returns the
    config with those others set; options given singly are set after it. TRAINING_NAMES holds those of them that say
    only how the method is trained: where `expand` refuses one at some sigma, a checkpoint that is there is taken
    without it.
    An option `checkpoint` names a file that takes the place of the zoo's, and `backbone_of(config)` returns the name of
    the network in it (None without one). `foreign_files(config)` returns what `build` reads beside the checkpoint,
    part -> file or folder; the header records its digests.

    `Config` is a frozen keyword-only dataclass with at least `task: Task` and `sigma: float`;
    its other fields are the method's own options, all with defaults.
    """

    Config: type

    def checkpoint_name(self, config: Any) -> str | None:
        """Return the file name, below zoo/<dataset>/, of the checkpoint that `config` needs; None: it needs none."""
        ...

    def build(self, config: Any, checkpoint: Path | None) -> Classifier:
        """Return the classifier with the checkpoint's weights (random ones for None), on CPU, in eval mode."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One certificate: everything needed to recompute any bound later, without the model.

    Attributes:
        method: name in the registry.
        sigma: noise level in pixel units.
        index: position of the image in the data set's test split.
        label: true class.
        predict: certified class, or ABSTAIN.
        radius: certified L2 radius in pixel units at full precision; 0.0 when abstaining.
        counts_selection: ((class, count), ...) of the n0 selection samples, classes ascending, zero counts left out;
            empty, as is the next, in a record made from a published log.
        counts_estimation: the same for the n estimation samples.
        n0, n: samples asked for in each stage.
        samples: samples really used, both stages together.
        seconds: wall time of this certificate.
        uniform: the image's draw from [0,1) that a randomised bound used; None for other bounds.
    """

    method: str
    sigma: float
    index: int
    label: int
    predict: int
    radius: float
    counts_selection: tuple[tuple[int, int], ...]
    counts_estimation: tuple[tuple[int, int], ...]
    n0: int
    n: int
    samples: int
    seconds: float
    uniform: float | None = None

    @property
    def is_correct(self) -> bool:
        """True where the certified class is the label; abstention is never correct."""
        return self.predict == self.label

    @property
    def selected(self) -> int:
        """The class that selection chose: the most frequent one, the lowest on a tie."""
        return max(self.counts_selection, key=lambda pair: (pair[1], -pair[0]))[0]

    @property
    def is_skipped(self) -> bool:
        """True where no estimation sample was drawn: the selected class is wrong, or no radius is within reach."""
        return self.has_counts and not self.counts_estimation

    @property
    def has_counts(self) -> bool:
        """False for a record made from a published log: its bound cannot be computed again."""
        return bool(self.counts_selection or self.counts_estimation)


@dataclass(frozen=True, kw_only=True)
class CostRecord:
    """Measured inference cost of one method: one raw value per interleaved repetition, never only a mean.

    Attributes:
        samples_per_repetition: noisy samples drawn, classified and counted in one repetition; at batch size 1 the
            device was waited for after every sample.
        repetition_seconds: wall time of each repetition after the warm-up, in order; repetition i of every
            method of a run was made in the same round i, so that ratios can be paired.
        samples_per_certificate: n0 + n of the run.
        parameters: number of parameters of the whole method, denoiser and classifier included.
        peak_memory_bytes: highest memory in use while measuring; None where the system does not tell.
    """

    method: str
    sigma: float
    device: str
    batch_size: int
    samples_per_repetition: int
    repetition_seconds: tuple[float, ...]
    samples_per_certificate: int
    parameters: int
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunHeader:
    """First line of a records file: under which protocol, by which command, on what, the records were made.

    Attributes:
        config: the resolved configuration, as JSON values.
        checkpoints: "<method>/<sigma>" -> SHA-256 of the checkpoint that was certified.
        batch_sizes: method -> batch size chosen, used again on resume.
        estimation: how the n samples were spent; see `bench.smoothing.estimation`.
        hardware: device name, cores, memory; libraries: name -> version.
    """

    schema_version: int
    command: str
    created: str
    git_revision: str
    dataset: str
    subset: str
    indices: tuple[int, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    methods: tuple[str, ...]
    sigmas: tuple[float, ...]
    n0: int
    n: int
    alpha: float
    seed: int
    bound: str
    noise_block: int
    precision: str
    device_type: str
    radii: tuple[float, ...]
    config: dict[str, Any]
    checkpoints: dict[str, str]
    batch_sizes: dict[str, int]
    hardware: dict[str, Any]
    libraries: dict[str, str]
    estimation: str = "fixed"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run read back from its records file."""

    folder: Path
    header: RunHeader
    records: tuple[Record, ...]
    costs: tuple[CostRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the certifier returns for one image; see Record for the fields."""

    predict: int
    radius: float
    counts_selection: tuple[tuple[int, int], ...]
    counts_estimation: tuple[tuple[int, int], ...]
    samples: int


class Indexed(Protocol):
    """Images by position, each (C, H, W) float32 in [0,1]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split of a data set.

    Attributes:
        name: "train" or "test".
        images: (C, H, W) float32 in [0,1] by position; a uint8-backed tensor for data sets that fit in memory.
        labels: (N,) true classes, each in 0..num_classes-1.
    """

    task: Task
    name: str
    images: Indexed
    labels: Sequence[int]
    class_names: tuple[str, ...]
