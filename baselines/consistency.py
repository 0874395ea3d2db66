"""Consistency regularization (Jeong & Shin 2020, arXiv 2006.04062): noisy copies of an image must agree."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.noisy import classifier
from baselines.noisy.method import NoisyMethod


@dataclass(frozen=True, kw_only=True)
class Config(classifier.Config):
    """Options of consistency regularization.

    Attributes:
        copies: noisy copies m of each image.
        weight: lambda of Eq. 6, the weight of the agreement term; None = 10 at sigma 0.25 and 5 above (MNIST).
        entropy_weight: eta of Eq. 6.
        batch_size: half of the images that one copy of each would allow, so that a step has the same noisy images.
    """

    batch_size: int = 64
    copies: int = 2
    weight: float | None = None
    entropy_weight: float = 0.5

    @property
    def agreement(self) -> float:
        """Weight of the agreement term at this sigma."""
        return agreement_weight(self.sigma) if self.weight is None else self.weight


def agreement_weight(sigma: float) -> float:
    """Return lambda of Eq. 6 for small grey images at a noise level: that of the paper's MNIST."""
    return 10.0 if sigma <= 0.25 else 5.0


def regularisation(copies: list[Tensor], *, weight: float, entropy_weight: float) -> Tensor:
    """Return weight * mean_j KL(q || p_j) + entropy_weight * H(q), the mean over the batch (arXiv 2006.04062, Eq. 6).

    Args:
        copies: m tensors of logits (B,K), one per noisy copy; p_j is the softmax of copy j, q the mean of all p_j.
    """
    log_p = torch.stack([F.log_softmax(logits, dim=1) for logits in copies])
    log_q = torch.logsumexp(log_p, dim=0) - math.log(len(copies))
    q = log_q.exp()
    entropy = -(q * log_q).sum(dim=1)
    divergence = (q * (log_q - log_p)).sum(dim=2).mean(dim=0)
    return (weight * divergence + entropy_weight * entropy).mean()


def consistency_loss(copies: list[Tensor], labels: Tensor, *, weight: float, entropy_weight: float) -> Tensor:
    """Return the mean cross entropy over all copies plus the regularisation (arXiv 2006.04062, Eq. 7)."""
    cross_entropy = classifier.mean_cross_entropy(copies, labels)
    return cross_entropy + regularisation(copies, weight=weight, entropy_weight=entropy_weight)


METHOD = NoisyMethod(
    name="consistency",
    Config=Config,
    loss=lambda config: functools.partial(
        consistency_loss, weight=config.agreement, entropy_weight=config.entropy_weight
    ),
)
