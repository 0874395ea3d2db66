"""Certify or predict one image with a model of your own, in five lines:

from bench import certify, from_module
classifier = from_module(model)                           # noisy pixels (B, C, H, W) -> logits (B, K)
certificate = certify(classifier, image, sigma=0.5)       # image (C, H, W) float32 in [0,1]
print(certificate.predict, certificate.radius)            # -1 means abstention
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.errors import ModelError
from bench.smoothing import certifier
from bench.smoothing.certifier import Protocol, check_image, from_module
from bench.types import Certificate, Classifier

__all__ = ["certify", "from_module", "predict"]


def certify(
    classifier: Classifier,
    image: Tensor,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
    index: int = 0,
    batch_size: int = 256,
) -> Certificate:
    """Return the certificate of one image: `smoothing.certify` with defaults, classes counted from one call.

    Papers use n = 100,000 on CIFAR-10 and 10,000 on ImageNet: the default of 1,000 is quick and as safe, and
    certifies smaller radii.

    Args:
        classifier: of noisy pixels, such as `from_module(model)`.
        image: (C, H, W) float32 in [0,1], on the device of the model.
        sigma: standard deviation of the noise in pixel units, > 0.
        n0: samples that select the class.
        n: samples that estimate its probability.
        alpha: probability that the certificate is wrong, at most.
        seed: seed of the noise.
        index: identity of the image; give each image its own for independent noise.
        batch_size: samples per call of the classifier.

    Returns:
        Class (ABSTAIN = -1 where nothing is certified), radius in pixel units and the counts behind them.

    Raises:
        DataError, UsageError, ModelError, NumericalError: as in `smoothing.certify`.
    """
    return certifier.certify(
        classifier,
        image,
        sigma=sigma,
        index=index,
        protocol=Protocol(n0=n0, n=n, alpha=alpha, seed=seed),
        batch_size=batch_size,
        num_classes=_count_columns(classifier, image, sigma),
    )


def predict(
    classifier: Classifier,
    image: Tensor,
    *,
    sigma: float,
    n: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
    index: int = 0,
    batch_size: int = 256,
) -> int:
    """Return the smoothed class of one image, or ABSTAIN (-1): `smoothing.predict` with defaults.

    Args, Raises: as in `certify`.
    """
    return certifier.predict(
        classifier,
        image,
        sigma=sigma,
        index=index,
        protocol=Protocol(n0=1, n=n, alpha=alpha, seed=seed),
        batch_size=batch_size,
        num_classes=_count_columns(classifier, image, sigma),
    )


@torch.inference_mode()
def _count_columns(classifier: Classifier, image: Tensor, sigma: float) -> int:
    check_image(image)
    logits = classifier(image[None], sigma, torch.zeros(1, dtype=torch.int64, device=image.device))
    if logits.ndim != 2:
        raise ModelError(f"the classifier must return logits of shape (B, K), got {tuple(logits.shape)}")
    return logits.shape[1]
