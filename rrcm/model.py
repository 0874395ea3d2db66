"""rRCM as a method of the harness (arXiv 2501.13094): its options, its classifier, its training in two stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from bench.checkpoints import load_checkpoint, load_weights
from bench.train import TrainingJob, seeded_initialisation
from bench.types import Task
from rrcm import finetune, pretrain
from rrcm.encoder import Encoder, EncoderConfig
from rrcm.heads import Classifier


@dataclass(frozen=True, kw_only=True)
class Config(finetune.Recipe):
    """Options of rRCM: sizes of the encoder, the recipe of fine-tuning, and that of pre-training (`pretrain_*`).

    Attributes:
        layernorm: whether the classifier reads h after the last LayerNorm.
        pretrain_steps: 0 = fine-tune from random weights.
    """

    task: Task
    sigma: float
    patch_size: int = 7
    embed_dim: int = 128
    depth: int = 4
    num_heads: int = 4
    hidden_dim: int = 512
    output_dim: int = 128
    layernorm: bool = True
    pretrain_steps: int = 1500
    pretrain_batch_size: int = 256
    pretrain_learning_rate: float = 1e-3

    @property
    def encoder(self) -> EncoderConfig:
        """Sizes of the encoder for the task."""
        return EncoderConfig(
            image_size=self.task.image_size,
            patch_size=self.patch_size,
            in_channels=self.task.channels,
            embed_dim=self.embed_dim,
            depth=self.depth,
            num_heads=self.num_heads,
            hidden_dim=self.hidden_dim,
            output_dim=self.output_dim,
        )

    @property
    def pretraining(self) -> pretrain.Recipe:
        """Recipe of the pre-training stage."""
        return pretrain.Recipe(
            max_steps=self.pretrain_steps,
            batch_size=self.pretrain_batch_size,
            learning_rate=self.pretrain_learning_rate,
        )


class FixedSigma(nn.Module):
    """The classifier at one sigma, as a network of noisy pixels alone: a backbone for the baselines."""

    def __init__(self, classifier: Classifier, sigma: float) -> None:
        super().__init__()
        self.classifier, self.sigma = classifier, sigma

    def forward(self, x_noisy: Tensor) -> Tensor:
        """Return logits (B,K) for x_noisy (B,C,H,W) in pixel units."""
        return self.classifier(x_noisy, self.sigma)


def make_backbone(task: Task, sigma: float) -> FixedSigma:
    """Return rRCM's encoder and head with random weights, told the time of sigma, for training by a baseline."""
    return FixedSigma(build(Config(task=task, sigma=sigma), None), sigma)


def checkpoint_name(config: Config) -> str:
    """Return the file name of the checkpoint that `config` needs."""
    return f"rrcm_sigma_{config.sigma:g}.safetensors"


def build(config: Config, checkpoint: Path | None) -> Classifier:
    """Return the classifier on CPU in eval mode, with the checkpoint's weights (random ones for None).

    Raises:
        CheckpointError: the file is unreadable or holds another model.
    """
    classifier = Classifier(Encoder(config.encoder), config.task.num_classes, layernorm=config.layernorm)
    if checkpoint is not None:
        tensors, _ = load_checkpoint(checkpoint)
        load_weights(classifier, tensors, checkpoint)
    return classifier.eval()


def train(config: Config, job: TrainingJob) -> None:
    """Pre-train the encoder if its checkpoint is not there yet, fine-tune it at sigma, and write the checkpoint."""
    encoder = pretrain.load_or_train(config.encoder, config.pretraining, job)
    with seeded_initialisation(job.seed):
        classifier = Classifier(encoder, config.task.num_classes, layernorm=config.layernorm)
    finetune.finetune(classifier, config, config.sigma, checkpoint_name(config), job)
