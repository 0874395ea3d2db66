"""Diffusion denoised smoothing (Carlini et al. 2022, arXiv 2206.10550): denoise once, then classify as if clean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.resnet import RESNET
from baselines.unet import Denoiser
from bench.augmentation import augment
from bench.checkpoints import load_checkpoint, load_weights, save_checkpoint
from bench.noise import to_model_units
from bench.train import (
    Batch,
    Recipe,
    Supervised,
    TrainingJob,
    fit,
    noisy_accuracy,
    provenance,
    seeded_initialisation,
)
from bench.types import Backbone, Task

SCORED_SIGMAS = (0.25, 0.5, 1.0)
"""Noise levels at which the denoiser is judged on held-out images while it trains; one denoiser serves all."""


@dataclass(frozen=True, kw_only=True)
class Config(Recipe):
    """Options of diffusion denoised smoothing; the recipe is the denoiser's.

    Attributes:
        backbone: the classifier of clean images.
        channels: channels of the U-Net at each resolution.
        patch: side of the squares of pixels folded into channels before the U-Net.
        diffusion_steps: length T of the cosine schedule.
        classifier_max_steps: steps at most of the classifier's training, whose other options are Recipe's defaults.
    """

    task: Task
    sigma: float
    backbone: Backbone = RESNET
    channels: tuple[int, ...] = (32, 64)
    patch: int = 2
    diffusion_steps: int = 1000
    ema_decay: float = 0.999
    evaluate_every: int = 250
    patience: int = 6
    classifier_max_steps: int = 10_000

    def denoiser(self) -> Denoiser:
        """Return a denoiser of these sizes with random weights."""
        return Denoiser(self.task, self.channels, patch=self.patch, steps=self.diffusion_steps)


class DiffusionDenoisedSmoothing(nn.Module):
    """Denoiser, then classifier of clean pixels."""

    def __init__(self, denoiser: Denoiser, classifier: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.classifier = denoiser, classifier

    def forward(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return logits (B,K) for x_noisy (B,C,H,W) in pixel units."""
        return self.classifier(self.denoiser.denoise_pixels(x_noisy, sigma, keys))


class CleanObjective(Supervised[nn.Module]):
    """Cross entropy on clean augmented images; the score is clean held-out accuracy."""

    def __init__(self, network: nn.Module, job: TrainingJob) -> None:
        super().__init__(network)
        self.task = job.split.task
        self.images, self.labels = job.held_out()

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        return F.cross_entropy(
            self.network(augment(batch.x, self.task, batch.generator)).float(), batch.labels
        )

    def score(self, average: nn.Module) -> float:
        """Return the averaged network's accuracy on clean held-out images."""
        return noisy_accuracy(average, self.images, self.labels, 0.0, draws=1)


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
        return F.mse_loss(denoiser.predict_noise(x_t, timesteps).float(), eps)

    @torch.no_grad()
    def score(self, average: nn.Module) -> float:
        """Return the held-out accuracy of the averaged denoiser with the classifier."""
        both = DiffusionDenoisedSmoothing(average, self.classifier)  # type: ignore[arg-type]
        accuracies = [
            noisy_accuracy(lambda x, s=sigma: both(x, s), self.images, self.labels, sigma, draws=1)  # type: ignore[misc]
            for sigma in SCORED_SIGMAS
        ]
        return sum(accuracies) / len(accuracies)


def checkpoint_name(config: Config) -> str:
    """Return the file name of the checkpoint that `config` needs: one for all sigmas."""
    backbone = "" if config.backbone.name == RESNET.name else f"-{config.backbone.name}"
    return f"dds{backbone}.safetensors"


def build(config: Config, checkpoint: Path | None) -> DiffusionDenoisedSmoothing:
    """Return the classifier on CPU in eval mode, with the checkpoint's weights (random ones for None).

    Raises:
        CheckpointError: the file is unreadable or holds another model.
    """
    method = DiffusionDenoisedSmoothing(config.denoiser(), config.backbone.make(config.task, config.sigma))
    if checkpoint is not None:
        tensors, _ = load_checkpoint(checkpoint)
        load_weights(method, tensors, checkpoint)
    return method.eval()


def train(config: Config, job: TrainingJob) -> None:
    """Train the classifier on clean images, then the denoiser, each until its held-out score stops rising."""
    with seeded_initialisation(job.seed):
        method = build(config, None)
    clean = replace(Recipe(), max_steps=config.classifier_max_steps, precision=config.precision)
    classifier = fit("dds_classifier", CleanObjective(method.classifier, job), clean, job)
    denoiser = fit("dds_denoiser", DenoiserObjective(method.denoiser, classifier.network, job), config, job)
    trained = DiffusionDenoisedSmoothing(denoiser.network, classifier.network)  # type: ignore[arg-type]
    described = {
        "method": "dds",
        "channels": config.channels,
        "patch": config.patch,
        "steps": config.diffusion_steps,
    }
    save_checkpoint(
        job.folder / checkpoint_name(config),
        trained.state_dict(),
        config={**described, "backbone": config.backbone.name},
        training=provenance(job, classifier, denoiser),
    )
