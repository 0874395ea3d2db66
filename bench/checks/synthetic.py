"""Classifiers whose smoothed class and true radius are known in closed form, for testing certifiers.

Each answers 1 inside a region of image space and 0 outside it (the labeller ignores the image), so that under
N(0, sigma^2 I) the probability of class 1 at distance s from the image is a formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import optimize, special, stats
from torch import Tensor

from bench.smoothing.certifier import Smoothed
from bench.smoothing.philox import SPLITMIX_STEP, shifted, signed, splitmix64
from bench.types import Classifier

SHAPE = (1, 4, 4)
"""Shape (C, H, W) of the synthetic image."""

DIMENSIONS, NUM_CLASSES = 16, 2


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """A classifier of two classes with its truth at one image and one sigma.

    Attributes:
        name: what it is.
        x: (1, 4, 4) float32 in [0,1].
        label: the smoothed classifier's class at x; ABSTAIN where both are equally likely.
        radius: the largest L2 radius, in pixel units, within which the smoothed class stays; may be infinite.
    """

    name: str
    classifier: Classifier
    x: Tensor
    sigma: float
    label: int
    radius: float

    def smoothed(self, batch_size: int) -> Smoothed:
        """Return the classifier under its noise."""
        return Smoothed(
            classifier=self.classifier, sigma=self.sigma, num_classes=NUM_CLASSES, batch_size=batch_size
        )


def half_space(distance: float, sigma: float) -> Synthetic:
    """Return a half-space whose border is `distance` > 0 away: class 1 has probability Phi(distance / sigma)."""
    return _region("half-space", lambda along, _: along + distance, sigma, distance)


def slab(width: float, sigma: float) -> Synthetic:
    """Return the points between two planes, `width` away on either side.

    At s along the normal class 1 has probability Phi((width - s) / sigma) - Phi((-width - s) / sigma); the true
    radius is the s at which that is 1/2.

    Raises:
        ValueError: width is too small for class 1 to be the smoothed one.
    """

    def probability(s: float) -> float:
        return float(special.ndtr((width - s) / sigma) - special.ndtr((-width - s) / sigma))

    return _region("slab", lambda along, _: width - along.abs(), sigma, _half_point(probability, width))


def ball(size: float, sigma: float) -> Synthetic:
    """Return a ball of radius `size` around the image.

    At distance s from its centre class 1 has the probability that a noncentral chi-square variable of 16
    degrees of freedom and noncentrality (s / sigma)^2 lies below (size / sigma)^2.

    Raises:
        ValueError: size is too small for class 1 to be the smoothed one.
    """

    def probability(s: float) -> float:
        return float(stats.ncx2.cdf((size / sigma) ** 2, DIMENSIONS, max((s / sigma) ** 2, 1e-12)))

    return _region("ball", lambda _, length: size - length, sigma, _half_point(probability, size))


def labeller(probability: float, sigma: float) -> Synthetic:
    """Return a classifier that ignores the image and says 1 with this probability, drawn from each sample's key."""

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        assert keys is not None
        is_one = uniform_of(keys) < probability
        return torch.stack([~is_one, is_one], 1).float()

    label = int(probability > 0.5) if probability != 0.5 else -1
    return Synthetic(
        name="labeller",
        classifier=classify,
        x=_image(),
        sigma=sigma,
        label=label,
        radius=0.0 if label == -1 else math.inf,
    )


def tails(sigma: float) -> Synthetic:
    """Return a classifier that says 1 unless a coordinate, or a pair of them, lies further out than TAIL.

    A pair of independent normal coordinates does with probability exp(-TAIL^2 / 2); one drawn by Box and Muller's
    transform from 24-bit uniforms, as torch does on a CPU, never does, since such a pair ends at sqrt(48 ln 2) = 5.768.
    The image is so wide that class 1 has probability TAIL_SHARE. What gets class 1 is convex and symmetric about the
    image, so that its probability is even less everywhere else (Anderson's theorem): class 0 holds at every distance.
    """
    x = torch.full((1, TAIL_PAIRS, 2), 0.5)

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        # The pairs of torch's generator are the i-th and (i + 8)-th of each 16 values.
        pairs = (one.view(-1, 2, 8) - 0.5 for one in x_noisy)
        margin = TAIL * sigma - torch.stack([pair.square_().sum(1).amax() for pair in pairs]).sqrt()
        return torch.stack([torch.zeros_like(margin), margin], 1)

    return Synthetic(name="tails", classifier=classify, x=x, sigma=sigma, label=0, radius=math.inf)


TAIL, TAIL_SHARE = 5.77, 0.45
TAIL_PAIRS = math.ceil(-math.log(TAIL_SHARE) * math.exp(TAIL**2 / 2) / 8) * 8
"""How many pairs of coordinates all lie within TAIL, in units of sigma, with probability TAIL_SHARE."""


def uniform_of(keys: Tensor) -> Tensor:
    """Return float64 values in [0,1), one per int64 key, that look independent (the mixer of splitmix64)."""
    return shifted(splitmix64(keys * signed(SPLITMIX_STEP)), 11).double() / 2.0**53


def _image() -> Tensor:
    return torch.full(SHAPE, 0.5)


def _region(name: str, inside: Callable[[Tensor, Tensor], Tensor], sigma: float, radius: float) -> Synthetic:
    """Return class 1 where `inside` > 0, given the offset's length along the normal and its whole length."""
    x = _image()
    normal = torch.full((DIMENSIONS,), DIMENSIONS**-0.5)

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        offset = (x_noisy - x.to(x_noisy.device)).flatten(1)
        margin = inside(offset @ normal.to(x_noisy.device), offset.norm(dim=1))
        return torch.stack([torch.zeros_like(margin), margin], 1)

    return Synthetic(name=name, classifier=classify, x=x, sigma=sigma, label=1, radius=radius)


def _half_point(probability: Callable[[float], float], most: float) -> float:
    """Return the distance at which a falling probability is 1/2."""
    if probability(0.0) <= 0.5:
        raise ValueError(f"class 1 has probability {probability(0.0):.3f} at the image, expected above 1/2")
    return float(optimize.brentq(lambda s: probability(s) - 0.5, 0.0, most, xtol=1e-12))
