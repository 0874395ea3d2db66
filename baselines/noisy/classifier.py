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
from bench.training.loop import Batch, Supervised, TrainingJob, noisy_accuracy, seeded, with_noise
from bench.training.recipes import IN_USE
from bench.types import Backbone, Task

Loss = Callable[[list[Tensor], Tensor], Tensor]
"""Loss of the logits of each noisy copy, a list of (B,K), and the labels (B,)."""


class NoisyClassifier(PixelsAlone):
    """A network of noisy pixels as a Classifier: it was trained at sigma, and is not told it."""


class NoisyObjective(Supervised[nn.Module]):
    """A loss over `copies` noisy copies of each augmented image; the score is held-out accuracy under noise."""

    def __init__(
        self, network: nn.Module, loss: Loss, *, config: Config, copies: int, job: TrainingJob
    ) -> None:
        super().__init__(network)
        self.config, self.copies, self.copies_loss = config, copies, loss
        self.task, self.sigma = config.task, config.sigma
        self.images, self.labels = job.held_out()

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
        """Return the averaged network's accuracy on noisy held-out images; None where none are held out."""
        return noisy_accuracy(average, self.images, self.labels, self.sigma)


class RadiusObjective(NoisyObjective):
    """The same, scored by the radius on held-out images: for methods that give up accuracy for radius.

    Deviation: the papers keep the last weights. Accuracy under noise would keep those from before the method's own term
    has its full weight.
    """

    def score(self, average: nn.Module) -> float | None:
        """Return the averaged network's share of the radius, see `radius_share`; None where no images are held out."""
        return radius_share(average, self.images, self.labels, self.sigma)


@torch.no_grad()
def radius_share(
    classify: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, sigma: float, *, draws: int = 32
) -> float | None:
    """Return the mean radius of images under fixed noise, as a share of the largest that `draws` copies can show.

    Without images it is None.

    An image's radius, in units of sigma, is Phi^-1((k + 1/2) / (draws + 1)) for k of its noisy copies classified
    right, and 0 where that is negative: an estimate without a guarantee, for choosing among weights only.

    Args:
        classify: pixels -> logits.
    """
    if len(images) == 0:
        return None
    generator = seeded(images.device, "held-out", len(images))
    right = torch.zeros(len(images), device=images.device)
    for _ in range(draws):
        logits = [classify(with_noise(x, sigma, generator)) for x in images.split(256)]
        right += torch.cat(logits).argmax(1) == labels
    radius = torch.special.ndtri((right + 0.5) / (draws + 1)).clamp_min(0)
    largest = torch.special.ndtri(torch.tensor((draws + 0.5) / (draws + 1)))
    return float(radius.mean().cpu() / largest)


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
