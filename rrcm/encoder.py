"""The rRCM encoder (arXiv 2501.13094): a vision transformer of noisy images with a class and a time token.

Parameter names are those of the released checkpoints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.errors import UsageError
from bench.smoothing.sigma import c_in

NORM_EPS = 1e-5

EXTRA_TOKENS = 2
"""Tokens of the encoder that are no patches: class and time."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes of the encoder and how it is trained; the names are those of the released configurations.

    Attributes:
        embed_dim: width D of the tokens.
        hidden_dim, output_dim: widths of the projector.
        moco_initialization: linear maps and patch projection start as in MoCo-v3 (see `initialise_as_moco`), as in the
            released program on ImageNet; else by PyTorch's defaults, as there on CIFAR-10.
        stop_grad_conv1: the patch projection is not trained in pre-training.
        checkpoint_blocks: compute each block again in the backward pass: less memory, the same gradients.
    """

    image_size: int
    patch_size: int
    in_channels: int
    embed_dim: int
    depth: int
    num_heads: int
    hidden_dim: int
    output_dim: int
    moco_initialization: bool = False
    stop_grad_conv1: bool = False
    checkpoint_blocks: bool = False

    @property
    def unseen(self) -> dict[str, int | bool]:
        """Options that shape the training of an encoder and do not show in its first weights."""
        return {"num_heads": self.num_heads, "stop_grad_conv1": self.stop_grad_conv1}

    @property
    def num_patches(self) -> int:
        """Number of image patches."""
        return (self.image_size // self.patch_size) ** 2


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values without bias."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended tokens for x (B,T,D)."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    """Linear, GELU, linear, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the transformed tokens for x (B,T,D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for x (B,T,D)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Non-overlapping patches, each projected to D."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.in_channels, config.embed_dim, config.patch_size, config.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (B,P,D) for x (B,C,H,W)."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Encoder(nn.Module):
    """Encoder and projector.

    Raises:
        UsageError: the patch size does not divide the image size, or the heads the width.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        if config.image_size % config.patch_size or config.embed_dim % config.num_heads:
            raise UsageError(
                f"patch_size {config.patch_size} must divide image_size {config.image_size}, and num_heads "
                f"{config.num_heads} must divide embed_dim {config.embed_dim}."
            )
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, EXTRA_TOKENS + config.num_patches, config.embed_dim))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config.embed_dim, config.num_heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if config.moco_initialization:
            initialise_as_moco(self)
        # After the encoder: a projector starts by PyTorch's defaults whatever the encoder does.
        self.projection_head: nn.Module = make_projector(
            config.embed_dim, config.hidden_dim, config.output_dim
        )
        self.patch_embed.requires_grad_(not config.stop_grad_conv1)

    def forward(self, x_t: Tensor, t: Tensor, *, layernorm: bool = True) -> Tensor:
        """Return the representation h (B,D): the class token after the last block.

        Args:
            x_t: (B,C,H,W) noisy images in model units, x + t z.
            t: (B,) times, equal to the noise's standard deviation in model units, > 0.
            layernorm: whether the last LayerNorm is applied.
        """
        h = self.tokens(x_t, t)[:, 0]
        return self.norm(h) if layernorm else h

    def tokens(self, x_t: Tensor, t: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the tokens (B,2+V,D) after the last block: class, time, and V patches; `x_t` and `t` as in `forward`.

        Args:
            visible: (B,V) the patches that are seen; None: all, in order.
        """
        patches = self.patch_embed(c_in(t).view(-1, 1, 1, 1).to(x_t) * x_t)
        time = time_embedding(t, self.config.embed_dim).to(patches)[:, None]
        tokens = torch.cat([self.cls_token.expand(len(x_t), -1, -1).to(patches), time, patches], dim=1)
        tokens = tokens + self.pos_embed
        if visible is not None:
            places = visible[:, :, None].expand(-1, -1, self.config.embed_dim)
            tokens = torch.cat([tokens[:, :EXTRA_TOKENS], tokens[:, EXTRA_TOKENS:].gather(1, places)], dim=1)
        for block in self.blocks:
            if self.config.checkpoint_blocks and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = block(tokens)
        return tokens

    def project(self, h: Tensor) -> Tensor:
        """Return projections (B, output_dim) of representations h (B,D)."""
        return self.projection_head(h)


def make_projector(dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Return the projector: Linear-BN-ReLU, Linear-BN-ReLU, Linear, none with bias, from (B,dim) to (B,output_dim)."""
    return nn.Sequential(
        nn.Linear(dim, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, output_dim, bias=False),
    )


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Return the sinusoidal embedding (B,dim) of 250 ln(t): cosines, then sines, periods up to 10,000 (x 2 pi)."""
    half = dim // 2
    frequencies = torch.exp(
        -math.log(10_000) * torch.arange(half, device=t.device, dtype=torch.float32) / half
    )
    angles = (250 * t.float().log())[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def initialise_as_moco(encoder: Encoder) -> None:
    """Draw the weights of all linear maps from Xavier's uniform range, biases zero (arXiv 2104.02057).

    Queries, keys and values count as three maps, and the patch projection as one from a patch's C p^2 values to D.
    """
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Linear):
            outputs = module.out_features // 3 if name.endswith(".qkv") else module.out_features
            _draw_uniformly(module, math.sqrt(6 / (module.in_features + outputs)))
    projection = encoder.patch_embed.proj
    _draw_uniformly(projection, math.sqrt(6 / (projection.weight[0].numel() + projection.out_channels)))


def _draw_uniformly(module: nn.Linear | nn.Conv2d, bound: float) -> None:
    nn.init.uniform_(module.weight, -bound, bound)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
