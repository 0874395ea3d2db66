"""Makes the methods that `bench cost` measures: networks with random weights on one device, compiled or not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import get_args

import torch
from torch import nn

from bench.cost.plan import COMPILED
from bench.cost.records import CostRun
from bench.cost.work import random_stream
from bench.device.batching import is_out_of_memory, shortest_seconds
from bench.device.precision import LAYOUTS, NotCompiledError, layout
from bench.device.timing import Instruments
from bench.runs.stream import Stream
from bench.smoothing.classifiers import in_eval_mode
from bench.smoothing.noise import seeded_initialisation
from bench.training.architectures import Architecture, Make
from bench.types import Layout


class Workshop:
    """Networks on one device with random weights, each made once, so that methods share them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._networks: dict[tuple[str, torch.memory_format], nn.Module] = {}

    def plain(
        self,
        name: str,
        function: Callable[[], nn.Module],
        precision: str = "float32",
        laid_out: Layout | None = None,
    ) -> nn.Module:
        """Return the network of a name, in eval mode; made by `function` where it is new.

        Args:
            laid_out: None: by the rule for a precision.
        """
        same = [network for (other, _), network in self._networks.items() if other == name]
        if not same:
            with seeded_initialisation(0), self.device:
                network = function()
        else:
            network = same[0]
        wanted = LAYOUTS[laid_out] if laid_out else layout(network, self.device.type, precision)
        if (name, wanted) not in self._networks:
            network = copy.deepcopy(network) if same else network
            moved = network.to(self.device, memory_format=wanted)  # type: ignore[call-overload]
            self._networks[name, wanted] = in_eval_mode(moved)
        return self._networks[name, wanted]

    def maker(self, setting: str, laid_out: Layout | None = None) -> Make:
        """Return what makes networks for a setting, under torch.compile, one program for each batch size, or not."""
        precision = setting.removesuffix(COMPILED)
        if precision == setting:
            return partial(self.plain, precision=precision, laid_out=laid_out)

        def compiled(name: str, function: Callable[[], nn.Module]) -> nn.Module:
            plain = self.plain(name, function, precision, laid_out)
            try:
                network: nn.Module = torch.compile(plain, dynamic=False)  # type: ignore[assignment]
            except Exception as error:  # such as a Python that it does not know
                raise NotCompiledError(error) from error
            return network

        return compiled

    def method(
        self, one: Architecture, setting: str, sigma: float, laid_out: Layout | None = None
    ) -> tuple[nn.Module, Stream]:
        """Return a method in a setting, ready to classify, and the stream of samples that it is measured on."""
        module = in_eval_mode(one.build(self.maker(setting, laid_out)).to(self.device))
        side = one.task.image_size
        precision = setting.removesuffix(COMPILED)
        shape = (one.task.channels, side, side)
        stream = random_stream(module, precision, shape, one.task.num_classes, sigma)  # type: ignore[arg-type]
        return module, stream


def seconds_by_layout(
    one: Architecture, setting: str, sigma: float, batch_size: int, device: torch.device, meters: Instruments
) -> dict[str, float]:
    """Return the shortest seconds of a batch of a method under each layout that fits into memory.

    Its networks are made for that alone, so that those of one layout are gone when the other's are made.

    Raises:
        RuntimeError: none fits.
    """

    def seconds(laid_out: Layout) -> float:
        _, stream = Workshop(device).method(one, setting, sigma, laid_out)
        return shortest_seconds(stream.work(batch_size), meters)

    found: dict[str, float] = {}
    for laid_out in get_args(Layout):
        try:
            found[laid_out] = seconds(laid_out)
        except RuntimeError as error:
            is_last = laid_out == get_args(Layout)[-1]
            if not is_out_of_memory(error) or (is_last and not found):
                raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def measured_layout(run: CostRun, method: str, setting: str) -> Layout | None:
    """Return the layout that was measured to be the fastest, also for a compiled setting; None where none was tried."""
    eager = setting.removesuffix(COMPILED)
    fastest = (one.fastest for one in run.layouts if (one.method, one.setting) == (method, eager))
    return next(fastest, None)
