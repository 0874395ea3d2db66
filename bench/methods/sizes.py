"""Parameters and floating-point operations of networks, counted from shapes alone on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.training.architectures import Architecture, Network


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


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Parameters of a whole method and its operations for one noisy sample, counted as in `NetworkSize`."""

    parameters: int
    flops: int


def workloads(architectures: Iterable[Architecture], sigma: float) -> dict[str, Workload]:
    """Return each method's parameters and the operations of one sample, all votes and reverse steps included.

    A network that several methods share, or that one calls again and again, is run once and its count added again.
    """
    shared = _Counted()
    return {one.name: shared.workload(one, sigma) for one in architectures}


class _Counted:
    """Counts operations on the meta device; it keeps each large network, and its count for each shape of input."""

    def __init__(self) -> None:
        self._networks: dict[str, nn.Module] = {}
        self._repeated = 0

    def workload(self, architecture: Architecture, sigma: float) -> Workload:
        """Return the workload of one method."""
        self._repeated, task = 0, architecture.task
        classifier = architecture.build(self._make).to("meta").eval()
        x = torch.empty(1, task.channels, task.image_size, task.image_size, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as self._counter:
            classifier(x, sigma, torch.zeros(1, dtype=torch.int64))
        return Workload(
            parameters=_parameters(classifier), flops=self._counter.get_total_flops() + self._repeated
        )

    def _make(self, name: str, function: Callable[[], nn.Module]) -> nn.Module:
        if name not in self._networks:
            with torch.device("meta"):
                network = function()
            network.forward = self._counted_once(network.forward)
            self._networks[name] = network
        return self._networks[name]

    def _counted_once(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        known: dict[torch.Size, tuple[Any, int]] = {}

        def run(x: Tensor, *others: Any) -> Any:
            if x.shape in known:
                output, flops = known[x.shape]
                self._repeated += flops
                return output
            before = self._counter.get_total_flops()
            output = forward(x, *others)
            known[x.shape] = output, self._counter.get_total_flops() - before
            return output

        return run


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
