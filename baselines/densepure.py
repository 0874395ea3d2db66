"""DensePure (Xiao et al. 2022, arXiv 2211.00322): several reverse chains, each classified, and a majority vote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import dds
from baselines.purifiers.denoised import DenoisedClassifier
from baselines.sizes import FAMILIES
from bench.errors import UsageError
from bench.smoothing.philox import SPLITMIX_STEP, signed, splitmix64
from bench.training.architectures import Architecture, Chains
from bench.training.recipes import IN_USE
from bench.types import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Config(dds.Config):
    """Options of DensePure, whose denoiser, classifier and checkpoint are those of `dds`.

    Attributes:
        votes: reverse chains K of each sample.
        reverse_steps: network calls b of each chain; with 1 all chains are the same.

    Deviation: the defaults make 10 calls of a network per sample, where the paper makes up to several hundred.
    """

    votes: int = field(default=5, metadata=IN_USE)
    reverse_steps: int = field(default=2, metadata=IN_USE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.votes < 1:
            raise UsageError(f"votes is {self.votes}, expected at least 1")


class DensePure(nn.Module):
    """A denoiser and a classifier called once per vote."""

    def __init__(self, pair: DenoisedClassifier, votes: int) -> None:
        super().__init__()
        self.pair, self.votes = pair, votes

    @torch.no_grad()
    def forward(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return the share of votes of each class, (B,K), for x_noisy (B,C,H,W) in pixel units.

        The class is the most frequent one (arXiv 2211.00322); of equally frequent ones the paper says
        nothing, and the lowest wins. The shares have no gradient. A chain with a logit that is not finite makes its
        sample's shares NaN.

        Args:
            keys: (B,) int64, the samples' identities; with the number of the chain they pick its noise.

        Raises:
            UsageError: chains that draw noise, without keys.
        """
        chains = (self.pair(x_noisy, sigma, chain_keys(keys, chain)) for chain in range(self.votes))
        return torch.stack([_vote(logits) for logits in chains]).mean(0)

    def stages(self) -> dict[str, nn.Module]:
        """Return the modules whose time is told apart, by name."""
        return self.pair.stages()

    def compiled_parts(self) -> list[nn.Module]:
        """Return the modules that are compiled."""
        return self.pair.compiled_parts()


def _vote(logits: Tensor) -> Tensor:
    """Return (B,K), 1 at the largest of the logits and else 0; NaN in a row with a logit that is not finite."""
    vote = F.one_hot(logits.argmax(1), logits.shape[1]).float()
    return vote.masked_fill(~logits.isfinite().all(1, keepdim=True), torch.nan)


def chain_keys(keys: Tensor | None, chain: int) -> Tensor | None:
    """Return (B,) int64 identities of the samples in one chain: the samples' own in the first, others in the rest.

    Two samples never have the same in one chain, and in two chains by a chance of some 1 in 10^18. They are mixed on
    the keys' device (the finaliser of splitmix64), so that nothing waits for it.
    """
    if keys is None or chain == 0:
        return keys
    return splitmix64(keys + signed(chain * SPLITMIX_STEP % 2**64))


class Voting(dds.DiffusionPurifier[Config]):
    """The method, which trains and loads what `dds` does."""

    def build(self, config: Config, checkpoint: Path | Checkpoint | None) -> DensePure:
        """Return the classifier on CPU in eval mode; see `Purifier.pair`."""
        return DensePure(self.pair(config, checkpoint), config.votes).eval()

    def architectures(self, family: str, chains: Chains) -> Iterator[Architecture]:
        """Yield the method at its published size."""
        sizes = FAMILIES[family]
        yield Architecture(
            name="densepure",
            task=sizes.purified,
            build=lambda make: DensePure(sizes.pair(sizes.classifier, chains.steps, make), chains.votes),
            calls=chains.steps * chains.votes,
            batch_size=sizes.chain_batch,
            published="densepure",
            source="arXiv 2211.00322, Section 5",
        )


METHOD = Voting(Config)
