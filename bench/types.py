"""Contracts between the harness and the methods; what is stored comes from protocol.py, and is named here too."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.protocol import (
    ABSTAIN as ABSTAIN,
    LARGEST_RADIUS as LARGEST_RADIUS,
    LARGEST_SIGMA as LARGEST_SIGMA,
    LEAST_ALPHA as LEAST_ALPHA,
    LEAST_RADIUS as LEAST_RADIUS,
    NOISE_VERSION as NOISE_VERSION,
    SCHEMA_VERSION as SCHEMA_VERSION,
    UNSEEN as UNSEEN,
    Bound as Bound,
    Certificate as Certificate,
    CostRecord as CostRecord,
    Estimation as Estimation,
    PartBound as PartBound,
    Protocol as Protocol,
    Record as Record,
    Role as Role,
    Run as Run,
    RunEstimation as RunEstimation,
    RunHeader as RunHeader,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

Precision = Literal["float32", "tf32", "bfloat16"]
"""Arithmetic of the networks; see `bench.device.precision`."""

Layout = Literal["contiguous", "channels-last"]
"""How a network's convolutions are laid out in memory; see `bench.device.precision`."""

Compilation = Literal["none", "default", "cuda-graphs"]
"""How networks are compiled; see `bench.device.precision`."""


class Classifier(typing.Protocol):
    """A classifier of noisy images: the only thing the certifier knows of a method.

    Hooks, each of which may be absent (their types are those of `bench.training.released`):
        stages(): name -> the module whose time is told apart, in order of use: `bench cost`.
        compiled_parts(): the modules inside that torch.compile is given, each for itself, where it should not trace the
            Python around them, such as a chain; without it, it is given the whole.
        purifier_parts(): its denoiser, a `DenoiserReading`, and the module that classifies clean pixels, which are
            then tried apart: `bench doctor`.
        fed(): what a module does to pixels, a `Fed`; any module inside may have it: `bench doctor`.
        compose_certificate(certify): asks for the bounds that its certificates rest on, by calling a `CertifyPart`;
            it returns nothing, and is told nothing of the image but the classes that these calls return.
    """

    def __call__(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return logits (B, K) for noisy images.

        Args:
            x_noisy: (B, C, H, W) float, pixel units ([0,1] plus noise, unclipped).
            sigma: standard deviation of the noise in pixel units, > 0.
            keys: (B,) int64, one identity per sample, for methods with randomness of their own.
        """
        ...


class CertifyPart(typing.Protocol):
    """What the certifier offers a method whose certificate several networks, or a sigma for each image, make."""

    def __call__(
        self, name: str, classifier: Classifier, *, sigma: float, share: float, num_classes: int
    ) -> int:
        """Certify one part of the method on the image at hand, and return the class that selection chose.

        Every call has noise of its own, independent of all classes returned before, so that what is asked for next may
        depend on them. The image's radius is the smallest of all bounds, its class is that of the last one, and where
        any of them abstains it abstains: within the radius no part changes its class, hence neither what is asked for
        next nor the last answer. It is wrong with probability alpha at most, the sum of what the bounds may spend.

        Args:
            name: of the part, another for each bound of an image.
            classifier: a part of the built classifier (a module inside it, so that it is moved to the device and its
                weights are in the run's fingerprint), or a function of it.
            sigma: of the noise that the part is smoothed with, pixel units.
            share: of alpha that the bound may spend, above 0; those of an image add up to at most 1.
            num_classes: columns of the part's logits; of the last one those of the task.
        """
        ...


class Denoiser(typing.Protocol):
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
class Checkpoint:
    """A checkpoint that was read: a file of ours, or a released one in our form.

    Attributes:
        source: where it was read.
        tensors, config, training: what a safetensors file of ours holds: weights, what they are, how they came about.
        description: sentences on what a released one is.
        file_name: what it is called in a zoo; None where the sigma is not known.
        use: how a file that a zoo does not hold is used; "" for one that it does.
    """

    source: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    description: tuple[str, ...] = ()
    file_name: str | None = None
    use: str = ""

    def __str__(self) -> str:
        return str(self.source)


class MethodModule(typing.Protocol):
    """What a method's file offers: these names in the module, or an object METHOD that has them.

    `Config` is a frozen keyword-only dataclass with at least `task: Task` and `sigma: float`; its other fields are the
    method's own options, all with defaults. An option `checkpoint` names a file that takes the place of the zoo's.
    `checkpoint_name` may be absent if the method has no checkpoint (`build` then gets None).

    Hooks, each of which may be absent:
        train(config, job): trains, and writes the checkpoint; see `bench.training.loop.TrainingJob`.
        NAMED_OPTIONS: option -> the names of the options that it stands for.
        expand(config): the config with those others set; options given singly are set after it.
        settle(config, given): the config with what follows from all options; `given`: those that were given singly.
        TRAINING_NAMES: those of NAMED_OPTIONS that say only how the method is trained: where `expand` raises
            `bench.errors.UnpublishedError` for one at some sigma, a checkpoint that is there is taken without them.
        backbone_of(config): name of the network in the files that options name; None without one.
        foreign_files(config): what `build` reads beside the checkpoint, part -> file or folder; a run records digests.
        RELEASED: how others publish its checkpoints, a `bench.training.released.Released`: `bench import-checkpoint`.
        open_part(source, task, said): the `Part` that a folder (Path) or `Checkpoint` holds, or None: `bench doctor`.
        STORED_AS: key in its checkpoints' config -> the option of another name that it is.
        backbone(name): the `Backbone` of that name, or None; backbone_names(): those it has.
        networks(): its `Network`s at named sizes: `bench list models`.
        recipe_tables(): its published recipes, `RecipeTable`s: `bench list recipes`.
        architectures(family, chains): its `Architecture`s of a family of sizes: `bench cost`.
    In the module itself, of methods that packages add:
        DISPLAY_NAME, COLOR, KIND: see `bench.config.methods.MethodEntry`.
    """

    Config: type

    def checkpoint_name(self, config: Any) -> str | None:
        """Return the file name, below zoo/<dataset>/, of the checkpoint that `config` needs; None: it needs none."""
        ...

    def build(self, config: Any, checkpoint: Path | Checkpoint | None) -> Classifier:
        """Return the classifier with the checkpoint's weights (random ones for None), on CPU, in eval mode.

        The checkpoint is a file; for `bench doctor` of a released one, the `Checkpoint` that RELEASED read.
        """
        ...


class Indexed(typing.Protocol):
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
