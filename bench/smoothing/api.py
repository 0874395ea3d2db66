"""Certify or predict one image with a model of your own, in five lines:

from bench import certify, from_module
classifier = from_module(model)                           # noisy pixels (B, C, H, W) -> logits (B, K)
certificate = certify(classifier, image, sigma=0.5)       # image (C, H, W) float32 in [0,1]
print(certificate.predict, certificate.radius)            # -1 means abstention
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import ModelError
from bench.smoothing.certifier import Smoothed, smoothed_of
from bench.smoothing.classifiers import as_classifier, check_shape, from_module, modes_kept, not_a_tensor
from bench.smoothing.counting import check_images, checked_sigma
from bench.types import Certificate, Classifier, Protocol

__all__ = ["certify", "from_module", "predict"]

Model = Classifier | nn.Module
"""What is certified: a module of noisy pixels alone is a classifier too."""


def certify(
    classifier: Model,
    image: Tensor,
    *,
    sigma: float,
    n0: int = Protocol.n0,
    n: int = Protocol.n,
    alpha: float = Protocol.alpha,
    seed: int = Protocol.seed,
    index: int = 0,
    batch_size: int = 256,
) -> Certificate:
    """Return the certificate of one image: `Smoothed.certify` with defaults, classes counted from one call.

    Papers use n = 100,000 on CIFAR-10 and 10,000 on ImageNet: the default of 1,000 is quick and as safe, and
    certifies smaller radii.

    Args:
        classifier: a torch module or a callable of noisy pixels (B, C, H, W), or of (x_noisy, sigma, keys). A module
            is in eval mode meanwhile, and then in the mode that it had.
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
        DataError, UsageError, ModelError, NumericalError: as in `Smoothed.certify`.
    """
    protocol = Protocol(n0=n0, n=n, alpha=alpha, seed=seed)
    with modes_kept(classifier):
        return smoothed(classifier, image, sigma, batch_size).certify(image, index, protocol)


def predict(
    classifier: Model,
    image: Tensor,
    *,
    sigma: float,
    n: int = Protocol.n,
    alpha: float = Protocol.alpha,
    seed: int = Protocol.seed,
    index: int = 0,
    batch_size: int = 256,
) -> int:
    """Return the smoothed class of one image, or ABSTAIN (-1): `Smoothed.predict` with defaults.

    Args, Raises: as in `certify`.
    """
    protocol = Protocol(n0=1, n=n, alpha=alpha, seed=seed)
    with modes_kept(classifier):
        return smoothed(classifier, image, sigma, batch_size).predict(image, index, protocol)


def smoothed(model: Model, image: Tensor, sigma: float, batch_size: int = 256) -> Smoothed:
    """Return a model under noise, its classes counted from one call on an image.

    Args, Raises: as in `certify`.
    """
    check_images([image])
    sigma = checked_sigma(sigma)
    classifier = as_classifier(model, "the model", "is")
    columns = _count_columns(explained(classifier, model), image, sigma)
    return smoothed_of(classifier, _prepared, sigma=sigma, num_classes=columns, batch_size=batch_size)


def _prepared(classifier: Classifier) -> Classifier:
    """Return the classifier, called outside of inference mode: what it keeps of a call can be trained with later."""

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return classifier(x_noisy.clone(), sigma, None if keys is None else keys.clone())

    return explained(classify)


@torch.no_grad()
def _count_columns(classifier: Classifier, image: Tensor, sigma: float) -> int:
    x = image[None].clone()  # a network may write into its input
    logits = classifier(x, sigma, torch.zeros(1, dtype=torch.int64, device=image.device))
    if not isinstance(logits, Tensor):
        raise ModelError(not_a_tensor(logits, "(B, K)"))
    if logits.ndim != 2:
        raise ModelError(f"the classifier must return logits of shape (B, K), got {tuple(logits.shape)}")
    if logits.shape[1] == 1:
        raise ModelError(
            "the classifier must return a logit for each of two classes or more, got 1 column: of a single logit z "
            "return two, torch.cat([torch.zeros_like(z), z], 1)"
        )
    check_shape(logits, 1, logits.shape[1])
    return logits.shape[1]


FAULTS = (RuntimeError, AssertionError, ValueError)
"""What torch, and the checks in models' own code, raise on inputs that do not fit."""

OTHER_TYPE = re.compile(r"dtype|(Double|Half|BFloat16)|Input type .* should be the same")
CHANNELS = re.compile(r"to have (\d+) channels, but got (\d+) channels")
OTHER_SHAPE = re.compile(
    r"shapes cannot be multiplied|size mismatch|Sizes of tensors must match|[Kk]ernel size can't be greater|"
    r"must match the size|Input (height|width|size)|Output size is too small|invalid for input of size"
)
OTHER_DEVICE = re.compile(r"same device|Input type \(torch\.cuda|to be on cpu|to be on cuda")


def explained(classifier: Classifier, network: Any = None) -> Classifier:
    """Return the classifier; an error of its own that means a known fault becomes a ModelError of one line.

    Args:
        network: the module behind it, whose weights tell their type; any other object tells nothing.
    """

    def classify(x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        try:
            return classifier(x_noisy, sigma, keys)
        except FAULTS as error:
            told = _meaning(str(error), network, x_noisy)
            if told is None:
                raise
            raise ModelError(f"the classifier cannot take the noisy images: {told}") from error

    return classify


def _meaning(text: str, network: Any, x: Tensor) -> str | None:
    """Return what an error's text means, with the remedy; None where it is no known fault."""
    _, channels, height, width = x.shape
    short, images = " ".join(text.split())[:200], f"{channels}x{height}x{width}"
    if OTHER_DEVICE.search(text):
        return (
            f"its weights are not on {x.device}, where the images are ({short}): let the function return the torch "
            "module itself, which is moved there, or give --device cpu"
        )
    if OTHER_TYPE.search(text) and (types := _types(network) - {x.dtype} or _types_in(text)):
        names = ", ".join(sorted(str(one).removeprefix("torch.") for one in types))
        return (
            f"its weights are {names}, and the images are {str(x.dtype).removeprefix('torch.')}: call .float() on the "
            "model where it is made"
        )
    if (found := CHANNELS.search(text)) and int(found[2]) == channels:
        repeat = f", or repeat the channel before it, x.repeat(1, {found[1]}, 1, 1)" if channels == 1 else ""
        first = f"its first layer takes {found[1]} channels"
        return f"{first}, and the images are {images}: use a model of such images{repeat}"
    if OTHER_SHAPE.search(text):
        return f"a layer of it does not fit images of {images} ({short}): use a model of such images"
    return None


def _types(network: Any) -> set[torch.dtype]:
    if not isinstance(network, nn.Module):
        return set()
    return {one.dtype for one in network.parameters() if one.is_floating_point()}


def _types_in(text: str) -> set[str]:
    names = {"Double": "float64", "double": "float64", "Half": "float16", "BFloat16": "bfloat16"}
    return {name for word, name in names.items() if re.search(rf"\b{word}\b|{word}Tensor|::{word}", text)}
