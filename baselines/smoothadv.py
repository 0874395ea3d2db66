"""SmoothAdv (Salman et al. 2019, arXiv 1906.04584): training on attacks of the smoothed classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.noisy import classifier
from baselines.noisy.method import NoisyMethod
from bench.errors import UsageError
from bench.training.loop import Batch


@dataclass(frozen=True, kw_only=True)
class Config(classifier.Config):
    """Options of SmoothAdv.

    Attributes:
        copies: noisy copies m, of which the attack and the training see the same.
        epsilon: L2 radius of the attack, in pixel units.
        attack_steps: gradient steps T of each attack.
        epsilon_warmup: training steps (epochs, where `epochs` count) over which epsilon grows to its value; 0 = none.
        max_steps, batch_size: as many forward passes in all as the other methods' small recipes have.
        epsilon_every: training steps (epochs, where `epochs` count) for which epsilon is held while it grows.
    """

    max_steps: int = 667
    batch_size: int = 32
    copies: int = 2
    epsilon: float = 1.0
    attack_steps: int = 2
    epsilon_warmup: int = 200
    epsilon_every: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that are too small.

        Raises:
            UsageError: copies, attack_steps or epsilon_every below 1, epsilon or epsilon_warmup below 0.
        """
        for name, least in _LEAST.items():
            if (value := getattr(self, name)) < least:
                raise UsageError(f"{name} is {value:g}, expected at least {least}")

    def epsilon_at(self, step: int) -> float:
        """Return the attack's radius at a training step, in pixel units: that of the end of the held steps.

        In epochs it is min(epsilon, (epoch + 1) epsilon / epsilon_warmup), as in the released program.
        """
        end = (step // self.epsilon_every + 1) * self.epsilon_every
        return self.epsilon * min(1.0, end / max(1, self.epsilon_warmup))


_LEAST = {"copies": 1, "epsilon": 0, "attack_steps": 1, "epsilon_warmup": 0, "epsilon_every": 1}
"""Option -> its smallest value."""


class AdversarialObjective(classifier.NoisyObjective):
    """The loss of noisy copies of each attacked image, the noise being that of the attack."""

    config: Config

    @property
    def forwards(self) -> float:
        """Forward passes per image and step: those of the loss, and as many for each step of the attack."""
        return super().forwards * (1 + self.config.attack_steps)

    def noisy_copies(self, batch: Batch) -> Tensor:
        """Return the copies that are classified, (copies B,C,H,W), all images' first copies first.

        The attack sees the network in eval mode, so that it leaves no trace in batch-norm statistics.
        """
        x = self.augmented(batch)
        noise = torch.randn((self.copies, *x.shape), generator=batch.generator, device=x.device) * self.sigma
        self.network.eval()
        epsilon = self.config.epsilon_at(batch.step)
        x = attack(self.network, (x, batch.labels), noise, epsilon=epsilon, steps=self.config.attack_steps)
        self.network.train()
        return (x + noise).flatten(0, 1)


def attack(
    network: nn.Module, images: tuple[Tensor, Tensor], noise: Tensor, *, epsilon: float, steps: int
) -> Tensor:
    """Return images that raise the smoothed classifier's loss: projected gradient ascent (arXiv 1906.04584, Eq. 6).

    Each step goes 2 epsilon / steps along the normalised gradient; the result lies within L2 distance epsilon, and in
    [0,1] as in the released program. Deviation: where the gradient is 0 an image stays, and is not moved at random.

    Args:
        network: noisy pixels -> logits.
        images: x (B,C,H,W) in [0,1] and labels (B,).
        noise: (m,B,C,H,W), what stands for the smoothing in every step.
    """
    x, labels = images
    point = x
    for _ in range(steps):
        moving = point.detach().requires_grad_(True)
        loss = smoothed_loss(network, moving + noise, labels).sum()
        gradient = torch.autograd.grad(loss, moving)[0]
        point = _project(point + 2 * epsilon / steps * _direction(gradient), x, epsilon)
    return point


def smoothed_loss(network: nn.Module, x_noisy: Tensor, labels: Tensor) -> Tensor:
    """Return -log of the label's mean probability over noisy copies (m,B,C,H,W), (B,) (arXiv 1906.04584, Eq. 6)."""
    copies = len(x_noisy)
    log_p = F.log_softmax(network(x_noisy.flatten(0, 1)).float(), dim=1)
    of_label = log_p.gather(1, labels.repeat(copies).unsqueeze(1)).view(copies, -1)
    return math.log(copies) - of_label.logsumexp(0)


def _project(point: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return the point pulled into [0,1], then into the ball around x, which keeps it in [0,1]."""
    offset = point.clamp(0, 1) - x
    return x + offset * (epsilon / _norm(offset)).clamp_max(1.0)


def _direction(gradient: Tensor) -> Tensor:
    """Return the gradient (B,C,H,W) of each image at L2 norm 1; zeros where it is 0.

    A network that is sure of an image has a gradient whose square is no float32: it is scaled up first, and nothing
    changes where the norm is 1e-12 or more.
    """
    is_small = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1) < 1e-12
    largest = gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
    gradient = torch.where(is_small, gradient / largest, gradient)
    return gradient / _norm(gradient)


def _norm(x: Tensor) -> Tensor:
    """Return the L2 norm of each image, at least 1e-12, (B,1,1,1)."""
    return x.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)


METHOD = NoisyMethod(
    name="smoothadv",
    Config=Config,
    loss=lambda config: classifier.mean_cross_entropy,
    objective=AdversarialObjective,
    counted=("epsilon_warmup", "epsilon_every"),
)
