"""Linear layers in float32 on a CPU: by oneDNN where MKL, which torch takes for them, uses half of the processor.

MKL computes with 256 bits at once on AMD's processors, also on those that have 512. oneDNN, which torch takes for
convolutions, uses what there is: 0.26 instead of 0.11 TFLOP/s on a core of a fifth-generation EPYC. A transformer,
whose time goes into linear layers, would look slow beside a convolutional network there for no reason of its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from bench.device.host import cpu_info


class OneDNNLinear(nn.Linear):
    """A linear layer that oneDNN computes where it can; where a gradient or another type is wanted, torch as ever."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b for x (..., in_features), in float32 with other last bits than torch's own."""
        weight = self.weight
        is_plain = type(x) is Tensor and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
        is_changed = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
        if not is_plain or is_changed or torch.is_grad_enabled():
            return super().forward(x)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, self.bias, "none", [], "")
        return product


def use_onednn(module: nn.Module) -> None:
    """Have oneDNN compute the linear layers of a network, in place, where that is faster on this machine.

    Layers of classes that are derived from torch's stay as they are. The choice is one of the processor, not of a
    trial, so that certificates come out again.
    """
    if is_faster():
        for layer in module.modules():
            if type(layer) is nn.Linear:
                layer.__class__ = OneDNNLinear


@functools.cache
def is_faster() -> bool:
    """Return whether oneDNN computes linear layers faster than MKL: on AMD's processors with AVX-512."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and cpu_info("vendor_id") == "AuthenticAMD"
        and is_there()
    )


def computed_by() -> str:
    """Return which library computes linear layers in float32 on the CPU, in words."""
    return "oneDNN" if is_faster() else "torch"


@functools.cache
def is_there() -> bool:
    """Return whether torch has oneDNN's linear layer, and have its operations counted as those of torch's own."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False

    def operations(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        return 2 * math.prod(x) * weight[0]

    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(operations)
    return True
