"""What `bench cost` times: noisy samples, drawn as certificates draw them, through a method, whole and by stage."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.device.precision import at_precision
from bench.device.timing import Instruments
from bench.smoothing.certifier import Smoothed
from bench.smoothing.noise import NOISE_BLOCK, sample_keys, stable_seed, standard_normal
from bench.types import Classifier, Precision, Protocol

IMAGES = 4
"""Random images that the input rotates through."""

HOST, NOISE, COUNTING = "host", "noise", "counting"
"""Stages that every method has; host is the rest of the wall time: launching, changes of units, waiting."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One method ready to be timed.

    Attributes:
        module: its classifier, on the device; its `stages()`, if it has any, are told apart.
        classifier: the same at the precision to measure.
        images: (IMAGES, C, H, W) float32 in [0,1] on the device.
        sigma: of the noise, pixel units.
    """

    module: nn.Module
    classifier: Classifier
    images: Tensor
    sigma: float
    num_classes: int


def subject(
    module: nn.Module, precision: Precision, shape: tuple[int, int, int], num_classes: int, sigma: float
) -> Subject:
    """Return the subject of a module; its images, of shape (C,H,W), are uniform noise from a fixed seed."""
    device = next(module.parameters()).device
    generator = torch.Generator().manual_seed(0)
    return Subject(
        module=module,
        classifier=at_precision(module, device.type, precision),
        images=torch.rand((IMAGES, *shape), generator=generator).to(device),
        sigma=sigma,
        num_classes=num_classes,
    )


def streamed_work(one: Subject, batch_size: int) -> Callable[[], Tensor]:
    """Return what draws, classifies and counts the next batch of an endless stream of samples.

    What is timed is one call or several: each draws the noise of exactly its own samples, in whole blocks as
    certificates do and the rest as a part of a block. (Certificates draw that block whole, for several small batches.)
    Then it adds the noise to the image, classifies, and counts on the device.

    Returns:
        A callable that returns the counts of classes so far, (num_classes + 1,) int64 on the device.
    """
    numbers = itertools.count()
    counts = torch.zeros(one.num_classes + 1, dtype=torch.int64, device=one.images.device)

    @torch.inference_mode()
    def work() -> Tensor:
        x_noisy, keys = _noisy_batch(one, next(numbers), batch_size)
        return _count(one, one.classifier(x_noisy, one.sigma, keys), counts)

    return work


def _noisy_batch(one: Subject, number: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return batch number `number`: x_noisy (batch_size, C, H, W), freshly drawn, and keys (batch_size,)."""
    x = one.images[number % IMAGES]
    whole, rest = divmod(batch_size, NOISE_BLOCK)
    noise, keys = [], []
    for block, size in enumerate([NOISE_BLOCK] * whole + [rest] * (rest > 0)):
        seed = stable_seed("cost", number, block)
        noise.append(standard_normal(seed, (size, *x.shape), x.device))
        keys.append(sample_keys(0, number, "estimation", block, x.device)[:size])
    if len(noise) > 1:
        noise, keys = [torch.cat(noise)], [torch.cat(keys)]
    return noise[0].mul_(one.sigma).add_(x), keys[0]


def _count(one: Subject, logits: Tensor, counts: Tensor) -> Tensor:
    """Add the predicted classes of logits (B, num_classes) to the counts, which are returned."""
    labels = logits.argmax(1).masked_fill_(~logits.isfinite().all(1), one.num_classes)
    return counts.scatter_add_(0, labels, torch.ones_like(labels))


def whole_image(one: Subject, protocol: Protocol, batch_size: int) -> Callable[[], object]:
    """Return what certifies one image from the start to the bound."""

    smoothed = Smoothed(
        classifier=one.classifier, sigma=one.sigma, num_classes=one.num_classes, batch_size=batch_size
    )
    return lambda: smoothed.certify(one.images[0], 0, protocol)


class _Timeline:
    """Marks around the parts of one batch, in the device's time."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._starts: dict[str, object] = {}
        self.spans: list[tuple[str, object, object]] = []

    def begin(self, name: str) -> None:
        self._starts[name] = self._instruments.mark()

    def end(self, name: str) -> None:
        self.spans.append((name, self._starts.pop(name), self._instruments.mark()))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part, summed over its calls; the device must be idle."""
        totals: dict[str, float] = {}
        for name, start, end in self.spans:
            totals[name] = totals.get(name, 0.0) + self._instruments.between(start, end)
        return totals


def stage_seconds(one: Subject, batch_size: int, instruments: Instruments) -> dict[str, float]:
    """Return the seconds by stage of one batch of `streamed_work`.

    Stages are told apart by hooks, on networks that are not compiled and warm. It runs the batch once.
    """
    instruments.synchronize()
    timeline = _Timeline(instruments)
    hooks = _hooked(one.module, timeline)
    start = instruments.clock()
    try:
        _one_batch(one, batch_size, timeline)
        instruments.synchronize()
        total = instruments.clock() - start
    finally:
        for hook in hooks:
            hook.remove()
    seconds = timeline.seconds()
    host = max(0.0, total - sum(seconds.values()))
    return {**seconds, HOST: host}


def _hooked(module: nn.Module, timeline: _Timeline) -> Sequence[torch.utils.hooks.RemovableHandle]:
    """Have the timeline note every call of the method's stages, or of the method as `classifier` where it has none."""
    stages = getattr(module, "stages", lambda: {"classifier": module})()
    handles = []
    for name, part in stages.items():
        handles.append(part.register_forward_pre_hook(lambda *_, name=name: timeline.begin(name)))
        handles.append(part.register_forward_hook(lambda *_, name=name: timeline.end(name)))
    return handles


@torch.inference_mode()
def _one_batch(one: Subject, batch_size: int, timeline: _Timeline) -> None:
    timeline.begin(NOISE)
    x_noisy, keys = _noisy_batch(one, 0, batch_size)
    timeline.end(NOISE)
    logits = one.classifier(x_noisy, one.sigma, keys)
    timeline.begin(COUNTING)
    _count(one, logits, torch.zeros(one.num_classes + 1, dtype=torch.int64, device=x_noisy.device))
    timeline.end(COUNTING)
