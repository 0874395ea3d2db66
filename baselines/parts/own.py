"""Denoisers and classifiers that `bench train` wrote, as parts of another method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.networks.consistency_map import ConsistencyModel
from baselines.networks.unet import Denoiser, small_unet
from bench.errors import CheckpointError, UsageError
from bench.smoothing.sigma import sigma_to_model, to_model_units, to_pixel_units
from bench.training.checkpoints import load_weights, load_with_arch
from bench.types import Backbone, Task
from bench.types import Denoiser as Denoises

SUFFIX = ".safetensors"


def load_classifier(path: Path, backbone: Backbone, task: Task, sigma: float) -> nn.Module:
    """Return the classifier of a file of ours, that of a purifier's file being its part, in eval mode.

    Raises:
        CheckpointError: the file is unreadable or holds another model than `backbone`.
    """
    _, tensors = load_with_arch(path)
    network = backbone.make(task, sigma)
    load_weights(network, part(tensors, "classifier") or tensors, path)
    return network.eval()


def load_denoiser(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], task: Task, path: Path
) -> Denoiser | ConsistencyModel:
    """Return the denoiser of a file of `bench train dds` or `bench train consistency-model`, in eval mode.

    Args:
        tensors, config: the file's.

    Raises:
        CheckpointError: the file holds no denoiser of ours, or one of another size.
    """
    if config.get("method") not in ("dds", "consistency-model"):
        raise CheckpointError(
            f"{path} is a checkpoint of {config.get('method')}, which has no denoiser; name another."
        )
    channels, patch = tuple(config["channels"]), config["patch"]
    made: Denoiser | ConsistencyModel
    if config["method"] == "dds":
        made = Denoiser(task, channels, patch=patch, steps=config["steps"])
    else:
        made = ConsistencyModel(small_unet(task, channels, patch), patch=patch, sigma_max=config["sigma_max"])
    load_weights(made, part(tensors, "denoiser"), path)
    return made.eval()


class GivenDenoiser(nn.Module):
    """A denoiser of the user's own, a module or a function that meets `bench.types.Denoiser`, in pixel units."""

    def __init__(self, denoiser: Denoises) -> None:
        super().__init__()
        self.denoiser = denoiser

    def denoise_pixels(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return denoised pixels in [0,1] for x_noisy (B,C,H,W) in pixel units with noise of deviation sigma."""
        x_hat = self.denoiser(to_model_units(x_noisy), sigma_to_model(sigma), keys)
        return to_pixel_units(x_hat)


def given_denoiser(source: str, made: Any, task: Task) -> GivenDenoiser:
    """Return what a user's function made as a denoiser in eval mode, tried on one image.

    Raises:
        UsageError: it is no denoiser, or gives images of another shape.
    """
    contract = "(x_noisy, sigma_model, keys) -> x_hat of the same shape, in [-1,1] (bench.types.Denoiser)"
    x = torch.zeros(1, task.channels, task.image_size, task.image_size)
    if not callable(made):
        raise UsageError(f"{source} returned a {type(made).__name__}, expected a denoiser: {contract}")
    denoiser = GivenDenoiser(made).eval()
    try:
        with torch.no_grad():
            found = denoiser.denoise_pixels(x, 0.5, torch.zeros(1, dtype=torch.long))
    except (TypeError, AttributeError) as error:
        raise UsageError(f"{source} failed on one image ({error}), expected {contract}") from error
    if found.shape != x.shape:
        raise UsageError(f"{source} gave {tuple(found.shape)} for {tuple(x.shape)}, expected {contract}")
    return denoiser


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of one part, without its name; {} where there are none."""
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
