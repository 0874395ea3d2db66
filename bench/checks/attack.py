"""An attack on the smoothed classifier inside an L2 ball: projected gradient ascent (arXiv 1906.04584, Eq. 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.device.batching import is_out_of_memory
from bench.device.hardware import as_float64
from bench.types import Classifier

INSIDE = 1 - 1e-6
"""Share of the radius that the attack uses, beside what rounding can add."""

HALF_ULP = 2.0**-25
"""Distance, at most, from a number in [0,1] to the nearest float32."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """How hard to try.

    Attributes:
        samples: noisy copies m that stand for the smoothed classifier in each step.
        steps: gradient steps of each restart.
        restarts: random starting points.
    """

    samples: int = 16
    steps: int = 10
    restarts: int = 2


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is attacked: the class `label` of image x (C,H,W) in [0,1] under noise `sigma`, within L2 `radius`."""

    x: Tensor
    label: int
    sigma: float
    radius: float


def attack(
    classifier: Classifier, target: Target, settings: Attack, generator: torch.Generator
) -> tuple[Tensor, bool]:
    """Return a point that the smoothed classifier is likely to get wrong, and whether gradients found it.

    Maximises -log of the mean probability of the class over m noisy copies. The point lies inside the ball and
    in [0,1]: clipping to the box moves no pixel away from x. Of all restarts it is the one with the highest
    loss on noise that none of them has seen. A classifier without gradients is attacked by its random starts.

    Args:
        classifier: from noisy pixels to logits, on the device of x.
        target: what to attack.
        settings: how hard.
        generator: of starts and noise, on the device of x.

    Returns:
        (C, H, W) float32 in [0,1] at L2 distance below the radius of x, and True where gradients were used.
    """
    noise = _noise(target, settings, generator)
    points, has_gradients = [], True
    for _ in range(settings.restarts):
        point = _project(target.x + _random_start(target, generator), target)
        for _ in range(settings.steps if has_gradients else 0):
            gradient = _gradient(classifier, point, target, _noise(target, settings, generator))
            if gradient is None:
                has_gradients = False
                break
            step = 2.5 * target.radius / settings.steps
            point = _project(point + step * gradient / gradient.norm().clamp_min(1e-12), target)
        points.append(point)
    with torch.no_grad():
        losses = torch.stack([_loss(classifier, point, target, noise) for point in points])
    return points[int(losses.argmax())], has_gradients


def _noise(target: Target, settings: Attack, generator: torch.Generator) -> Tensor:
    shape = (settings.samples, *target.x.shape)
    return target.sigma * torch.randn(shape, generator=generator, device=target.x.device)


def _random_start(target: Target, generator: torch.Generator) -> Tensor:
    """Return a random direction of a length uniform in [0, radius]."""
    direction = torch.randn(target.x.shape, generator=generator, device=target.x.device)
    length = target.radius * torch.rand((), generator=generator, device=target.x.device)
    return length * direction / direction.norm()


def _project(point: Tensor, target: Target) -> Tensor:
    """Return the point pulled into the ball, then into [0,1], which brings it no farther from x.

    Rounding to float32 moves a point by sqrt(dimensions) HALF_ULP at most; a ball no larger than that holds x alone.
    """
    x = as_float64(target.x)
    offset = as_float64(point) - x
    reach = max(0.0, INSIDE * target.radius - math.sqrt(x.numel()) * HALF_ULP)
    scale = (reach / offset.norm().clamp_min(1e-12)).clamp_max(1.0)
    return (x + scale * offset).clamp(0, 1).float().to(point.device)


def _loss(classifier: Classifier, point: Tensor, target: Target, noise: Tensor) -> Tensor:
    keys = torch.arange(len(noise), device=noise.device)
    logits = classifier(point + noise, target.sigma, keys).float()
    return -torch.logsumexp(logits.log_softmax(1)[:, target.label], 0)


def _gradient(classifier: Classifier, point: Tensor, target: Target, noise: Tensor) -> Tensor | None:
    """Return the gradient at a point; None where there is none, or one that is not finite."""
    with torch.enable_grad():
        moving = point.clone().requires_grad_(True)
        try:
            loss = _loss(classifier, moving, target, noise)
        except RuntimeError as error:  # such as of a classifier that computes in numpy
            if is_out_of_memory(error):
                raise
            _loss(classifier, point, target, noise)
            return None
        if not loss.requires_grad:  # with gradients of weights alone, autograd returns None for the point
            return None
        [found] = torch.autograd.grad(loss, moving, allow_unused=True)
    return found if found is not None and bool(found.isfinite().all()) else None
