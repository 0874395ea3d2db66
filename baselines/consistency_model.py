"""Consistency-model purification (arXiv 2303.01469): one call of a consistency model, then classify as if clean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from baselines.networks.consistency_map import ConsistencyModel, training_loss
from baselines.networks.unet import small_unet
from baselines.parts import openai_unet, options
from baselines.parts.external import load_consistency_model
from baselines.purifiers.denoised import DenoisedClassifier, DenoiserObjective
from baselines.purifiers.method import Purifier
from baselines.sizes import FAMILIES
from bench.errors import UsageError
from bench.smoothing.sigma import karras_grid, sigma_to_model, to_model_units
from bench.training.architectures import Architecture, Chains, Make
from bench.training.augmentation import augment
from bench.training.loop import FORWARDS_WITH_GRADIENT, Batch


@dataclass(frozen=True, kw_only=True)
class Config(options.Config):
    """Options of consistency-model purification; see also `options.Config`.

    Attributes:
        sigma_max: the latest time that is trained, in model units. Deviation: the paper's is 80, for drawing images
            from noise alone; a purifier is asked for no time beyond 2 sigma.
        first_scales, last_scales: steps N - 1 of the time grid at the start and in the end.
        double_every: training steps after which N - 1 doubles. Deviation: a fixed number (as in arXiv 2310.14189,
            Section 3.4, but apart from the length of the training, which ends by a held-out score).
        denoiser: "" is our own small one; else the folder of a diffusers ConsistencyModelPipeline without classes,
            "hub:owner/name", a file of `bench train consistency-model`, or "module:function" of the user's own.
    """

    sigma_max: float = 4.0
    first_scales: int = 10
    last_scales: int = 160
    double_every: int = 600

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.denoiser and sigma_to_model(self.sigma) > self.sigma_max:
            raise UsageError(
                f"sigma {self.sigma:g} is time {sigma_to_model(self.sigma):g}, beyond sigma_max {self.sigma_max:g}; "
                "train with a larger sigma_max"
            )
        if not 1 <= self.first_scales <= self.last_scales:
            raise UsageError(
                f"first_scales is {self.first_scales} and last_scales {self.last_scales}, expected "
                "1 <= first_scales <= last_scales"
            )

    def own_denoiser(self) -> ConsistencyModel:
        """Return our small consistency model of these sizes with random weights."""
        unet = small_unet(self.task, self.channels, self.patch)
        return ConsistencyModel(unet, patch=self.patch, sigma_max=self.sigma_max)


def scales_at(step: int, config: Config) -> int:
    """Return N - 1 at a training step: first_scales, doubled every `double_every` steps up to last_scales."""
    doublings = min(step // config.double_every, config.last_scales.bit_length())
    return min(config.first_scales * 2**doublings, config.last_scales)


class ConsistencyTraining(DenoiserObjective[ConsistencyModel, Config]):
    """Consistency training (arXiv 2303.01469, Algorithm 3) at neighbouring times, drawn uniformly from the grid."""

    @property
    def forwards(self) -> float:
        """Forward passes per image and step: that of the later time with its gradient, the target's without."""
        return FORWARDS_WITH_GRADIENT + 1

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        generator = batch.generator
        x = to_model_units(augment(batch.x, self.config.task, generator))
        z = torch.randn(x.shape, generator=generator, device=x.device)
        times = scales_at(batch.step, self.config) + 1
        grid = karras_grid(times, self.config.sigma_max).to(x, non_blocking=True)
        later = torch.randint(len(grid) - 1, (len(x),), generator=generator, device=x.device)
        return training_loss(self.network, x, z, (grid[later], grid[later + 1]))


class ConsistencyPurifier(Purifier[Config]):
    """The method."""

    name, stage, objective = "consistency-model", "consistency-model", ConsistencyTraining
    STORED_AS = MappingProxyType({option: option for option in ("channels", "patch", "sigma_max")})

    def load_denoiser(self, config: Config) -> nn.Module:
        """Return the consistency model that the option names; see `load_consistency_model`."""
        return load_consistency_model(config.denoiser, config.task)

    def architectures(self, family: str, chains: Chains) -> Iterator[Architecture]:
        """Yield the method at its published size: the denoiser's network without the learned variance.

        The 256x256 models of arXiv 2303.01469 have it. Deviation: the CIFAR-10 model of that paper is an NCSN++, which
        diffusers does not hold.
        """
        sizes = FAMILIES[family]
        flags = replace(sizes.unet, learn_sigma=False)

        def build(make: Make) -> nn.Module:
            model = ConsistencyModel(make(str(flags), lambda: openai_unet.network(flags)))
            return DenoisedClassifier(model, sizes.classifier.build(sizes.task.num_classes, make))

        yield Architecture(
            name="consistency-model",
            task=sizes.purified,
            build=build,
            batch_size=sizes.single_batch,
            published="consistency-model",
            source="arXiv 2303.01469, Appendix C",
        )


METHOD = ConsistencyPurifier(Config)
