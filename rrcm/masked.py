"""Masked pre-training (DMAE, arXiv 2210.06983): noisy visible patches in, the clean image out; a control of rRCM's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bench.smoothing.sigma import nearest_time, sigma_to_model, to_model_units
from bench.training.batches import Batch
from bench.training.loop import FORWARDS_WITH_GRADIENT
from bench.types import Task
from rrcm.encoder import EXTRA_TOKENS, Block, Encoder, EncoderConfig
from rrcm.schedule import FINE_TUNING_SCALES
from rrcm.views import plain_view

MASKED_SHARE = 0.75
"""Share of the patches that the encoder does not see."""

SIGMA = 0.25
"""Noise of the visible patches, in pixel units."""


class Decoder(nn.Module):
    """One transformer block of half the encoder's width, from the visible tokens to all pixels.

    Deviation: the paper's decoder has eight blocks, and its targets are normalised patch by patch.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        config = encoder.config
        width = config.embed_dim // 2
        self.embed = nn.Linear(config.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, EXTRA_TOKENS + config.num_patches, width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.block = Block(width, max(1, config.num_heads // 2))
        self.predict = nn.Linear(width, config.in_channels * config.patch_size**2)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Return the predicted pixels of all patches, (B,P,C p^2).

        Args:
            tokens: (B,2+V,D) of the encoder: class, time, and V visible patches.
            visible: (B,V) their positions.
        """
        embedded = self.embed(tokens)
        patches = self.pos_embed.shape[1] - EXTRA_TOKENS
        hidden = self.mask_token.to(embedded).repeat(len(tokens), patches, 1)
        places = visible[:, :, None].expand(-1, -1, embedded.shape[2])
        whole = hidden.scatter(1, places, embedded[:, EXTRA_TOKENS:])
        sequence = torch.cat([embedded[:, :EXTRA_TOKENS], whole], dim=1) + self.pos_embed
        return self.predict(self.block(sequence)[:, EXTRA_TOKENS:])


def patches_of(x: Tensor, side: int) -> Tensor:
    """Return the pixels of the patches of x (B,C,H,W), row by row: (B,P,C side^2)."""
    rows, columns = x.shape[2] // side, x.shape[3] // side
    parts = x.unflatten(3, (columns, side)).unflatten(2, (rows, side))
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def visible_count(patches: int) -> int:
    """Return how many of an image's patches the encoder sees."""
    return max(1, round((1 - MASKED_SHARE) * patches))


def forwards_per_image(sizes: EncoderConfig) -> float:
    """Return the cost of a step on one image, in forward passes of the encoder: its share of tokens, and the decoder.

    A block's work is taken to grow with its tokens and with the square of its width.
    """
    encoder = (EXTRA_TOKENS + visible_count(sizes.num_patches)) / (EXTRA_TOKENS + sizes.num_patches)
    decoder = 1 / (4 * sizes.depth)
    return FORWARDS_WITH_GRADIENT * (encoder + decoder)


class MaskedObjective:
    """Mean squared error, over all pixels, of the clean image predicted from a quarter of its noisy patches."""

    def __init__(self, encoder: Encoder, task: Task) -> None:
        self.network, self.task = encoder, task
        self.decoder = Decoder(encoder)
        self.companions = nn.ModuleList([self.decoder])

    @property
    def forwards(self) -> float:
        """Forward passes per image and step; see `forwards_per_image`."""
        return forwards_per_image(self.network.config)

    @property
    def identity(self) -> dict[str, Any]:
        """What does not show in the weights of the encoder; see `bench.training.loop.Objective`."""
        return self.network.config.unseen

    def parameter_groups(self, learning_rate: float) -> Iterable[dict[str, Any]]:
        """Return the encoder's trained parameters and the decoder's, at one learning rate."""
        trained = [*self.network.parameters(), *self.decoder.parameters()]
        return [{"params": [one for one in trained if one.requires_grad], "lr": learning_rate}]

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch."""
        encoder, generator = self.network, batch.generator
        x = to_model_units(plain_view(batch.x, self.task, generator))
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        order = torch.rand((len(x), encoder.config.num_patches), generator=generator, device=x.device)
        visible = order.argsort(dim=1)[:, : visible_count(encoder.config.num_patches)]
        t = x.new_full((len(x),), nearest_time(SIGMA, FINE_TUNING_SCALES))
        tokens = encoder.norm(encoder.tokens(x + sigma_to_model(SIGMA) * noise, t, visible))
        predicted = self.decoder(tokens, visible).float()
        return (predicted - patches_of(x, encoder.config.patch_size)).square().mean()

    def after_step(self, step: int) -> None:
        """Do nothing after the optimiser's step."""

    def score(self, average: nn.Module) -> None:
        """Return None: pre-training has no labels and runs for all its steps."""
