"""Fine-tuning at one sigma (arXiv 2501.13094): cross entropy over noisy copies + consistency regularization."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from baselines.consistency import consistency_loss
from bench.errors import UsageError
from bench.smoothing.sigma import SIGMA_MIN
from bench.training import loop
from bench.training.checkpoints import save_checkpoint
from bench.training.loop import FORWARDS_WITH_GRADIENT, Batch, TrainingJob
from bench.training.provenance import provenance
from bench.training.scores import radius_share, with_noise
from rrcm.heads import Classifier
from rrcm.mixing import mix, soft_labels
from rrcm.views import finetuning_view, timm_view

Augmentation = Literal["light", "none", "flip", "crop-flip", "timm"]


SMALLEST_SIGMA = SIGMA_MIN / 2
"""Noise level, in pixel units, whose time is the smallest of the grid."""


@dataclass(frozen=True, kw_only=True)
class Recipe(loop.Recipe):
    """Recipe of fine-tuning.

    Attributes:
        epochs: passes over the training images, looked at after each; 0 = max_steps counts instead.
        warmup_epochs, cosine_epochs: as warmup_steps and cosine_steps, where epochs count.
        scale_rate: whether learning_rate is that of 256 images and grows with batch_size.
        augmentation: what is drawn before the noise; see `finetuning_view` and `timm_view`.
        mixup, cutmix: a of the mixed share's distribution Beta(a, a); 0 = off.
        label_smoothing: probability taken from the label and spread over all classes, in [0,1).
        layer_decay: factor on the learning rate from each layer to the one below it. Deviation: on CIFAR-10 and
            ImageNet the paper has 0.75 or 0.65, which its recipes keep; after the small pre-training, 1 trains to a
            larger held-out radius (results/mnist5k).
        copies: noisy copies m of each image.
        weight: lambda of the consistency regularization; the small recipe has that of `consistency` at each sigma.
            Deviation: on CIFAR-10 and ImageNet the paper has 10 at sigma 0.25 and 20 above, which its recipes keep.
        entropy_weight: eta of the consistency regularization.
    """

    batch_size: int = 64
    layer_decay: float = 1.0
    copies: int = 2
    weight: float = 5.0
    entropy_weight: float = 0.5
    epochs: int = 0
    warmup_epochs: int = 0
    cosine_epochs: int = 0
    scale_rate: bool = False
    augmentation: Augmentation = "light"
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares that are none.

        Raises:
            UsageError: mixup or cutmix is negative, or label_smoothing outside [0,1).
        """
        if min(self.mixup, self.cutmix) < 0 or not 0 <= self.label_smoothing < 1:
            raise UsageError(
                f"mixup {self.mixup:g} and cutmix {self.cutmix:g} must be >= 0, and label_smoothing "
                f"{self.label_smoothing:g} in [0,1)"
            )

    @property
    def has_soft_labels(self) -> bool:
        """True where an image may belong to several classes."""
        return max(self.mixup, self.cutmix, self.label_smoothing) > 0


