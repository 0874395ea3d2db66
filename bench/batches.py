"""What a training run is given, and the images of each of its steps.

The batch, the augmentation and the noise of step k come from generators seeded by (seed, k), never from a global one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bench import data, processes
from bench.noise import stable_seed
from bench.types import Split


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a training run tells while it goes on; `score` is the best held-out value so far, if one is measured."""

    stage: str
    step: int
    max_steps: int
    loss: float
    seconds: float
    score: float | None


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Where a training run takes its images from, where it keeps its state, and whom it tells.

    Attributes:
        split: the training split; `train_indices` and `held_out_indices` part it (the test split plays no part).
        folder: where finished checkpoints go: <zoo>/<dataset>.
        workspace: where the state to resume from lies until the checkpoint is finished.
        command: the command line, kept in the checkpoint.
        max_seconds: wall time of each stage after which the best weights so far are kept; None = no limit.
        checkpoint_every: steps after which the state is saved between looks at the held-out part; None = at looks only.
    """

    split: Split
    train_indices: Tensor
    held_out_indices: Tensor
    folder: Path
    workspace: Path
    device: torch.device
    seed: int
    command: str
    max_seconds: float | None = None
    checkpoint_every: int | None = None
    report: Callable[[Progress], None] = field(default=lambda progress: None)

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Return the held-out images (N,C,H,W) in [0,1] and their labels (N,), on the device."""
        return images_and_labels(self.split, self.held_out_indices, self.device)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's images (B,C,H,W) in [0,1], labels (B,), and the generators of all else that is drawn in the step.

    Attributes:
        x, labels: this process's share of the batch.
        generator: of what differs from image to image, and so from process to process.
        shared: of what all images have in common; gives all processes the same. The same generator for one process.
    """

    x: Tensor
    labels: Tensor
    step: int
    generator: torch.Generator
    shared: torch.Generator


def training_batch(job: TrainingJob, batch_size: int, step: int) -> Batch:
    """Return the batch of step `step`: consecutive pieces of one seeded permutation per epoch.

    Raises:
        UsageError: several processes, and a batch that they cannot share evenly.
    """
    count = len(job.train_indices)
    size = min(batch_size, count)
    epoch, position = divmod(step, count // size)
    order = torch.randperm(count, generator=seeded(torch.device("cpu"), job.seed, "order", epoch))
    chosen = job.train_indices[processes.share(order[position * size : (position + 1) * size])]
    x, labels = images_and_labels(job.split, chosen, job.device)
    generator = shared = seeded(job.device, job.seed, "step", step)
    if processes.count() > 1:
        generator = seeded(job.device, job.seed, "step", step, "process", processes.rank())
    return Batch(x=x, labels=labels, step=step, generator=generator, shared=shared)


def images_and_labels(split: Split, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the images (B,C,H,W) in [0,1] at `indices` (B,) and their labels (B,), on `device`."""
    images, labels = data.batch(split, indices)
    return images.to(device), labels.to(device)


def seeded(device: torch.device, *parts: object) -> torch.Generator:
    """Return a generator on `device` whose stream depends on the parts alone."""
    return torch.Generator(device).manual_seed(stable_seed(*parts))
