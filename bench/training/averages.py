"""Networks that follow another: averaged weights, target encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average's parameters towards the network's (average = decay average + (1 - decay) network).

    Buffers, such as batch-norm statistics, are copied.
    """
    move_parameters(average, network, 1 - decay)
    if buffers := list(network.buffers()):
        torch._foreach_copy_(list(average.buffers()), buffers)


@torch.no_grad()
def move_parameters(kept: nn.Module, towards: nn.Module, rate: float) -> None:
    """Move a module's parameters by a share of the way to another's, all in one operation."""
    values: list[Tensor] = list(towards.parameters())
    moved: list[Tensor] = list(kept.parameters())
    assert len(values) == len(moved)
    if values:
        torch._foreach_lerp_(moved, values, rate)
