"""Networks for bfloat16 autocast: weights are cast once, not in every call, and logits are computed in float32.

torch's own cache of casts ends with each outermost autocast, and so with each batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bench.device.linear import OneDNNLinear

COPIES = ("weight_bfloat16", "bias_bfloat16")
"""Names of the buffers that hold what autocast would make of a layer's weight and bias."""


class CastOnce(nn.Module):
    """What makes a layer give its bfloat16 copies as `weight` and `bias` where autocast would cast them.

    Under these names, since some networks call the operation with them without calling the layer. Elsewhere they are
    the parameters, so that a float32 part inside a network stays one.
    """

    @property
    def weight(self) -> Tensor:
        """The weight, or its copy in bfloat16."""
        return self._cast("weight")

    @property
    def bias(self) -> Tensor | None:
        """The bias, or its copy in bfloat16; None where the layer has none."""
        return None if self._parameters["bias"] is None else self._cast("bias")

    def _cast(self, name: str) -> Tensor:
        own = self._parameters[name]
        assert own is not None
        kind = own.device.type
        if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16:
            copy = self._buffers[f"{name}_bfloat16"]
            assert copy is not None
            return copy
        return own


class _Head(nn.Linear):
    """A linear layer that computes in float32, whatever autocast surrounds it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


_CAST: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(f"CastOnce{kind.__name__}", (CastOnce, kind), {})
    for kind in (nn.Linear, OneDNNLinear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
}


def prepare_for_bfloat16(module: nn.Module, num_classes: int) -> None:
    """Make a network ready for bfloat16 autocast, in place; without autocast it computes what it did before.

    Linear layers and convolutions keep a copy of their weights in bfloat16 beside them, and compute what they would
    compute without it. Linear layers with an output for each class, which give the logits, compute in float32: rounded
    to 8 bits, the largest two logits are often equal, and the lower class would be predicted. Layers of classes that
    are derived from torch's stay as they are, and so do those whose weight is computed in each call, as by
    `spectral_norm`: autocast casts theirs. The weights must not change afterwards.

    Args:
        module: on its device, in its memory format.
        num_classes: columns of the logits.
    """
    for layer in module.modules():
        if type(layer) in (nn.Linear, OneDNNLinear) and layer.out_features == num_classes:
            layer.__class__ = _Head
        elif _owns_weights(layer) and layer.weight.dtype == torch.float32:
            for name, own in list(layer.named_parameters(recurse=False)):
                layer.register_buffer(f"{name}_bfloat16", own.detach().to(torch.bfloat16), persistent=False)
            layer.__class__ = _CAST[type(layer)]


def _owns_weights(layer: nn.Module) -> bool:
    return type(layer) in _CAST and dict(layer.named_parameters(recurse=False)).keys() <= {"weight", "bias"}


def copied_bytes(module: nn.Module) -> int:
    """Return the bytes of all copies in bfloat16 that a network keeps."""
    return sum(copy.numel() * copy.element_size() for copy in _copies(module))


def _copies(module: nn.Module) -> Iterator[Tensor]:
    return (copy for name, copy in module.named_buffers() if name.rpartition(".")[2] in COPIES)
