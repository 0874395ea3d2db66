"""Denoisers and classifiers that `bench train` wrote, as parts of another method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from baselines.networks.consistency_map import ConsistencyModel
from baselines.networks.unet import Denoiser, small_unet
from bench.errors import CheckpointError
from bench.training.checkpoints import load_weights, load_with_arch
from bench.types import Backbone, Task

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


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of one part, without its name; {} where there are none."""
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
