"""Linear layers in float32 on a CPU: by oneDNN where MKL, which torch takes for them, uses half of the processor.

MKL computes with 256 bits at once on AMD's processors, also on those that have 512. oneDNN, which torch takes for
convolutions, uses what there is, and made ViT-B/16 twice as fast on a fifth-generation EPYC (results/cost). A
transformer, whose time goes into linear layers, would look slow beside a convolutional network there for no reason of
its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.utils.flop_counter import flop_registry, register_flop_formula

from bench.device.host import cpu_info


class OneDNNLinear(nn.Linear):
    """A linear layer that oneDNN computes in float32, where no derivative is wanted; torch computes all else."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b for x (..., in_features), with other last bits than torch's own."""
        weight, bias = self.weight, self.bias
        is_followed = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()
        if is_followed or torch.is_autocast_enabled("cpu") or not _can_compute(x, weight, bias):
            return super().forward(x)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product


def _can_compute(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether oneDNN's operation, which checks nothing, computes what torch's would."""
    if not (_is_plain(x) and _is_plain(weight) and x.ndim and x.shape[-1] == weight.shape[1] > 0):
        return False
    return bias is None or (_is_plain(bias) and bias.is_contiguous() and bias.shape == weight.shape[:1])


def _is_plain(one: Tensor) -> bool:
    """Return whether a tensor is one of dense float32 numbers on the CPU, without a tangent (forward derivatives)."""
    return (
        type(one) in (Tensor, nn.Parameter)
        and one.device.type == "cpu"
        and one.dtype == torch.float32
        and one.layout == torch.strided
        and unpack_dual(one).tangent is None
    )


def use_onednn(module: nn.Module) -> None:
    """Have oneDNN compute the linear layers of a network, in place, where that is faster on this machine.

    Layers of classes that are derived from torch's stay as they are, and so do operations that use a layer's weight
    without calling it. The choice is one of the processor, not of a trial, so that certificates come out again.
    """
    if not is_faster():
        return
    operation = torch.ops.mkldnn._linear_pointwise
    if operation not in flop_registry:
        register_flop_formula(operation)(_operations)
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = OneDNNLinear
        elif (
            getattr(part, "qkv_bias_separate", True) is False
        ):  # timm's BEiT: else it does not call its layer
            part.qkv_bias_separate = True  # type: ignore[assignment]


@functools.cache
def is_faster() -> bool:
    """Return whether oneDNN computes linear layers faster than MKL: on AMD's processors with AVX-512."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and cpu_info("vendor_id") == "AuthenticAMD"
    )


def computed_by() -> str:
    """Return which library computes linear layers in float32 on the CPU, in words."""
    return "oneDNN" if is_faster() else "torch"


def _operations(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """Return the operations of a linear layer from the shapes of its operands, as torch counts its own."""
    return 2 * math.prod(x) * weight[0]
