"""rRCM at its published sizes with random weights, for measuring what it costs (arXiv 2501.13094)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from bench.types import Architecture, Chains, Task
from rrcm.encoder import Encoder
from rrcm.heads import Classifier
from rrcm.model import Config, expand
from rrcm.presets import ENCODERS, EncoderName

NAMED: dict[str, tuple[EncoderName, ...]] = {
    "imagenet": ("rrcm-s-imagenet", "rrcm-b-imagenet"),
    "cifar10": ("rrcm-b-cifar10",),
}
"""Data set -> encoders that the paper trains on it."""

REDUCED = "-reduced"
"""Ends the name of a family that is made small for trials: one block, images of 32 or 16 pixels."""


def architectures(family: str, chains: Chains) -> Iterator[Architecture]:
    """Yield the classifiers of a family, `rrcm-s` and `rrcm-b`; no chain is among them."""
    dataset = family.removesuffix(REDUCED)
    for encoder in NAMED[dataset]:
        config = expand(Config(task=ENCODERS[encoder].task, sigma=0.5, encoder=encoder))
        if family != dataset:
            pixels = {"imagenet": 32, "cifar10": 16}[dataset]
            task: Task = replace(config.task, image_size=pixels)
            config = replace(config, task=task, depth=1, embed_dim=64, num_heads=1)
        name = encoder.removesuffix(f"-{dataset}")
        yield _architecture(name, config, 1000 if family == dataset else 8)


def _architecture(name: str, config: Config, batch_size: int) -> Architecture:
    def network() -> nn.Module:
        return Classifier(Encoder(config.sizes), config.task.num_classes, layernorm=config.layernorm)

    return Architecture(
        name=name,
        task=config.task,
        batch_size=batch_size,
        build=lambda make: make(name, network),
        published="rrcm" if name == "rrcm-b" else "",
        source="arXiv 2501.13094, Appendix",
    )
