"""A diffusion denoiser and a classifier of clean images, ours or others': options, checkpoint, training.

One checkpoint, that of `dds`, serves every method built of these parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.networks.diffusion import Chain, DiffusionDenoiser
from baselines.networks.resnet import RESNET
from baselines.networks.unet import Denoiser
from baselines.parts.external import classifier_of, load_denoiser
from baselines.purifiers.denoised import (
    DenoisedClassifier,
    check_pairs,
    denoised_accuracy,
    file_name,
    load_own,
    stage_name,
    train_classifier,
)
from bench.smoothing.sigma import to_model_units
from bench.training.augmentation import augment
from bench.training.checkpoints import save_checkpoint
from bench.training.loop import Batch, Recipe, Supervised, TrainingJob, fit, provenance, seeded_initialisation
from bench.training.recipes import IN_USE
from bench.types import Backbone, Task


@dataclass(frozen=True, kw_only=True)
class Config(Recipe):
    """Options of a diffusion denoiser and a classifier; the recipe is the denoiser's.

    Attributes:
        backbone: the classifier of clean images.
        channels: channels of the U-Net at each resolution.
        patch: side of the squares of pixels folded into channels before the U-Net.
        diffusion_steps: length T of the cosine schedule.
        classifier_max_steps: steps at most of the classifier's training, which shares the other options of the recipe.
        denoiser: "" is our own small one; else a .pt or .safetensors file of a released program, a diffusers
            pipeline's folder, "hub:owner/name", a file of `bench train dds`, or "module:function" of the user's own.
        denoiser_flags: flags of a released program, as on its command line, where the file does not tell them.
        classifier: "" is `backbone`; else timm's name of a classifier of clean images, with its own input size,
            "transformers:" and a folder or hub name, a safetensors file of ours, whose network takes the place of
            `backbone`, or "module:function" of the user's own.
        classifier_checkpoint: that classifier's weights; "" takes those that timm publishes.
        reverse_steps: network calls of the reverse chain; 1 is one-shot.
        reverse_eta: noise of the chain; 1 is the ancestral sampler's, 0 none.
    """

    task: Task
    sigma: float = field(metadata=IN_USE)
    backbone: Backbone = RESNET
    channels: tuple[int, ...] = (32, 64)
    patch: int = 2
    diffusion_steps: int = 1000
    ema_decay: float = 0.999
    evaluate_every: int = 250
    patience: int = 6
    classifier_max_steps: int = 10_000
    denoiser: str = field(default="", metadata=IN_USE)
    denoiser_flags: str = field(default="", metadata=IN_USE)
    classifier: str = field(default="", metadata=IN_USE)
    classifier_checkpoint: str = field(default="", metadata=IN_USE)
    reverse_steps: int = field(default=1, metadata=IN_USE)
    reverse_eta: float = field(default=1.0, metadata=IN_USE)

    def __post_init__(self) -> None:
        Chain(steps=self.reverse_steps, eta=self.reverse_eta)
        check_pairs(self, ("denoiser_flags", "denoiser"), ("classifier_checkpoint", "classifier"))

    def own_denoiser(self) -> Denoiser:
        """Return our small denoiser of these sizes with random weights."""
        return Denoiser(self.task, self.channels, patch=self.patch, steps=self.diffusion_steps)


class DenoiserObjective(Supervised[Denoiser]):
    """Mean squared error of the predicted noise at uniform time steps (arXiv 2006.11239, Eq. 14).

    The score is what the denoiser is for: held-out accuracy of denoiser + classifier, the mean over SCORED_SIGMAS.
    """

    def __init__(self, denoiser: Denoiser, classifier: nn.Module, job: TrainingJob) -> None:
        super().__init__(denoiser)
        self.classifier, self.task = classifier, job.split.task
        self.images, self.labels = job.held_out()

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        denoiser, generator = self.network, batch.generator
        x = to_model_units(augment(batch.x, self.task, generator))
        abar_of = denoiser.alphas_cumprod.to(x)
        timesteps = torch.randint(len(abar_of), (len(x),), generator=generator, device=x.device)
        eps = torch.randn(x.shape, generator=generator, device=x.device)
        abar = abar_of[timesteps].view(-1, 1, 1, 1)
        x_t = abar.sqrt() * x + (1 - abar).sqrt() * eps
        return F.mse_loss(denoiser.predict(x_t, timesteps).float(), eps)

    def score(self, average: nn.Module) -> float:
        """Return the held-out accuracy of the averaged denoiser with the classifier."""
        return denoised_accuracy(average, self.classifier, self.images, self.labels)


def checkpoint_name(config: Config) -> str | None:
    """Return the file name of the checkpoint that `config` needs, one for all sigmas; None where no part is ours."""
    return None if config.denoiser and config.classifier else file_name("dds", config.backbone)


def build(config: Config, checkpoint: Path | None) -> DenoisedClassifier:
    """Return the classifier on CPU in eval mode; parts of our own get the checkpoint's weights (random for None).

    Raises:
        CheckpointError: a file is unreadable or holds another model.
        UsageError: a denoiser or classifier that does not fit the images or classes.
    """
    method = _own_parts(config)
    load_own(method, checkpoint, [part for part in ("denoiser", "classifier") if getattr(config, part)])
    if config.denoiser:
        method.denoiser = load_denoiser(config.denoiser, config.denoiser_flags, config.task)
    if config.classifier:
        method.classifier = classifier_of(config)
    assert isinstance(method.denoiser, DiffusionDenoiser)
    method.denoiser.chain = Chain(steps=config.reverse_steps, eta=config.reverse_eta)
    return method.eval()


def _own_parts(config: Config) -> DenoisedClassifier:
    """Return the method with random weights in the parts that are ours, and nothing in place of the others."""
    denoiser = nn.Identity() if config.denoiser else config.own_denoiser()
    classifier = nn.Identity() if config.classifier else config.backbone.make(config.task, config.sigma)
    return DenoisedClassifier(denoiser, classifier)


def train(config: Config, job: TrainingJob) -> None:
    """Train the classifier on clean images, then the denoiser, each until its held-out score stops rising.

    Both are our own parts, and the denoiser is scored one-shot, so that one checkpoint serves every mixture.
    """
    own = replace(config, denoiser="", denoiser_flags="", classifier="", classifier_checkpoint="")
    with seeded_initialisation(job.seed):
        method = _own_parts(own)
    denoiser = method.denoiser
    assert isinstance(denoiser, Denoiser)
    classifier = train_classifier(
        method.classifier, config.backbone, config, config.classifier_max_steps, job
    )
    objective = DenoiserObjective(denoiser, classifier.network, job)
    fitted = fit(stage_name("dds_denoiser", config.backbone), objective, own, job)
    trained = DenoisedClassifier(fitted.network, classifier.network)
    described = {
        "method": "dds",
        "channels": config.channels,
        "patch": config.patch,
        "steps": config.diffusion_steps,
    }
    save_checkpoint(
        job.folder / file_name("dds", config.backbone),
        trained.state_dict(),
        config={**described, "backbone": config.backbone.name},
        training=provenance(job, classifier, fitted),
    )
