"""What `bench cost` times beside a stream of samples: whole certificates, and one batch by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from bench.device.batching import filled
from bench.device.precision import at_precision, make_ready
from bench.device.timing import Instruments, Work
from bench.runs.stream import Stream
from bench.smoothing.certifier import Smoothed
from bench.smoothing.noise import NOISE_BLOCK
from bench.types import Precision, Protocol

IMAGES = 4
"""Random images that a stream rotates through."""

HOST, NOISE, COUNTING = "host", "noise", "counting"
"""Stages that every method has; host is the rest of the wall time: launching, changes of units, waiting."""


def random_stream(
    module: nn.Module, precision: Precision, shape: tuple[int, int, int], num_classes: int, sigma: float
) -> Stream:
    """Return the stream of a module; its images, of shape (C,H,W), are uniform noise from a fixed seed."""
    device = next(module.parameters()).device
    make_ready(module, device.type, precision, num_classes)
    generator = torch.Generator().manual_seed(0)
    smoothed = Smoothed(
        classifier=at_precision(module, device.type, precision),
        sigma=sigma,
        num_classes=num_classes,
        batch_size=NOISE_BLOCK,
    )
    return Stream(smoothed=smoothed, images=torch.rand((IMAGES, *shape), generator=generator).to(device))


def certificate(
    stream: Stream, protocol: Protocol, batch_size: int, *, images: int = 1, is_filled: bool = False
) -> Work:
    """Return the work whose one batch certifies some images together.

    Args:
        images: how many; the stream's are taken in turn, each under noise of its own.
        is_filled: whether batches that are not full are filled up, as a network that is compiled for one size needs.
    """
    classifier = stream.smoothed.classifier
    if is_filled:
        classifier = filled(classifier, batch_size)
    smoothed = replace(stream.smoothed, classifier=classifier, batch_size=batch_size)
    given = [stream.images[number % len(stream.images)] for number in range(images)]
    certify = partial(smoothed.certify_group, given, range(images), protocol, [None] * images)
    return Work(batch=certify, size=images * (protocol.n0 + protocol.n))


class _Timeline:
    """Marks around the parts of one batch, in the device's time."""

    def __init__(self, meters: Instruments) -> None:
        self._meters = meters
        self._starts: dict[str, object] = {}
        self.spans: list[tuple[str, object, object]] = []

    def begin(self, name: str) -> None:
        self._starts[name] = self._meters.mark()

    def end(self, name: str) -> None:
        self.spans.append((name, self._starts.pop(name), self._meters.mark()))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part, summed over its calls; the device must be idle."""
        totals: dict[str, float] = {}
        for name, start, end in self.spans:
            totals[name] = totals.get(name, 0.0) + self._meters.between(start, end)
        return totals


def stage_seconds(
    stream: Stream, module: nn.Module, batch_size: int, meters: Instruments
) -> dict[str, float]:
    """Return the seconds by stage of one batch of a stream.

    Stages are told apart by hooks on the stream's module, which is not compiled and warm. It runs the batch once.
    """
    meters.synchronize()
    timeline = _Timeline(meters)
    hooks = _hooked(module, timeline)
    start = meters.clock()
    try:
        _one_batch(stream, batch_size, timeline)
        meters.synchronize()
        total = meters.clock() - start
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
def _one_batch(stream: Stream, batch_size: int, timeline: _Timeline) -> None:
    timeline.begin(NOISE)
    x_noisy, keys = stream.noisy_batch(0, batch_size)
    timeline.end(NOISE)
    logits = stream.classify(x_noisy, keys)
    timeline.begin(COUNTING)
    stream.count(logits, stream.no_counts())
    timeline.end(COUNTING)
