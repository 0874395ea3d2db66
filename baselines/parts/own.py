"""Denoisers and classifiers that `bench train` wrote, as parts of another method."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from baselines.networks.consistency_map import ConsistencyModel
from baselines.networks.unet import Denoiser, small_unet
from bench.errors import CheckpointError, ModelError, UsageError, shown
from bench.smoothing.classifiers import in_eval_mode
from bench.smoothing.sigma import sigma_to_model, to_model_units, to_pixel_units
from bench.training.checkpoints import load_weights
from bench.training.released import load_with_arch
from bench.types import Backbone, Denoiser as Denoises, Task

SUFFIX = ".safetensors"


def load_classifier(path: Path, backbone: Backbone, task: Task, sigma: float) -> nn.Module:
    """Return the classifier of a file of ours, that of a purifier's file being its part, in eval mode.

    Raises:
        CheckpointError: the file is unreadable or holds another model than `backbone`.
    """
    _, tensors = load_with_arch(path)
    of_clean_images = part(tensors, "classifier")
    network = backbone.make(task, 0.0 if of_clean_images else sigma)
    load_weights(network, of_clean_images or tensors, path)
    return network.eval()


def load_denoiser(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], task: Task, path: Path
) -> Denoiser | ConsistencyModel:
    """Return the denoiser of a file of `bench train dds` or `bench train consistency-model`, in eval mode.

    Args:
        tensors, config: the file's.

    Raises:
        CheckpointError: the file holds no denoiser of ours, or one of another size, or tells no size.
    """
    if config.get("method") not in ("dds", "consistency-model"):
        raise CheckpointError(
            f"{path} is a checkpoint of {config.get('method')}, which has no denoiser; name another."
        )
    channels, patch, length = _sizes(config, path)
    made: Denoiser | ConsistencyModel
    if config["method"] == "dds":
        made = Denoiser(task, channels, patch=patch, steps=int(length))
    else:
        made = ConsistencyModel(small_unet(task, channels, patch), patch=patch, sigma_max=length)
    load_weights(made, part(tensors, "denoiser"), path)
    return made.eval()


def _sizes(config: Mapping[str, Any], path: Path) -> tuple[tuple[int, ...], int, float]:
    """Return the channels, the patch, and the steps or the latest time of a denoiser of ours.

    Raises:
        CheckpointError: one of them is missing, or none that a denoiser has.
    """
    channels: Any = config.get("channels")
    patch: Any = config.get("patch")
    name = "steps" if config["method"] == "dds" else "sigma_max"
    length: Any = config.get(name)
    are_channels = (
        isinstance(channels, list) and 0 < len(channels) <= 8 and all(_is_size(one, 8) for one in channels)
    )
    is_length = (
        _is_size(length) if name == "steps" else type(length) in (int, float) and 0 < length < math.inf
    )
    if not are_channels or not _is_size(patch) or not is_length:
        raise CheckpointError(
            f"{path} says channels {shown(channels)}, patch {shown(patch)} and {name} {shown(length)}, which no "
            "denoiser has; train it again, or name another."
        )
    return tuple(channels), patch, length


def _is_size(value: object, factor: int = 1) -> bool:
    """Return whether a value is a whole number from 1 to LARGEST that a factor divides."""
    return type(value) is int and 0 < value <= LARGEST and value % factor == 0


LARGEST = 10**4
"""Channels, sides and steps of a denoiser of ours, at most."""

CONTRACT = "(x_noisy, sigma_model, keys) -> x_hat of the same shape, in [-1,1] (bench.types.Denoiser)"


class GivenDenoiser(nn.Module):
    """A denoiser of the user's own, a module or a function that meets `bench.types.Denoiser`, in pixel units."""

    def __init__(self, source: str, denoiser: Denoises) -> None:
        super().__init__()
        self.source, self.denoiser = source, denoiser

    def denoise_pixels(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return denoised pixels in [0,1] for x_noisy (B,C,H,W) in pixel units with noise of deviation sigma.

        Raises:
            ModelError: the user's denoiser returns something else than images of that shape.
        """
        x_hat = self.denoiser(to_model_units(x_noisy), sigma_to_model(sigma), keys)
        if not isinstance(x_hat, Tensor) or x_hat.shape != x_noisy.shape:
            shape = tuple(x_hat.shape) if isinstance(x_hat, Tensor) else type(x_hat).__name__
            raise ModelError(f"{self.source} gave {shape} for {tuple(x_noisy.shape)}, expected {CONTRACT}")
        return to_pixel_units(x_hat)


def given_denoiser(source: str, made: Any) -> GivenDenoiser:
    """Return what a user's function made as a denoiser, in eval mode.

    Raises:
        UsageError: it cannot be called as a denoiser is.
    """
    try:
        inspect.signature(made.forward if isinstance(made, nn.Module) else made).bind(None, None, None)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{source} returned a {type(made).__name__}, expected a denoiser: {CONTRACT}"
        ) from error
    return in_eval_mode(GivenDenoiser(source, made))


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of one part, without its name; {} where there are none."""
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
