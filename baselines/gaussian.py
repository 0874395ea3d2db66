"""Gaussian augmentation (Cohen et al. 2019, arXiv 1902.02918): cross entropy on x + noise, one network per sigma."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from baselines import noisy, recipes
from bench.train import TrainingJob


@dataclass(frozen=True, kw_only=True)
class Config(noisy.Config):
    """Options of Gaussian augmentation: the network and the recipe of its training."""


NAMED_OPTIONS, TRAINING_NAMES = recipes.named_options(Config), recipes.TRAINING_NAMES
backbone_of = noisy.backbone_of


def expand(config: Config) -> Config:
    """Return the configuration with the values of its named recipe; see `recipes.expand`."""
    return recipes.expand("gaussian", config)


def checkpoint_name(config: Config) -> str:
    """Return the file name of the checkpoint that `config` needs."""
    return noisy.checkpoint_name("gaussian", config)


def build(config: Config, checkpoint: Path | None) -> noisy.NoisyClassifier:
    """Return the classifier on CPU in eval mode; see `noisy.build`."""
    return noisy.build(config, checkpoint)


def train(config: Config, job: TrainingJob) -> None:
    """Train until held-out noisy accuracy stops rising, and write the checkpoint."""
    noisy.train("gaussian", config, noisy.mean_cross_entropy, 1, job)
