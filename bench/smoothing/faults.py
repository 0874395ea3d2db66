"""What a model's own error means, in one line: weights of another type, images of another shape, another device."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import ModelError
from bench.types import Classifier

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
