"""Networks of noisy images by name: ours, and timm's."""

from __future__ import annotations

import re

from torch import nn

from baselines.networks.lenet import LENET
from baselines.networks.resnet import RESNET, normalised, residual_backbone
from bench.types import Backbone, Task


def backbone(name: str) -> Backbone | None:
    """Return a network by name, or None for an unknown one.

    "resnet" is a ResNet-14 of the CIFAR form, "cifar_resnet110" and so on are others of that form, "lenet" is for
    28x28 images, and any other name is timm's.

    Raises:
        UsageError: a CIFAR ResNet of a depth that none has.
    """
    if name in (RESNET.name, LENET.name):
        return RESNET if name == RESNET.name else LENET
    if re.fullmatch(r"cifar_resnet[0-9]{1,4}", name):  # deeper ones are a name in a file that is damaged
        return residual_backbone(name, int(name.removeprefix("cifar_resnet")))
    if name not in backbone_names():
        return None
    return Backbone(name=name, make=lambda task, sigma: _timm_model(name, task))


def backbone_names() -> list[str]:
    """Return the names that `backbone` knows, one CIFAR ResNet standing for all."""
    import timm

    return [RESNET.name, "cifar_resnet110", LENET.name, *timm.list_models()]


def _timm_model(name: str, task: Task) -> nn.Module:
    """Return pixels -> normalised -> timm's model with random weights, for the task's shape."""
    import timm

    sizes = {"in_chans": task.channels, "num_classes": task.num_classes}
    try:
        model = timm.create_model(name, **sizes, img_size=task.image_size)
    except TypeError:  # convolutional networks take images of any size, and no img_size
        model = timm.create_model(name, **sizes)
    return normalised(model, task)
