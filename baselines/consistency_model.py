"""Consistency-model purification (arXiv 2303.01469): one call of a consistency model, then classify as if clean."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from baselines.networks.consistency_map import ConsistencyModel, training_loss
from baselines.networks.resnet import RESNET
from baselines.networks.unet import small_unet
from baselines.parts import names
from baselines.parts.external import classifier_of, load_consistency_model
from baselines.purifiers.denoised import (
    DenoisedClassifier,
    check_pairs,
    denoised_accuracy,
    file_name,
    load_own,
    stage_name,
    train_classifier,
)
from bench.errors import UsageError
from bench.smoothing.sigma import karras_grid, sigma_to_model, to_model_units
from bench.training.augmentation import augment
from bench.training.checkpoints import save_checkpoint
from bench.training.loop import Batch, Recipe, Supervised, TrainingJob, fit, provenance, seeded_initialisation
from bench.training.recipes import IN_USE
from bench.types import Backbone, Task


@dataclass(frozen=True, kw_only=True)
class Config(Recipe):
    """Options of consistency-model purification; the recipe is the consistency model's.

    Attributes:
        backbone: the classifier of clean images.
        channels: channels of the U-Net at each resolution.
        patch: side of the squares of pixels folded into channels before the U-Net.
        sigma_max: the latest time that is trained, in model units. Deviation: the paper's is 80, for drawing images
            from noise alone; a purifier is asked for no time beyond 2 sigma.
        first_scales, last_scales: steps N - 1 of the time grid at the start and in the end.
        double_every: training steps after which N - 1 doubles. Deviation: a fixed number (as in arXiv 2310.14189,
            Section 3.4, but apart from the length of the training, which ends by a held-out score).
        classifier_max_steps: steps at most of the classifier's training, which shares the other options of the recipe.
        denoiser: "" is our own small one; else the folder of a diffusers ConsistencyModelPipeline without classes,
            "hub:owner/name", a file of `bench train consistency-model`, or "module:function" of the user's own.
        classifier: "" is `backbone`; else as in `diffusion_parts.Config`.
        classifier_checkpoint: that classifier's weights; "" takes those that timm publishes.
    """

    task: Task
    sigma: float = field(metadata=IN_USE)
    backbone: Backbone = RESNET
    channels: tuple[int, ...] = (32, 64)
    patch: int = 2
    sigma_max: float = 4.0
    first_scales: int = 10
    last_scales: int = 160
    double_every: int = 1500
    ema_decay: float = 0.999
    evaluate_every: int = 250
    patience: int = 8
    classifier_max_steps: int = 10_000
    denoiser: str = field(default="", metadata=IN_USE)
    classifier: str = field(default="", metadata=IN_USE)
    classifier_checkpoint: str = field(default="", metadata=IN_USE)

    def __post_init__(self) -> None:
        check_pairs(self, ("classifier_checkpoint", "classifier"))
        if not self.denoiser and sigma_to_model(self.sigma) > self.sigma_max:
            raise UsageError(
                f"sigma {self.sigma:g} is time {sigma_to_model(self.sigma):g}, beyond sigma_max {self.sigma_max:g}; "
                "train with a larger sigma_max"
            )
        if not 1 <= self.first_scales <= self.last_scales:
            raise UsageError(
                f"first_scales is {self.first_scales} and last_scales {self.last_scales}, expected "
                "1 <= first_scales <= last_scales"
            )

    def own_denoiser(self) -> ConsistencyModel:
        """Return our small consistency model of these sizes with random weights."""
        unet = small_unet(self.task, self.channels, self.patch)
        return ConsistencyModel(unet, patch=self.patch, sigma_max=self.sigma_max)


def scales_at(step: int, config: Config) -> int:
    """Return N - 1 at a training step: first_scales, doubled every `double_every` steps up to last_scales."""
    doublings = min(step // config.double_every, config.last_scales.bit_length())
    return min(config.first_scales * 2**doublings, config.last_scales)


class ConsistencyTraining(Supervised[ConsistencyModel]):
    """Consistency training (arXiv 2303.01469, Algorithm 3) at neighbouring times, drawn uniformly from the grid.

    The score is what the model is for: held-out accuracy of model + classifier, the mean over several sigmas.
    """

    def __init__(
        self, config: Config, model: ConsistencyModel, classifier: nn.Module, job: TrainingJob
    ) -> None:
        super().__init__(model)
        self.config, self.classifier = config, classifier
        self.images, self.labels = job.held_out()

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        generator = batch.generator
        x = to_model_units(augment(batch.x, self.config.task, generator))
        z = torch.randn(x.shape, generator=generator, device=x.device)
        grid = karras_grid(scales_at(batch.step, self.config) + 1, self.config.sigma_max).to(x)
        later = torch.randint(len(grid) - 1, (len(x),), generator=generator, device=x.device)
        return training_loss(self.network, x, z, (grid[later], grid[later + 1]))

    def score(self, average: nn.Module) -> float:
        """Return the held-out accuracy of the averaged model with the classifier."""
        return denoised_accuracy(average, self.classifier, self.images, self.labels)


foreign_files, backbone_of = names.foreign_files, names.backbone_of


def checkpoint_name(config: Config) -> str | None:
    """Return the file name of the checkpoint that `config` needs, one for all sigmas; None where no part is ours."""
    return None if config.denoiser and config.classifier else file_name("consistency-model", config.backbone)


def build(config: Config, checkpoint: Path | None) -> DenoisedClassifier:
    """Return the classifier on CPU in eval mode; parts of our own get the checkpoint's weights (random for None).

    Raises:
        CheckpointError: a file is unreadable or holds another model.
        UsageError: a consistency model or classifier that does not fit the images or classes.
    """
    method = _own_parts(config)
    load_own(method, checkpoint, [part for part in ("denoiser", "classifier") if getattr(config, part)])
    if config.denoiser:
        method.denoiser = load_consistency_model(config.denoiser, config.task)
    if config.classifier:
        method.classifier = classifier_of(config)
    return method.eval()


def _own_parts(config: Config) -> DenoisedClassifier:
    """Return the method with random weights in the parts that are ours, and nothing in place of the others."""
    denoiser = nn.Identity() if config.denoiser else config.own_denoiser()
    classifier = nn.Identity() if config.classifier else config.backbone.make(config.task, config.sigma)
    return DenoisedClassifier(denoiser, classifier)


def train(config: Config, job: TrainingJob) -> None:
    """Train the classifier on clean images, then the consistency model, each until its held-out score stops rising."""
    own = replace(config, denoiser="", classifier="", classifier_checkpoint="")
    with seeded_initialisation(job.seed):
        method = _own_parts(own)
    model = method.denoiser
    assert isinstance(model, ConsistencyModel)
    classifier = train_classifier(
        method.classifier, config.backbone, config, config.classifier_max_steps, job
    )
    objective = ConsistencyTraining(own, model, classifier.network, job)
    fitted = fit(stage_name("consistency-model", config.backbone), objective, own, job)
    described = {"channels": config.channels, "patch": config.patch, "sigma_max": config.sigma_max}
    save_checkpoint(
        job.folder / file_name("consistency-model", config.backbone),
        DenoisedClassifier(fitted.network, classifier.network).state_dict(),
        config={"method": "consistency-model", **described, "backbone": config.backbone.name},
        training=provenance(job, classifier, fitted),
    )
