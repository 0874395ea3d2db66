"""Pre-training (arXiv 2501.13094): contrastive + consistency loss along the diffusion trajectory."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.errors import CheckpointError, UnfinishedError, UsageError, shown
from bench.smoothing.noise import seeded_initialisation
from bench.smoothing.sigma import karras_grid, to_model_units
from bench.training import loop
from bench.training.checkpoints import (
    check_configuration,
    load_checkpoint,
    load_metadata,
    load_weights,
    save_checkpoint,
)
from bench.training.loop import FORWARDS_WITH_GRADIENT, Batch, TrainingJob, move_parameters
from bench.training.provenance import provenance
from bench.types import Task
from rrcm import masked
from rrcm.encoder import Encoder, EncoderConfig
from rrcm.losses import Views, consistency_loss, contrastive_loss
from rrcm.masked import MaskedObjective
from rrcm.schedule import END_SCALES, num_scales, target_rate
from rrcm.views import moco_views, plain_view, strong_view

ViewsName = Literal["small", "moco"]

CHECKPOINT_NAME = "rrcm_pretrained.safetensors"

STORED = torch.float16
"""Type of the encoder's stored weights: a starting point for fine-tuning, whose last bits do not matter."""

UNSHAPING = ("pretrain_recipe", "pretrain_evaluate_every", "pretrain_nonfinite_limit")
"""Options of pre-training that do not change its weights, or stand for others."""


SHAPING = (
    "image_size", "patch_size", "in_channels", "embed_dim", "depth", "num_heads", "hidden_dim", "output_dim",
)  # fmt: skip
"""Sizes of the encoder that its checkpoint must have."""


@dataclass(frozen=True, kw_only=True)
class Recipe(loop.Recipe):
    """Recipe of pre-training.

    Attributes:
        views: "small" for `strong_view` and `plain_view`, "moco" for the paper's `moco_views`, of colour images.
        contrastive, consistency: whether the loss has that term; False is an ablation.
        masked: whether the loss is that of masked pre-training instead, see `rrcm.masked`; a control.
        curriculum: whether the number of grid points grows as in `num_scales`; False = the last one from the start.

    Deviation: the target encoder's rate runs from 0.97 to 0.995 instead of 0.99 to 0.9999, since a run of some
    thousand steps is shorter than the memory of a rate of 0.9999.
    """

    weight_decay: float = 0.01
    schedule: Literal["constant", "cosine"] = "cosine"
    ema_decay: float = 0.99
    clip: float = 2.0
    target_start: float = 0.97
    target_end: float = 0.995
    sharpness: float = 10.0
    views: ViewsName = "small"
    contrastive: bool = True
    consistency: bool = True
    masked: bool = False
    curriculum: bool = True

    def __post_init__(self) -> None:
        """Refuse a loss without terms, two losses, and images without another to contrast them with.

        Raises:
            UsageError: contrastive and consistency are both off and masked is too, or masked is on beside one of them,
                or a batch of one image without masked.
        """
        if self.masked == (self.contrastive or self.consistency):
            raise UsageError(
                "pretrain_contrastive and pretrain_consistency are both false, which leaves no loss: "
                "set one of them, or pretraining=none"
                if not self.masked
                else "pretrain_masked is true beside pretrain_contrastive or pretrain_consistency, expected one loss: "
                "set pretraining=masked"
            )
        if self.batch_size == 1 and not self.masked:
            raise UsageError(
                "pretrain_batch_size is 1, expected 2 or more: each image is contrasted with the others"
            )

    @property
    def ablations(self) -> dict[str, bool]:
        """The options, as the method calls them, that take something from the paper's pre-training."""
        names = ("contrastive", "consistency", "masked", "curriculum")
        return {f"pretrain_{name}": getattr(self, name) for name in names}


SMALL = Recipe(max_steps=500, batch_size=256)
"""The recipe for small images on a CPU."""


class Objective:
    """The two losses, the target encoder that follows the online one, and the one time index of each batch."""

    def __init__(self, encoder: Encoder, recipe: Recipe, task: Task) -> None:
        self.network, self.recipe, self.task = encoder, recipe, task
        self.target = copy.deepcopy(encoder).requires_grad_(False)
        self.companions = nn.ModuleList([self.target])

    @property
    def forwards(self) -> float:
        """Forward passes per image and step; see `forwards_per_image`."""
        return forwards_per_image(self.recipe, self.network.config)

    @property
    def identity(self) -> dict[str, Any]:
        """What does not show in the weights of the encoder; see `bench.training.loop.Objective`."""
        return self.network.config.unseen

    def parameter_groups(self, learning_rate: float) -> Iterable[dict[str, Any]]:
        """Return all parameters that are trained, at one learning rate."""
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return [{"params": trained, "lr": learning_rate}]

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean of contrastive + consistency loss at one index i, uniform over 0..N-2.

        A term that is off leaves all draws as they are, so that ablations see the same views and noise.
        """
        recipe = self.recipe
        scales = num_scales(batch.step, recipe.max_steps) if recipe.curriculum else END_SCALES + 1
        grid = karras_grid(scales)
        device = batch.generator.device
        index = int(torch.randint(len(grid) - 1, (), generator=batch.shared, device=batch.shared.device))
        a, b, plain = map(to_model_units, self._views(batch))
        noise = torch.randn(batch.x.shape, generator=batch.generator, device=device)
        views = Views(a=a, b=b, plain=plain, noise=noise)
        terms = []
        if recipe.contrastive:
            terms.append(contrastive_loss(self.network, self.target, views, float(grid[-1])))
        if recipe.consistency:
            terms.append(consistency_loss(self.network, views, float(grid[index]), float(grid[index + 1])))
        return torch.stack(terms).sum(dim=0).mean()

    def _views(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return two strong views and a plain one, (B,C,H,W) in [0,1]."""
        x, task, generator = batch.x, self.task, batch.generator
        if self.recipe.views == "moco":
            return moco_views(x, generator)
        first, second = strong_view(x, task, generator), strong_view(x, task, generator)
        return first, second, plain_view(x, task, generator)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the target's parameters towards the online ones; its batch-norm statistics stay its own."""
        recipe = self.recipe
        rate = target_rate(step, recipe.max_steps, recipe.sharpness, recipe.target_start, recipe.target_end)
        move_parameters(self.target, self.network, 1 - rate)

    def score(self, average: nn.Module) -> None:
        """Return None: pre-training has no labels and runs for all its steps."""


