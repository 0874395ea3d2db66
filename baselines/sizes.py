"""The baselines' networks at their published sizes with random weights, for counting and measuring what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from baselines.networks.diffusion import Chain
from baselines.networks.lenet import lenet
from baselines.networks.resnet import normalised, resnet
from baselines.noisy.classifier import NoisyClassifier
from baselines.parts import openai_unet
from baselines.parts.external import resized
from baselines.parts.openai_flags import PRESETS, Flags
from baselines.purifiers.denoised import DenoisedClassifier
from bench.training.architectures import Architecture, Make, Network
from bench.types import Task

MNIST = Task(dataset="mnist5k", channels=1, image_size=28, num_classes=10)
_CIFAR10_TASK = Task(dataset="cifar10", channels=3, image_size=32, num_classes=10)

RESNETS = (
    ("resnet", 14, MNIST),
    ("cifar_resnet20", 20, _CIFAR10_TASK),
    ("cifar_resnet110", 110, _CIFAR10_TASK),
)
"""(name, layers, data) of the residual networks that are counted."""


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

    def pair(self, classifier: TimmClassifier, steps: int, make: Make) -> DenoisedClassifier:
        """Return the diffusion model with a chain of `steps` calls, and the classifier, with random weights."""
        unet = make(str(self.unet), lambda: openai_unet.network(self.unet))
        denoiser = openai_unet.as_denoiser(unet, self.unet)
        denoiser.chain = Chain(steps=steps)
        return DenoisedClassifier(denoiser, classifier.build(self.task.num_classes, make))


_IMAGENET = Family(
    task=Task(dataset="imagenet", channels=3, image_size=224, num_classes=1000),
    unet=Flags(**PRESETS["256x256_diffusion_uncond"]),
    classifier=TimmClassifier(name="beit_large_patch16_512"),
    others={"vit": TimmClassifier(name="vit_base_patch16_224")},
    residual=("resnet50", 0),
    # Deviation: the released default is 1000. In float32 a sample's activations take 0.63 GiB: 32 leave room for
    # weights and the convolutions' workspace on a card of 40 GB, 128 do not fit into one of 80 GB.
    single_batch=32,
    chain_batch=16,
)
_CIFAR10 = Family(
    task=_CIFAR10_TASK,
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


def residual_networks() -> Iterator[Network]:
    """Yield LeNet and the residual networks, on the meta device."""
    with torch.device("meta"):
        yield _classifier("lenet", MNIST, lenet(MNIST), "fc2")
        for name, depth, task in RESNETS:
            yield _classifier(name, task, resnet(task, depth), "fc")


def _classifier(name: str, task: Task, network: nn.Module, head_name: str) -> Network:
    """Return a classifier's parts: its last layer, and all else."""
    parts = dict(network.get_submodule("1").named_children())
    head = parts.pop(head_name)
    return Network(
        name=name, task=task, body=nn.ModuleList(parts.values()), head=head, forward=network.eval()
    )


def residual(family: str) -> Architecture:
    """Return a family's residual network as a classifier of noisy images."""
    sizes = FAMILIES[family]
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