class Objective(loop.Supervised[Classifier]):
    """The loss of fine-tuning a classifier (encoder + linear head) at sigma, and its radius on held-out images.

    `prepare` is what images go through where they are read; see `bench.training.loop.Objective`.

    Deviation: the head is trained with the encoder, as the paper says and its program does not; the weights kept are
    the best on held-out training images, where the program looks at the test set.

    Raises:
        UsageError: augmentation "timm" for images that are not in colour.
    """

    def __init__(self, classifier: Classifier, recipe: Recipe, sigma: float, job: TrainingJob) -> None:
        super().__init__(classifier)
        self.recipe, self.sigma = recipe, sigma
        self.task = job.split.task
        self.images, self.labels = job.held_out()
        self.prepare = timm_view if recipe.augmentation == "timm" else None
        if self.prepare is not None and self.task.channels != 3:
            raise UsageError(
                f"augmentation 'timm' needs 3 channels, got {self.task.channels}: choose another"
            )

    @property
    def forwards(self) -> float:
        """Forward passes per image and step; see `bench.training.loop.Objective`."""
        return self.recipe.copies * FORWARDS_WITH_GRADIENT

    @property
    def identity(self) -> dict[str, Any]:
        """What does not show in the weights of the network; see `bench.training.loop.Objective`."""
        return {"num_heads": self.network.base_model.config.num_heads, "layernorm": self.network.layernorm}

    def parameter_groups(self, learning_rate: float) -> Iterable[dict[str, Any]]:
        """Return a group per layer, its rate falling by `layer_decay` from the head down to the embeddings."""
        layers: dict[int, list[nn.Parameter]] = {}
        depth = self.network.base_model.config.depth
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                layers.setdefault(layer_of(name, depth), []).append(parameter)
        return [
            {"params": parameters, "lr": learning_rate * self.recipe.layer_decay ** (depth + 1 - layer)}
            for layer, parameters in sorted(layers.items())
        ]

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        recipe, targets = self.recipe, batch.labels
        x = finetuning_view(batch.x, self.task, recipe.augmentation, batch.generator)
        if recipe.has_soft_labels:
            targets = soft_labels(targets, self.task.num_classes, recipe.label_smoothing)
            x, targets = mix(x, targets, batch.generator, mixup=recipe.mixup, cutmix=recipe.cutmix)
        x = x.repeat(recipe.copies, 1, 1, 1)
        logits = self.network(with_noise(x, self.sigma, batch.generator), self.sigma).float()
        return consistency_loss(
            list(logits.chunk(recipe.copies)),
            targets,
            weight=recipe.weight,
            entropy_weight=recipe.entropy_weight,
        )

    def score(self, average: nn.Module) -> float | None:
        """Return the averaged classifier's share of the radius on held-out images; see `radius_share`."""
        return radius_share(lambda x: average(x, self.sigma), self.images, self.labels, self.sigma)


class LinearObjective(Objective):
    """The loss of the head alone: cross entropy + eta H on clean images, told the smallest time.

    Deviation: fine-tuning starts from a head of its own, where the program's goes on from this one and keeps it frozen.
    """

    @property
    def forwards(self) -> float:
        """One forward pass: no gradient goes through the encoder."""
        return 1

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        recipe = self.recipe
        x = finetuning_view(batch.x, self.task, recipe.augmentation, batch.generator)
        logits = self.network(x, SMALLEST_SIGMA).float()
        return consistency_loss([logits], batch.labels, weight=0.0, entropy_weight=recipe.entropy_weight)


def layer_of(name: str, depth: int) -> int:
    """Return the layer of a parameter for layer-wise decay: 0 the embeddings, 1..depth the blocks, depth + 1 above."""
    if name.startswith(("base_model.cls_token", "base_model.pos_embed", "base_model.patch_embed")):
        return 0
    if name.startswith("base_model.blocks."):
        return int(name.split(".")[2]) + 1
    return depth + 1


def in_steps(recipe: Recipe, images: int) -> Recipe:
    """Return the recipe with epochs turned into steps over `images` training images, and its rate for its batch.

    The rate changes once per epoch, the first having rate 0 (arXiv 2501.13094, fine-tuning).
    """
    scale = recipe.batch_size / 256 if recipe.scale_rate else 1.0
    recipe = replace(recipe, learning_rate=scale * recipe.learning_rate, scale_rate=False)
    if recipe.epochs == 0:
        return recipe
    per_epoch = images // min(recipe.batch_size, images)
    return replace(
        recipe,
        max_steps=recipe.epochs * per_epoch,
        warmup_steps=recipe.warmup_epochs * per_epoch,
        cosine_steps=recipe.cosine_epochs * per_epoch,
        rate_every=per_epoch,
        evaluate_every=per_epoch,
        patience=recipe.epochs,
    )


def finetune(
    classifier: Classifier,
    recipe: Recipe,
    name: str,
    job: TrainingJob,
    sigma: float,
    before: Mapping[str, Any],
) -> None:
    """Train for the recipe's steps, and write the weights of the best look as the checkpoint called `name`.

    Args:
        before: what the encoder's checkpoint says of its training; {} for random weights.
    """
    recipe = in_steps(recipe, len(job.train_indices))
    is_frozen = not any(value.requires_grad for value in classifier.base_model.parameters())
    objective = (LinearObjective if is_frozen else Objective)(classifier, recipe, sigma, job)
    fitted = loop.fit(name.removesuffix(".safetensors"), objective, recipe, job)
    encoder = classifier.base_model.config
    save_checkpoint(
        job.folder / name,
        fitted.network.state_dict(),
        config={"method": "rrcm", "sigma": sigma, "layernorm": classifier.layernorm, **asdict(encoder)},
        training=provenance(job, fitted, before=before),
        dtype=job.stored,
    )
