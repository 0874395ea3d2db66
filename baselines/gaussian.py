"""Gaussian augmentation (Cohen et al. 2019, arXiv 1902.02918): cross entropy on x + noise, one network per sigma."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from baselines.noisy import classifier, recipes
from bench.training.loop import TrainingJob


@dataclass(frozen=True, kw_only=True)
class Config(classifier.Config):
    """Options of Gaussian augmentation: the network and the recipe of its training."""


NAMED_OPTIONS, TRAINING_NAMES = recipes.named_options(Config), recipes.TRAINING_NAMES
backbone_of = classifier.backbone_of


def expand(config: Config) -> Config:
    """Return the configuration with the values of its named recipe; see `recipes.expand`."""
    return recipes.expand("gaussian", config)


def checkpoint_name(config: Config) -> str:
    """Return the file name of the checkpoint that `config` needs."""
    return classifier.checkpoint_name("gaussian", config)


def build(config: Config, checkpoint: Path | None) -> classifier.NoisyClassifier:
    """Return the classifier on CPU in eval mode; see `noisy.build`."""
    return classifier.build(config, checkpoint)


def train(config: Config, job: TrainingJob) -> None:
    """Train until held-out noisy accuracy stops rising, and write the checkpoint."""
    classifier.train("gaussian", config, classifier.mean_cross_entropy, 1, job)
