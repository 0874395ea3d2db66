"""Small U-Nets of diffusers on space-to-depth pixels, and the small denoiser: such a U-Net predicting the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from baselines.networks.diffusion import DiffusionDenoiser
from bench.errors import UsageError
from bench.smoothing.sigma import cosine_alphas_cumprod
from bench.types import Task

if TYPE_CHECKING:
    from diffusers import UNet2DModel


GROUPS = 8
"""Groups of each group norm."""


def small_unet(task: Task, channels: tuple[int, ...], patch: int) -> UNet2DModel:
    """Return a U-Net with random weights for images folded by `patch`.

    Folding makes (C,H,W) into (C patch^2, H/patch, W/patch), which costs patch^2 times less than the same channels
    at full resolution.

    Raises:
        UsageError: patch times the U-Net's own halvings do not divide the image size, or GROUPS the channels.
    """
    if not channels or min(channels) < GROUPS or any(one % GROUPS for one in channels):
        raise UsageError(
            f"channels are {channels}, expected one number or more, each a multiple of {GROUPS}."
        )
    factor = patch * 2 ** (len(channels) - 1)
    if task.image_size % factor:
        raise UsageError(
            f"patch {patch} and {len(channels)} resolutions need an image size that {factor} divides, "
            f"got {task.image_size}."
        )
    folded = task.channels * patch**2
    from diffusers import UNet2DModel  # here, since it takes longer to import than torch

    return UNet2DModel(
        sample_size=task.image_size // patch,
        in_channels=folded,
        out_channels=folded,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) * len(channels),
        up_block_types=("UpBlock2D",) * len(channels),
        norm_num_groups=GROUPS,
        add_attention=False,
    )


class Denoiser(DiffusionDenoiser):
    """An epsilon-prediction diffusion model used for one denoising step (arXiv 2206.10550), on folded images.

    Raises:
        UsageError: as in `small_unet`.
    """

    def __init__(self, task: Task, channels: tuple[int, ...], *, patch: int = 2, steps: int = 1000) -> None:
        super().__init__(small_unet(task, channels, patch), cosine_alphas_cumprod(steps))
        self.patch = patch

    def predict(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """Return the predicted noise (B,C,H,W) in x_t = sqrt(abar) x + sqrt(1 - abar) eps, at timesteps (B,)."""
        folded = F.pixel_unshuffle(x_t, self.patch)
        return F.pixel_shuffle(self.unet(folded, timesteps).sample, self.patch)
