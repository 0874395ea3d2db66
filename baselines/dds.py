"""Diffusion denoised smoothing (Carlini et al. 2022, arXiv 2206.10550): denoise once, then classify as if clean."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.networks.diffusion import Chain, DiffusionDenoiser
from baselines.networks.unet import Denoiser
from baselines.parts import external, openai_import, options
from baselines.parts.options import check_pairs
from baselines.purifiers.denoised import DenoisedClassifier, DenoiserObjective
from baselines.purifiers.method import Purifier
from baselines.sizes import FAMILIES, MNIST
from bench.errors import UsageError
from bench.smoothing.sigma import to_model_units
from bench.training.architectures import Architecture, Chains, Network
from bench.training.augmentation import augment
from bench.training.loop import Batch
from bench.training.recipes import IN_USE
from bench.types import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Config(options.Config):
    """Options of a diffusion model as the denoiser; see also `options.Config`.

    Attributes:
        diffusion_steps: length T of the cosine schedule.
        denoiser: "" is our own small one; else a .pt or .safetensors file of a released program, a diffusers
            pipeline's folder, "hub:owner/name", a file of `bench train dds`, or "module:function" of the user's own.
        denoiser_flags: flags of a released program, as on its command line, where the file does not tell them.
        reverse_steps: network calls of the reverse chain; 1 is one-shot.
        reverse_eta: noise of the chain; 1 is the ancestral sampler's, 0 none.
    """

    diffusion_steps: int = 1000
    denoiser_flags: str = field(default="", metadata=IN_USE)
    reverse_steps: int = field(default=1, metadata=IN_USE)
    reverse_eta: float = field(default=1.0, metadata=IN_USE)

    def __post_init__(self) -> None:
        Chain(steps=self.reverse_steps, eta=self.reverse_eta)
        check_pairs(self, ("denoiser_flags", "denoiser"), ("classifier_checkpoint", "classifier"))

    def of_own_parts(self) -> Self:
        """Return the same with both parts our own."""
        return replace(self, denoiser="", denoiser_flags="", classifier="", classifier_checkpoint="")

    def own_denoiser(self) -> Denoiser:
        """Return our small denoiser of these sizes with random weights."""
        return Denoiser(self.task, self.channels, patch=self.patch, steps=self.diffusion_steps)


class NoisePrediction(DenoiserObjective[Denoiser, Config]):
    """Mean squared error of the predicted noise at uniform time steps (arXiv 2006.11239, Eq. 14)."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        denoiser, generator = self.network, batch.generator
        x = to_model_units(augment(batch.x, self.config.task, generator))
        abar_of = denoiser.alphas_cumprod.to(x, non_blocking=True)
        timesteps = torch.randint(len(abar_of), (len(x),), generator=generator, device=x.device)
        eps = torch.randn(x.shape, generator=generator, device=x.device)
        abar = abar_of[timesteps].view(-1, 1, 1, 1)
        x_t = abar.sqrt() * x + (1 - abar).sqrt() * eps
        return F.mse_loss(denoiser.predict(x_t, timesteps).float(), eps)


AnyConfig = TypeVar("AnyConfig", bound=Config)


class DiffusionPurifier(Purifier[AnyConfig]):
    """A method whose denoiser is a diffusion model; the checkpoint of `dds` serves all of them."""

    name, stage, objective = "dds", "dds_denoiser", NoisePrediction
    STORED_AS = MappingProxyType({"channels": "channels", "patch": "patch", "steps": "diffusion_steps"})

    def load_denoiser(self, config: AnyConfig) -> nn.Module:
        """Return the denoiser that the option names; see `external.load_denoiser`."""
        return external.load_denoiser(config.denoiser, config.denoiser_flags, config.task)

    def chain(self, config: AnyConfig) -> dict[str, Any]:
        """Return steps and noise of a reverse chain; see `Purifier.chain`."""
        steps = config.reverse_steps
        return {"reverse_steps": steps, "reverse_eta": config.reverse_eta} if steps > 1 else {}

    def pair(self, config: AnyConfig, checkpoint: Path | Checkpoint | None) -> DenoisedClassifier:
        """Return both parts, the denoiser with its chain; see `Purifier.pair`."""
        pair = super().pair(config, checkpoint)
        chain = Chain(steps=config.reverse_steps, eta=config.reverse_eta)
        if isinstance(pair.denoiser, DiffusionDenoiser):
            pair.denoiser.chain = chain
        elif chain.steps > 1:
            raise UsageError(
                f"reverse_steps is {chain.steps}, but {config.denoiser} is no diffusion model: set reverse_steps=1"
            )
        return pair


class DDS(DiffusionPurifier[Config]):
    """The method; its denoiser may be one that another program trained."""

    RELEASED, open_part = openai_import.RELEASED, staticmethod(external.open_part)

    def networks(self) -> Iterator[Network]:
        """Yield our small denoiser, on the meta device."""
        with torch.device("meta"):
            denoiser = Config(task=MNIST, sigma=0.5).own_denoiser().eval()

        def predict_noise(x: Tensor) -> Tensor:
            return denoiser.predict(x, x.new_zeros(len(x), dtype=torch.long))

        yield Network(name="dds (denoiser)", task=MNIST, body=denoiser, forward=predict_noise)

    def architectures(self, family: str, chains: Chains) -> Iterator[Architecture]:
        """Yield one-shot denoising as `dds`, with other classifiers too, and a reverse chain as `dds-multistep`."""
        sizes = FAMILIES[family]
        others = [(f"dds-{suffix}", classifier, 1) for suffix, classifier in sizes.others.items()]
        one, chain = ("dds", sizes.classifier, 1), ("dds-multistep", sizes.classifier, chains.steps)
        for name, classifier, steps in (one, *others, chain):
            yield Architecture(
                name=name,
                task=sizes.purified,
                build=functools.partial(sizes.pair, classifier, steps),
                calls=steps,
                batch_size=sizes.single_batch if steps == 1 else sizes.chain_batch,
                published="dds" if name == "dds" else "",
                source="arXiv 2206.10550, Section 4",
            )


METHOD = DDS(Config)
