"""Diffusion denoised smoothing (Carlini et al. 2022, arXiv 2206.10550): denoise once, then classify as if clean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from baselines.parts import names
from baselines.purifiers import diffusion_parts
from baselines.purifiers.denoised import DenoisedClassifier
from bench.training.loop import TrainingJob


@dataclass(frozen=True, kw_only=True)
class Config(diffusion_parts.Config):
    """Options of diffusion denoised smoothing: its two parts, and `reverse_steps` for the multi-step variant."""


foreign_files, backbone_of = names.foreign_files, names.backbone_of


def checkpoint_name(config: Config) -> str | None:
    """Return the file name of the checkpoint that `config` needs; see `diffusion_parts.checkpoint_name`."""
    return diffusion_parts.checkpoint_name(config)


def build(config: Config, checkpoint: Path | None) -> DenoisedClassifier:
    """Return the classifier on CPU in eval mode; see `diffusion_parts.build`."""
    return diffusion_parts.build(config, checkpoint)


def train(config: Config, job: TrainingJob) -> None:
    """Train both parts that are ours, and write the checkpoint; see `diffusion_parts.train`."""
    diffusion_parts.train(config, job)
