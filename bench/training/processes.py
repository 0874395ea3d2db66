"""Several processes that train one network together, each with its share of every batch.

They share negatives, batch-norm statistics and gradients, so that W processes take the step that one process with the
whole batch takes. With one process every function gives back what it got.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import UsageError


@contextmanager
def joined(started: int, *, on_cpu: bool) -> Iterator[None]:
    """Join the `started` processes of `accelerate launch` for the length of the block; nothing happens for one.

    On GPUs each process gets its own as the current device.

    Raises:
        UsageError: there are several, and accelerate is not installed.
    """
    if started == 1:
        yield
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise UsageError(
            f"{started} processes were started, but accelerate is missing: pip install 'rrcm-bench[distributed]'"
        ) from error
    PartialState(cpu=on_cpu)
    try:
        yield
    finally:
        dist.destroy_process_group()


def count() -> int:
    """Return the number W of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, 0 to W - 1."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Return whether this is the process that writes and prints."""
    return rank() == 0


def meet() -> None:
    """Return when every process has come here."""
    if count() > 1:
        dist.barrier()


def share(items: Tensor) -> Tensor:
    """Return this process's consecutive part of a batch's items (B, ...), (B/W, ...).

    Raises:
        UsageError: B is no multiple of W.
    """
    size, left = divmod(len(items), count())
    if left:
        raise UsageError(
            f"{len(items)} images cannot be shared by {count()} processes: give a batch_size that is a multiple of it"
        )
    return items[rank() * size : (rank() + 1) * size]


def gather(x: Tensor) -> Tensor:
    """Return the rows of all processes, (W*B, ...) for x (B, ...), those of process r at r*B; differentiable.

    The gradient of a row is the sum over the processes of what each one's loss gives it, so that gradients averaged by
    `average_gradients` are those of the mean loss.
    """
    return x if count() == 1 else _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(count())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return share(total)


def mean(value: Tensor) -> Tensor:
    """Return the mean of `value` over the processes, without gradient."""
    return value.detach() if count() == 1 else gather(value.detach()[None]).mean(dim=0)


def of_first(value: float, device: torch.device) -> float:
    """Return the first process's `value`: on what decides how training goes on, all must agree to the last bit."""
    if count() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return float(shared)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if count() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    pieces = (flat / count()).split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def share_statistics(module: nn.Module) -> None:
    """Make the batch norms below `module` train on the statistics of all processes' batches; one process: nothing.

    Names in the state dict stay the same.
    """
    if count() == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, shared_batch_norm(child, child.weight.device if child.affine else None))
        else:
            share_statistics(child)


def shared_batch_norm(norm: _BatchNorm, device: torch.device | None) -> _BatchNorm:
    """Return a batch norm over all processes: torch's own on CUDA, which takes two messages, else ours."""
    if device is None or device.type != "cuda":
        return SharedBatchNorm(norm)
    shared = nn.SyncBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    shared._parameters, shared._buffers = norm._parameters, norm._buffers
    return shared.train(norm.training)


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes, where torch's SyncBatchNorm, of CUDA alone, cannot be.

    Every process must bring as many values. Takes over the parameters and buffers of `norm`.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B,C,...) normalised per channel, then scaled and shifted."""
        if not self.training:
            return super().forward(x)
        dims = [0, *range(2, x.ndim)]
        shape = (1, -1, *[1] * (x.ndim - 2))
        average = gather(x.float().mean(dims)[None]).mean(dim=0)
        centred = x.float() - average.view(shape)
        variance = gather(centred.square().mean(dims)[None]).mean(dim=0)
        self._track(average.detach(), variance.detach(), count() * x.numel() // x.shape[1])
        y = centred * (variance + self.eps).rsqrt().view(shape)
        return y * self.weight.view(shape) + self.bias.view(shape) if self.affine else y

    @torch.no_grad()
    def _track(self, average: Tensor, variance: Tensor, values: int) -> None:
        """Move the running statistics towards these, the variance without bias, as torch does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(average, self.momentum)
        self.running_var.lerp_(variance * values / (values - 1), self.momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of dimensions."""
