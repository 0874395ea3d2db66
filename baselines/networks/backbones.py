"""Networks of noisy images by name: ours, and timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from baselines.networks.lenet import LENET
from baselines.networks.resnet import RESNET, normalised, padded_backbone, residual_backbone
from bench.training.checkpoints import load_state, load_weights
from bench.types import Backbone, Task


def backbone(name: str) -> Backbone | None:
    """Return a network by name, or None for an unknown one.

    "resnet" is a ResNet-14 of the CIFAR form, "cifar_resnet110" and so on are others of that form
    ("cifar_resnet110a" with padded shortcuts), "lenet" is for 28x28 images, and any other name is timm's.

    Raises:
        UsageError: a CIFAR ResNet of a depth that none has.
    """
    if (ours := own_backbone(name)) is not None:
        return ours
    if name not in backbone_names():
        return None
    return Backbone(name=name, make=lambda task, sigma: _timm_model(name, task))


def own_backbone(name: str) -> Backbone | None:
    """Return a network of our own making by name, None for timm's and for an unknown one.

    Raises:
        UsageError: a CIFAR ResNet of a depth that none has.
    """
    if name in (RESNET.name, LENET.name):
        return RESNET if name == RESNET.name else LENET
    if (found := re.fullmatch(r"cifar_resnet([0-9]{1,4})(a?)", name)) is None:  # deeper ones are damage
        return None
    return (padded_backbone if found[2] else residual_backbone)(name, int(found[1]))


def load_published(network: nn.Module, path: Path, name: str) -> None:
    """Load a published state dict into the network called `name`, which the file itself does not tell.

    Names may lack what is put before the network here, and may call its last layer `linear`.

    Raises:
        CheckpointError: the file is unreadable, or holds another network.
    """
    tensors, _ = load_state(path)
    expected = network.state_dict()
    plain = {re.sub(r"(^|(?<=^1\.))module\.", "", key): value for key, value in tensors.items()}
    forms = [{f"{before}{key}": value for key, value in plain.items()} for before in ("", "1.")]
    forms += [
        {re.sub(r"(^|\.)linear\.", r"\1fc.", key): value for key, value in form.items()} for form in forms
    ]
    nearest = max(forms, key=lambda form: len(expected.keys() & form.keys()))
    load_weights(network, {**_counts(expected), **nearest}, path)


def _counts(expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the counts of batches, which old files lack and no classification needs."""
    return {name: value for name, value in expected.items() if name.endswith(".num_batches_tracked")}


def backbone_names() -> list[str]:
    """Return the names that `backbone` knows, one CIFAR ResNet standing for all."""
    import timm

    return [RESNET.name, "cifar_resnet110", "cifar_resnet110a", LENET.name, *timm.list_models()]


def _timm_model(name: str, task: Task) -> nn.Module:
    """Return pixels -> normalised -> timm's model with random weights, for the task's shape."""
    import timm

    sizes = {"in_chans": task.channels, "num_classes": task.num_classes}
    try:
        model = timm.create_model(name, **sizes, img_size=task.image_size)
    except TypeError:  # convolutional networks take images of any size, and no img_size
        model = timm.create_model(name, **sizes)
    return normalised(model, task)
