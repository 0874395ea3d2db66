"""Gaussian augmentation (Cohen et al. 2019, arXiv 1902.02918): cross entropy on x + noise, one network per sigma."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from baselines.networks import backbones
from baselines.noisy import classifier
from baselines.noisy.method import NoisyMethod
from bench.training.architectures import Architecture, Chains, Network


@dataclass(frozen=True, kw_only=True)
class Config(classifier.Config):
    """Options of Gaussian augmentation: the network and the recipe of its training."""


class Gaussian(NoisyMethod[Config]):
    """The method; it offers the residual networks that all methods of this kind train."""

    backbone, backbone_names = staticmethod(backbones.backbone), staticmethod(backbones.backbone_names)

    def networks(self) -> Iterator[Network]:
        """Yield LeNet and the residual networks, on the meta device."""
        from baselines import sizes  # imports diffusers, which a training does without

        yield from sizes.residual_networks()

    def architectures(self, family: str, chains: Chains) -> Iterator[Architecture]:
        """Yield the residual network of a family."""
        from baselines import sizes

        yield sizes.residual(family)


METHOD = Gaussian(name="gaussian", Config=Config, loss=lambda config: classifier.mean_cross_entropy)
