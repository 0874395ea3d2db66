"""The baselines' networks by name, for counting their parameters and operations."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from baselines.dds import Config
from baselines.networks.lenet import lenet
from baselines.networks.resnet import resnet
from bench.types import Network, Task

_MNIST = Task(dataset="mnist5k", channels=1, image_size=28, num_classes=10)
_CIFAR10 = Task(dataset="cifar10", channels=3, image_size=32, num_classes=10)

RESNETS = (("resnet", 14, _MNIST), ("cifar_resnet20", 20, _CIFAR10), ("cifar_resnet110", 110, _CIFAR10))
"""(name, layers, data) of the residual networks that are counted."""


def networks() -> Iterator[Network]:
    """Yield LeNet, the residual networks and the denoiser of diffusion denoised smoothing, on the meta device."""
    with torch.device("meta"):
        yield _classifier("lenet", _MNIST, lenet(_MNIST), "fc2")
        for name, depth, task in RESNETS:
            yield _classifier(name, task, resnet(task, depth), "fc")
    with torch.device("meta"):
        denoiser = Config(task=_MNIST, sigma=0.5).own_denoiser().eval()

    def predict_noise(x: Tensor) -> Tensor:
        return denoiser.predict(x, x.new_zeros(len(x), dtype=torch.long))

    yield Network(name="dds (denoiser)", task=_MNIST, body=denoiser, forward=predict_noise)


def _classifier(name: str, task: Task, network: nn.Module, head_name: str) -> Network:
    """Return a classifier's parts: its last layer, and all else."""
    parts = dict(network.get_submodule("1").named_children())
    head = parts.pop(head_name)
    return Network(
        name=name, task=task, body=nn.ModuleList(parts.values()), head=head, forward=network.eval()
    )
