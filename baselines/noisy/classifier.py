"""What classifiers trained on noisy images share: the network as a Classifier, its objective, its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.networks.resnet import RESNET
from bench.smoothing.classifiers import PixelsAlone
from bench.training import recipes
from bench.training.augmentation import Augmentation, augment
from bench.training.loop import FORWARDS_WITH_GRADIENT, Batch, Supervised, TrainingJob
from bench.training.recipes import IN_USE
from bench.training.scores import radius_share, with_noise
from bench.types import Backbone, Task

Loss = Callable[[list[Tensor], Tensor], Tensor]
"""Loss of the logits of each noisy copy, a list of (B,K), and the labels (B,)."""


class NoisyClassifier(PixelsAlone):
    """A network of noisy pixels as a Classifier: it was trained at sigma, and is not told it."""


class NoisyObjective(Supervised[nn.Module]):
    """A loss over `copies` noisy copies of each augmented image; the score is the radius on held-out images.

    Deviation: the papers keep the last weights; see `bench.training.scores.radius_share`.
    """

    def __init__(
        self, network: nn.Module, loss: Loss, *, config: Config, copies: int, job: TrainingJob
    ) -> None:
        super().__init__(network)
        self.config, self.copies, self.copies_loss = config, copies, loss
        self.task, self.sigma = config.task, config.sigma
        self.images, self.labels = job.held_out()

    @property
    def forwards(self) -> float:
        """Forward passes per image and step; see `bench.training.loop.Objective`."""
        return self.copies * FORWARDS_WITH_GRADIENT

    def augmented(self, batch: Batch) -> Tensor:
        """Return the batch's images under the recipe's augmentation, (B,C,H,W) in [0,1]."""
        return augment(batch.x, self.task, batch.generator, self.config.augmentation)

    def noisy_copies(self, batch: Batch) -> Tensor:
        """Return the copies that are classified, (copies B,C,H,W), all images' first copies first."""
        x = self.augmented(batch).repeat(self.copies, 1, 1, 1)
        return with_noise(x, self.sigma, batch.generator)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        logits = self.network(self.noisy_copies(batch)).float()
        return self.copies_loss(list(logits.chunk(self.copies)), batch.labels)

    def score(self, average: nn.Module) -> float | None:
        """Return the averaged network's share of the radius on held-out images; see `radius_share`."""
        return radius_share(average, self.images, self.labels, self.sigma)


RecipeName = Literal["small", "mnist", "cifar10", "imagenet"]


@dataclass(frozen=True, kw_only=True)
class Recipe(recipes.Recipe):
    """Recipe of a classifier trained on noisy images.

    Attributes:
        epochs: passes over the training images, looked at after each; 0 = max_steps counts instead.
        drop_epochs: as drop_every, where epochs count.
        augmentation: of the training images; see `bench.training.augmentation.augment`.
    """

    epochs: int = 0
    drop_epochs: int = 0
    augmentation: Augmentation = "light"


@dataclass(frozen=True, kw_only=True)
class Config(Recipe):
    """Options that every method of this kind has, beside the recipe of its training.

    Attributes:
        recipe: name of the published recipe whose values the other options start from; "small" is their defaults.
        checkpoint: "" takes the zoo's; else a file: a released `{arch, state_dict}`, or a safetensors file of ours.
            Its own network, with the normalisation that belongs to it, takes the place of `backbone`.
    """

    task: Task
    sigma: float
    backbone: Backbone = RESNET
    recipe: RecipeName = "small"
    checkpoint: str = field(default="", metadata=IN_USE)

    @property
    def copies(self) -> int:
        """Noisy copies of each image in a batch; an option of the methods that have several."""
        return 1


AnyConfig = TypeVar("AnyConfig", bound=Config)


def in_steps(config: AnyConfig, images: int, *counted: str) -> AnyConfig:
    """Return the configuration with epochs turned into steps over `images` training images.

    Args:
        counted: the method's own options that count epochs where the recipe does.
    """
    if config.epochs == 0:
        return config
    per_epoch = images // min(config.batch_size, images)
    changes: dict[str, Any] = {name: getattr(config, name) * per_epoch for name in counted}
    return replace(
        config,
        max_steps=config.epochs * per_epoch,
        drop_every=config.drop_epochs * per_epoch,
        evaluate_every=per_epoch,
        patience=config.epochs,
        epochs=0,
        **changes,
    )


def mean_cross_entropy(copies: list[Tensor], labels: Tensor) -> Tensor:
    """Return the mean cross entropy of all copies' logits (B,K) against labels (B,)."""
    return torch.stack([F.cross_entropy(logits, labels) for logits in copies]).mean()
