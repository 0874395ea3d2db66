"""What a network's first batch norm remembers of its training images, against what it sees now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.checks.doctor.trials import CONFIDENCE, Trial
from bench.device.hardware import as_float64

RESAMPLES = 400
"""Bootstrap samples of the images behind an interval."""

LEVEL_MARGIN = 2.0
"""A noise level is taken for another only if its mismatch is below half of the other's, intervals included:
augmentation (padding, crops) moves the moments a little, noise of another level a lot."""

SCALING_MARGIN = 4.0
"""The same for scalings, some of which lie closer to each other."""


class _Reached(Exception):  # noqa: N818 (no error: what lies behind the layer is not needed)
    """Ends a forward pass at the layer."""


def first_batch_norm(network: nn.Module, call: Callable[[], object]) -> nn.BatchNorm2d | None:
    """Return the first batch norm that kept running moments and that a call of the network reaches, or None."""
    reached: list[nn.BatchNorm2d] = []

    def note(layer: nn.Module, _: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.BatchNorm2d)
        reached.append(layer)
        raise _Reached

    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    handles = [layer.register_forward_pre_hook(note) for layer in layers if layer.running_mean is not None]
    try:
        with torch.inference_mode(), contextlib.suppress(_Reached):
            call() if handles else None
    finally:
        for handle in handles:
            handle.remove()
    return reached[0] if reached else None


def measure(
    layer: nn.BatchNorm2d, network: Callable[[Tensor], object], batches: Iterable[Tensor]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return per-image mean and mean square, (n, channels) each, of what the layer is given of each batch."""
    found: list[tuple[Tensor, Tensor]] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        h = as_float64(inputs[0].detach())
        found.append((h.mean(dim=(2, 3)).cpu(), h.square().mean(dim=(2, 3)).cpu()))
        raise _Reached

    handle = layer.register_forward_pre_hook(note)
    try:
        for batch in batches:
            with torch.inference_mode(), contextlib.suppress(_Reached):
                network(batch)
    finally:
        handle.remove()
    means, squares = zip(*found, strict=True)
    return torch.cat(means).numpy(), torch.cat(squares).numpy()


def mismatch(
    reading: str, layer: nn.BatchNorm2d, measured: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> Trial:
    """Return how far measured moments lie from the layer's running ones, with a bootstrap interval over images.

    The distance is the mean over channels of KL(N(m', v') || N(m, v)) in nats, m' and v' measured.
    """
    means, squares = measured
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, variance = layer.running_mean.cpu().double().numpy(), layer.running_var.cpu().double().numpy()
    count = len(means)
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    weights = np.concatenate([np.full((1, count), 1 / count), weights])
    m = weights @ means
    v = np.maximum(weights @ squares - m**2, 1e-30)
    ratio = v / (variance + layer.eps)
    divergence = 0.5 * (ratio - 1 - np.log(ratio) + (m - mean) ** 2 / (variance + layer.eps))
    score, *others = divergence.mean(axis=1)
    side = (1 - CONFIDENCE) / 2
    low, high = np.quantile(others, (side, 1 - side))
    return Trial(
        reading=reading,
        condition="batch-norm mismatch",
        score=float(score),
        low=float(min(low, score)),
        high=float(max(high, score)),
        images=count,
        lower_is_better=True,
    )
