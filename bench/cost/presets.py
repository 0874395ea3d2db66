"""Presets of `bench cost`: which methods at which sizes, with how many samples; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_PURIFIERS = ("dds-multistep", "densepure", "consistency-model")


@dataclass(frozen=True, kw_only=True)
class CostPreset:
    """Methods at given sizes.

    Attributes:
        dataset: whose published numbers stand beside the seconds.
        family: of `registry.architectures`.
        samples: estimation samples n of a certified image.
        batch_sizes: samples per call that are tried on an accelerator, and on a CPU.
        description: one line about it.
        first: methods that an accelerator measures, and compares, before the others.
    """

    dataset: str
    family: str
    methods: tuple[str, ...]
    samples: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    cpu_batch_sizes: tuple[int, ...]
    description: str
    first: tuple[str, ...] = ("rrcm-b", "dds")


COST_PRESETS: Mapping[str, CostPreset] = MappingProxyType(
    {
        "paper-imagenet": CostPreset(
            dataset="imagenet",
            family="imagenet",
            methods=("rrcm-s", "rrcm-b", "resnet50", "dds", "dds-vit", *_PURIFIERS),
            samples=(10_000, 100_000),
            batch_sizes=(1, 8, 32, 128, 512),
            cpu_batch_sizes=(1,),
            description="ImageNet at the published sizes; hours on a CPU, where --methods picks some",
        ),
        "paper-cifar10": CostPreset(
            dataset="cifar10",
            family="cifar10",
            methods=("rrcm-b", "resnet110", "dds", *_PURIFIERS),
            samples=(10_000, 100_000),
            batch_sizes=(1, 32, 128, 512, 2048),
            cpu_batch_sizes=(1,),
            description="CIFAR-10 at the published sizes",
        ),
        "reduced-imagenet": CostPreset(
            dataset="imagenet",
            family="imagenet-reduced",
            methods=("rrcm-s", "rrcm-b", "resnet50", "dds", "dds-vit", *_PURIFIERS),
            samples=(100,),
            batch_sizes=(1, 4, 8),
            cpu_batch_sizes=(1, 4, 8),
            description="the kinds of paper-imagenet with small networks: shows that every part works",
        ),
        "reduced-cifar10": CostPreset(
            dataset="cifar10",
            family="cifar10-reduced",
            methods=("rrcm-b", "resnet8", "dds", *_PURIFIERS),
            samples=(100,),
            batch_sizes=(1, 4, 8),
            cpu_batch_sizes=(1, 4, 8),
            description="the kinds of paper-cifar10 with small networks: shows that every part works",
        ),
    }
)
"""Name -> preset; every other name is a preset of `bench run`, whose methods are measured at their own sizes."""

ORDINARY_BATCH_SIZES = (1, 32, 128)
"""Samples per call that are tried for an ordinary preset on a CPU; 512 and 2048 are added on an accelerator."""
