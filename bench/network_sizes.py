"""Parameters and floating-point operations of networks, counted from shapes alone on the meta device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.types import Network


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """Parameters of a network's parts, and its operations per image.

    Attributes:
        image: (channels, height, width) that the operations are counted at.
        projector: 0 where the network has none; likewise head.
        flops: of matrix products, convolutions and attention, a multiplication and an addition counting as two.
    """

    name: str
    image: tuple[int, int, int]
    body: int
    projector: int
    head: int
    flops: int


def measure(network: Network) -> NetworkSize:
    """Return the parameters and the operations of one image's forward pass; no value is computed."""
    task = network.task
    image = (task.channels, task.image_size, task.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.forward(torch.empty(1, *image, device="meta"))
    return NetworkSize(
        name=network.name,
        image=image,
        body=_parameters(network.body),
        projector=_parameters(network.projector),
        head=_parameters(network.head),
        flops=counter.get_total_flops(),
    )


def _parameters(module: nn.Module | None) -> int:
    return 0 if module is None else sum(value.numel() for value in module.parameters())
