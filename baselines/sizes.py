"""The baselines at their published sizes with random weights, for measuring what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from torch import nn

from baselines.densepure import DensePure
from baselines.networks.consistency_map import ConsistencyModel
from baselines.networks.diffusion import Chain
from baselines.networks.resnet import normalised, resnet
from baselines.noisy.classifier import NoisyClassifier
from baselines.parts import openai_unet
from baselines.parts.external import resized
from baselines.parts.openai_flags import PRESETS, Flags
from baselines.purifiers.denoised import DenoisedClassifier
from bench.types import Architecture, Chains, Make, Task


@dataclass(frozen=True, kw_only=True)
class TimmClassifier:
    """A classifier of clean images by timm's name; `image_size` where it is not the name's own."""

    name: str
    image_size: int | None = None

    def build(self, num_classes: int, make: Make) -> nn.Module:
        """Return the classifier with random weights, resizing and normalisation before it."""
        network = make(f"{self}, {num_classes} classes", lambda: self.network(num_classes))
        return resized(network, self.image_size)

    def network(self, num_classes: int) -> nn.Module:
        """Return timm's network with random weights, from normalised images to logits."""
        import timm

        sizes: dict[str, Any] = {} if self.image_size is None else {"img_size": self.image_size}
        return timm.create_model(self.name, num_classes=num_classes, **sizes)


@dataclass(frozen=True, kw_only=True)
class Family:
    """The networks of one data set.

    Attributes:
        task: of the classifiers of noisy images; purifiers take images of the U-Net's size.
        unet: flags of the released diffusion model.
        classifier: of purified images; others: suffix of the method's name -> another one.
        residual: name of the residual network -> its layers in the CIFAR form, 0 for timm's network of that name.
        single_batch, chain_batch, plain_batch: samples per call of purifiers with one network call, of chains, and of
            classifiers of noisy images.
    """

    task: Task
    unet: Flags
    classifier: TimmClassifier
    others: Mapping[str, TimmClassifier]
    residual: tuple[str, int]
    single_batch: int
    chain_batch: int
    plain_batch: int = 1000

    @property
    def purified(self) -> Task:
        """The task at the U-Net's image size."""
        return replace(self.task, image_size=self.unet.image_size)


_IMAGENET = Family(
    task=Task(dataset="imagenet", channels=3, image_size=224, num_classes=1000),
    unet=Flags(**PRESETS["256x256_diffusion_uncond"]),
    classifier=TimmClassifier(name="beit_large_patch16_512"),
    others={"vit": TimmClassifier(name="vit_base_patch16_224")},
    residual=("resnet50", 0),
    # Deviation: the released default is 1000; in float32 that takes minutes, and more memory than one GPU has.
    single_batch=128,
    chain_batch=16,
)
_CIFAR10 = Family(
    task=Task(dataset="cifar10", channels=3, image_size=32, num_classes=10),
    unet=Flags(**PRESETS["cifar10_uncond_50M_500K"]),
    classifier=TimmClassifier(name="vit_base_patch16_224"),
    others={},
    residual=("resnet110", 110),
    single_batch=1000,
    chain_batch=100,
)
_SMALL_UNET: dict[str, Any] = {"num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,2"}

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "imagenet": _IMAGENET,
        "cifar10": _CIFAR10,
        "imagenet-reduced": replace(
            _IMAGENET,
            task=replace(_IMAGENET.task, image_size=32),
            unet=replace(
                _IMAGENET.unet, image_size=40, num_head_channels=32, attention_resolutions="20", **_SMALL_UNET
            ),
            classifier=TimmClassifier(name="vit_tiny_patch16_224", image_size=64),
            others={"vit": TimmClassifier(name="vit_tiny_patch16_224", image_size=32)},
            single_batch=8,
            chain_batch=4,
            plain_batch=8,
        ),
        "cifar10-reduced": replace(
            _CIFAR10,
            task=replace(_CIFAR10.task, image_size=16),
            unet=replace(_CIFAR10.unet, image_size=16, num_heads=1, attention_resolutions="8", **_SMALL_UNET),
            classifier=TimmClassifier(name="vit_tiny_patch16_224", image_size=32),
            residual=("resnet8", 8),
            single_batch=8,
            chain_batch=4,
            plain_batch=8,
        ),
    }
)
"""Data set, or its reduced form for trials, -> networks."""


def architectures(family: str, chains: Chains) -> Iterator[Architecture]:
    """Yield the baselines of a family; `dds` is one-shot, `dds-multistep` a reverse chain."""
    sizes = FAMILIES[family]
    yield _residual(sizes)
    yield _dds(sizes, "dds", sizes.classifier, 1)
    for suffix, classifier in sizes.others.items():
        yield _dds(sizes, f"dds-{suffix}", classifier, 1)
    yield _dds(sizes, "dds-multistep", sizes.classifier, chains.steps)
    yield _densepure(sizes, chains)
    yield _consistency_model(sizes)


def _residual(sizes: Family) -> Architecture:
    name, layers = sizes.residual

    def network() -> nn.Module:
        if layers:
            return resnet(sizes.task, layers)
        return normalised(TimmClassifier(name=name).network(sizes.task.num_classes), sizes.task)

    return Architecture(
        name=name,
        task=sizes.task,
        build=lambda make: NoisyClassifier(make(name, network)),
        batch_size=sizes.plain_batch,
        published="gaussian",
        source="arXiv 1902.02918, Section 4",
    )


def _dds(sizes: Family, name: str, classifier: TimmClassifier, steps: int) -> Architecture:
    return Architecture(
        name=name,
        task=sizes.purified,
        build=lambda make: _pair(sizes, classifier, steps, make),
        calls=steps,
        batch_size=sizes.single_batch if steps == 1 else sizes.chain_batch,
        published="dds" if name == "dds" else "",
        source="arXiv 2206.10550, Section 4",
    )


def _densepure(sizes: Family, chains: Chains) -> Architecture:
    return Architecture(
        name="densepure",
        task=sizes.purified,
        build=lambda make: DensePure(_pair(sizes, sizes.classifier, chains.steps, make), chains.votes),
        calls=chains.steps * chains.votes,
        batch_size=sizes.chain_batch,
        published="densepure",
        source="arXiv 2211.00322, Section 5",
    )


def _consistency_model(sizes: Family) -> Architecture:
    """Return one call of a consistency model, then the classifier.

    It has the denoiser's network without the learned variance, as the 256x256 models of arXiv 2303.01469 have.
    Deviation: the CIFAR-10 model of that paper is an NCSN++, which diffusers does not hold.
    """
    flags = replace(sizes.unet, learn_sigma=False)

    def build(make: Make) -> nn.Module:
        model = ConsistencyModel(make(str(flags), lambda: openai_unet.network(flags)))
        return DenoisedClassifier(model, sizes.classifier.build(sizes.task.num_classes, make))

    return Architecture(
        name="consistency-model",
        task=sizes.purified,
        build=build,
        batch_size=sizes.single_batch,
        published="consistency-model",
        source="arXiv 2303.01469, Appendix C",
    )


def _pair(sizes: Family, classifier: TimmClassifier, steps: int, make: Make) -> DenoisedClassifier:
    unet = make(str(sizes.unet), lambda: openai_unet.network(sizes.unet))
    denoiser = openai_unet.as_denoiser(unet, sizes.unet)
    denoiser.chain = Chain(steps=steps)
    return DenoisedClassifier(denoiser, classifier.build(sizes.task.num_classes, make))
