"""MACER (Zhai et al. 2020, arXiv 2001.02378): training for a large certified radius, without an attack."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.noisy import classifier
from baselines.noisy.method import NoisyMethod
from bench.errors import UsageError
from bench.training.loop import Batch


@dataclass(frozen=True, kw_only=True)
class Config(classifier.Config):
    """Options of MACER.

    Attributes:
        copies: noisy copies k of each image. Deviation: 4, where the paper has 16, which costs four times as much.
        weight: lambda, the weight of the radius; None = 6 at sigma 1 and 16 below (MNIST).
        batch_size: a quarter of the images that one copy of each would allow, so that a step has the same noisy images.
        margin: gamma, the radius (in units of sigma / 2) above which an image adds nothing.
        beta: inverse temperature of the softmax whose means are the radius's probabilities.
        weight_from: training step (epoch, where `epochs` count) before which lambda is 0.
    """

    batch_size: int = 32
    copies: int = 4
    weight: float | None = None
    margin: float = 8.0
    beta: float = 16.0
    weight_from: int = 300

    @property
    def radius_weight(self) -> float:
        """Weight of the radius at this sigma."""
        if self.weight is not None:
            return self.weight
        return 16.0 if self.sigma < 1 else 6.0

    def __post_init__(self) -> None:
        """Refuse numbers that are too small.

        Raises:
            UsageError: copies below 1, weight or weight_from below 0, margin or beta not above 0.
        """
        for name, least in (("copies", 1), ("weight", 0), ("weight_from", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise UsageError(f"{name} is {value:g}, expected at least {least}")
        for name in ("margin", "beta"):
            if (value := getattr(self, name)) <= 0:
                raise UsageError(f"{name} is {value:g}, expected a number above 0")


class MacerObjective(classifier.NoisyObjective):
    """The loss of the mean probabilities, and from a step on that of the radius."""

    config: Config

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        config = self.config
        copies = list(self.network(self.noisy_copies(batch)).float().chunk(self.copies))
        loss = self.copies_loss(copies, batch.labels)
        if batch.step < config.weight_from:
            return loss
        radius = radius_loss(copies, batch.labels, margin=config.margin, beta=config.beta)
        return loss + config.radius_weight * config.sigma / 2 * radius


def classification_loss(copies: list[Tensor], labels: Tensor) -> Tensor:
    """Return the mean over the batch of -log of the label's mean probability (arXiv 2001.02378, Algorithm 1).

    Deviation: the released program adds 1e-10 to that probability.

    Args:
        copies: k tensors of logits (B,K), one per noisy copy.
    """
    log_p = torch.stack([F.log_softmax(logits, dim=1) for logits in copies])
    log_mean = torch.logsumexp(log_p, dim=0) - math.log(len(copies))
    return F.nll_loss(log_mean, labels)


def radius_loss(copies: list[Tensor], labels: Tensor, *, margin: float, beta: float) -> Tensor:
    """Return the mean over the batch of max(0, margin - xi), 0 for wrong images (arXiv 2001.02378, Algorithm 1).

    xi = Phi^-1(p of the label) - Phi^-1(p of the runner-up) is the certified radius in units of sigma / 2, for p the
    mean over copies of softmax(beta logits). Images beyond the margin are left out before the derivative is taken,
    since that of Phi^-1 has no bound.
    """
    p = torch.stack([F.softmax(beta * logits, dim=1) for logits in copies]).mean(0)
    label = labels[:, None]
    others = p.scatter(1, label, 0.0)
    is_correct = p.gather(1, label)[:, 0] > others.amax(1)
    with torch.no_grad():
        counts = is_correct & (_xi(others) < margin)
    # Stands in for what is left out, which would have to be waited for to be chosen: its derivative is finite.
    even = torch.full_like(others, 0.5 / others.shape[1])
    radius = _xi(torch.where(counts[:, None], others, even))
    return torch.where(counts, margin - radius, 0.0).mean()


def _xi(others: Tensor) -> Tensor:
    """Return xi (B,) from the probabilities (B,K) of all classes but the label, whose own place holds 0."""
    return -torch.special.ndtri(others.sum(1)) - torch.special.ndtri(others.amax(1))


METHOD = NoisyMethod(
    name="macer",
    Config=Config,
    loss=lambda config: classification_loss,
    objective=MacerObjective,
    counted=("weight_from",),
)