def file_name(recipe: Recipe) -> str:
    """Return the name of the encoder's checkpoint: that of rRCM's pre-training, or of a control's."""
    kind = "_masked" if recipe.masked else "" if recipe.consistency else "_contrastive"
    return CHECKPOINT_NAME.replace("_pretrained", f"_pretrained{kind}")


def forwards_per_image(recipe: Recipe, sizes: EncoderConfig) -> float:
    """Return the cost of a step on one image, in forward passes of the encoder; a gradient counts as two more.

    The contrastive term takes two strong views with gradient and two of the target without, the consistency term the
    noisier plain view with gradient and the cleaner one without.
    """
    if recipe.masked:
        return masked.forwards_per_image(sizes)
    contrastive, consistency = 2 * FORWARDS_WITH_GRADIENT + 2, FORWARDS_WITH_GRADIENT + 1
    return contrastive * recipe.contrastive + consistency * recipe.consistency


def objective(encoder: Encoder, recipe: Recipe, task: Task) -> Objective | MaskedObjective:
    """Return the objective of a recipe of pre-training."""
    return MaskedObjective(encoder, task) if recipe.masked else Objective(encoder, recipe, task)


def load(sizes: EncoderConfig, recipe: Recipe, job: TrainingJob) -> Encoder:
    """Return the encoder that fine-tuning starts from: the pre-trained one, or for zero steps random weights.

    Raises:
        CheckpointError: it is not there yet, or has other sizes.
    """
    encoder, path = _initial(sizes, job), job.found(file_name(recipe))
    if recipe.max_steps > 0:
        tensors, metadata = load_checkpoint(path)
        load_weights(encoder, tensors, path)
        made = Recipe().ablations | metadata.get(
            "config", {}
        )  # released encoders have all terms and say nothing
        check_configuration({"config": made}, {"num_heads": sizes.num_heads, **recipe.ablations}, path)
    return encoder


def _initial(sizes: EncoderConfig, job: TrainingJob) -> Encoder:
    with seeded_initialisation(job.seed):
        return Encoder(sizes)


def load_or_train(sizes: EncoderConfig, recipe: Recipe, job: TrainingJob, *, anew: bool = False) -> Encoder:
    """Return the pre-trained encoder: from its checkpoint where that exists, else trained and saved now.

    Zero steps return random weights. The checkpoint holds float16, and so do the weights that are returned.

    Args:
        anew: train even where the checkpoint exists.

    Raises:
        CheckpointError: the checkpoint has other sizes, or was made with another seed or recipe.
        UnfinishedError: `job.max_seconds` ended the training, which has no checkpoint yet.
    """
    found, path = job.found(file_name(recipe)), job.folder / file_name(recipe)
    if recipe.max_steps == 0:
        return load(sizes, recipe, job)
    if found.exists() and not anew:
        _check_made_by(job, found, sizes)
        return load(sizes, recipe, job)
    encoder, stage = _initial(sizes, job), path.stem
    with seeded_initialisation(job.seed):
        trained = objective(encoder, recipe, job.split.task)
    fitted = loop.fit(stage, trained, recipe, job)
    if not fitted.is_complete:
        raise UnfinishedError(stage, fitted.steps, recipe.max_steps)
    kept = {name: _stored(value) for name, value in fitted.network.state_dict().items()}
    save_checkpoint(
        path,
        kept,
        config={"method": "rrcm", **asdict(sizes), **recipe.ablations},
        training=provenance(job, fitted),
        dtype=STORED,
    )
    encoder.load_state_dict(kept)
    return encoder


def options_of(path: Path) -> dict[str, Any]:
    """Return how an encoder says that it was pre-trained: options pretrain_*, and pretrain_seed; {} for nothing."""
    training = load_metadata(path).get("training", {})
    told = training.get("options", {})
    if not isinstance(told, dict):
        raise CheckpointError(f"{path} says options {shown(told)}, expected a table: train it again.")
    options = {name: value for name, value in told.items() if name.startswith("pretrain_")}
    return options | {"pretrain_seed": training["seed"]} if options and "seed" in training else options


def _check_made_by(job: TrainingJob, path: Path, sizes: EncoderConfig) -> None:
    config, own = load_metadata(path).get("config", {}), asdict(sizes)
    for name in SHAPING:
        if config.get(name, own[name]) != own[name]:
            raise CheckpointError(
                f"{path} was made with {name} {config[name]}, not {own[name]}: --zoo DIR makes another elsewhere"
            )
    asked = {**job.options, "pretrain_seed": job.seed}
    for name, value in options_of(path).items():
        if name not in UNSHAPING and asked.get(name, value) != value:
            raise CheckpointError(
                f"{path} was made with {name.replace('pretrain_seed', 'seed')} {value}, not {asked[name]}: "
                "--zoo DIR makes another elsewhere, --stage finetune takes it as it is"
            )


def _stored(value: Tensor) -> Tensor:
    return value.to(STORED).to(value.dtype) if value.is_floating_point() else value
