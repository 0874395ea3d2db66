"""Fine-tuning at one sigma (arXiv 2501.13094): cross entropy over noisy copies + consistency regularisation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from baselines.consistency import consistency_loss
from bench import train
from bench.augmentation import augment
from bench.checkpoints import save_checkpoint
from bench.train import Batch, TrainingJob, noisy_accuracy, provenance, with_noise
from rrcm.heads import Classifier


@dataclass(frozen=True, kw_only=True)
class Recipe(train.Recipe):
    """Recipe of fine-tuning.

    Attributes:
        layer_decay: factor on the learning rate from each layer to the one below it.
        copies: noisy copies m of each image.
        weight: lambda of the consistency regularisation.
        entropy_weight: eta of the consistency regularisation.
    """

    layer_decay: float = 0.75
    copies: int = 2
    weight: float = 5.0
    entropy_weight: float = 0.5


class Objective:
    """The loss of fine-tuning a classifier (encoder + linear head) at sigma, and its held-out noisy accuracy."""

    def __init__(self, classifier: Classifier, recipe: Recipe, sigma: float, job: TrainingJob) -> None:
        self.network, self.recipe, self.sigma = classifier, recipe, sigma
        self.companions = nn.ModuleList()
        self.task = job.split.task
        self.images, self.labels = job.held_out()

    def parameter_groups(self, learning_rate: float) -> Iterable[dict[str, Any]]:
        """Return a group per layer, its rate falling by `layer_decay` from the head down to the embeddings."""
        layers: dict[int, list[nn.Parameter]] = {}
        depth = self.network.base_model.config.depth
        for name, parameter in self.network.named_parameters():
            layers.setdefault(layer_of(name, depth), []).append(parameter)
        return [
            {"params": parameters, "lr": learning_rate * self.recipe.layer_decay ** (depth + 1 - layer)}
            for layer, parameters in sorted(layers.items())
        ]

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        x = augment(batch.x, self.task, batch.generator).repeat(self.recipe.copies, 1, 1, 1)
        logits = self.network(with_noise(x, self.sigma, batch.generator), self.sigma).float()
        return consistency_loss(
            list(logits.chunk(self.recipe.copies)),
            batch.labels,
            weight=self.recipe.weight,
            entropy_weight=self.recipe.entropy_weight,
        )

    def after_step(self, step: int) -> None:
        """Do nothing after the optimiser's step."""

    def score(self, average: nn.Module) -> float:
        """Return the averaged classifier's accuracy on noisy held-out images."""
        return noisy_accuracy(lambda x: average(x, self.sigma), self.images, self.labels, self.sigma)


def layer_of(name: str, depth: int) -> int:
    """Return the layer of a parameter for layer-wise decay: 0 the embeddings, 1..depth the blocks, depth + 1 above."""
    if name.startswith(("base_model.cls_token", "base_model.pos_embed", "base_model.patch_embed")):
        return 0
    if name.startswith("base_model.blocks."):
        return int(name.split(".")[2]) + 1
    return depth + 1


def finetune(classifier: Classifier, recipe: Recipe, sigma: float, name: str, job: TrainingJob) -> None:
    """Train until held-out noisy accuracy stops rising, and write the checkpoint called `name`."""
    objective = Objective(classifier, recipe, sigma, job)
    fitted = train.fit(name.removesuffix(".safetensors"), objective, recipe, job)
    encoder = classifier.base_model.config
    save_checkpoint(
        job.folder / name,
        fitted.network.state_dict(),
        config={"method": "rrcm", "sigma": sigma, **asdict(encoder)},
        training=provenance(job, fitted),
    )
