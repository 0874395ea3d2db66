"""The small denoiser: a diffusers U-Net on space-to-depth pixels, predicting the noise."""

from __future__ import annotations

import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn

from bench.errors import UsageError
from bench.noise import (
    cosine_alphas_cumprod,
    sigma_to_model,
    timestep_of_sigma,
    to_model_units,
    to_pixel_units,
)
from bench.types import Task


class Denoiser(nn.Module):
    """An epsilon-prediction diffusion model used for one denoising step (arXiv 2206.10550).

    The U-Net sees images folded by `patch`: (C,H,W) becomes (C patch^2, H/patch, W/patch), which costs patch^2
    times less than the same channels at full resolution.

    Raises:
        UsageError: patch times the U-Net's own halvings do not divide the image size.
    """

    def __init__(self, task: Task, channels: tuple[int, ...], *, patch: int = 2, steps: int = 1000) -> None:
        super().__init__()
        factor = patch * 2 ** (len(channels) - 1)
        if task.image_size % factor:
            raise UsageError(
                f"patch {patch} and {len(channels)} resolutions need an image size that {factor} divides, "
                f"got {task.image_size}."
            )
        self.patch = patch
        self.alphas_cumprod = cosine_alphas_cumprod(steps)
        folded = task.channels * patch**2
        self.unet = UNet2DModel(
            sample_size=task.image_size // patch,
            in_channels=folded,
            out_channels=folded,
            layers_per_block=1,
            block_out_channels=channels,
            down_block_types=("DownBlock2D",) * len(channels),
            up_block_types=("UpBlock2D",) * len(channels),
            norm_num_groups=8,
            add_attention=False,
        )

    def predict_noise(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """Return the predicted noise (B,C,H,W) in x_t = sqrt(abar) x + sqrt(1 - abar) eps, at timesteps (B,)."""
        folded = F.pixel_unshuffle(x_t, self.patch)
        return F.pixel_shuffle(self.unet(folded, timesteps).sample, self.patch)

    def forward(self, x_noisy: Tensor, sigma_model: float, keys: Tensor | None = None) -> Tensor:
        """Return x_hat (B,C,H,W) in [-1,1] for x_noisy in model units with noise of deviation sigma_model.

        One step: t* is the first t whose noise level reaches sigma_model, x_t = sqrt(abar) x_noisy,
        x_hat = (x_t - sqrt(1 - abar) eps) / sqrt(abar), clipped (arXiv 2206.10550, Algorithm 1).
        """
        t = timestep_of_sigma(sigma_model / 2, self.alphas_cumprod)
        abar = float(self.alphas_cumprod[t])
        x_t = abar**0.5 * x_noisy
        eps = self.predict_noise(x_t, x_noisy.new_full((len(x_noisy),), t).long())
        return ((x_t - (1 - abar) ** 0.5 * eps) / abar**0.5).clamp(-1, 1)

    def denoise_pixels(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return denoised pixels in [0,1] for x_noisy (B,C,H,W) in pixel units with noise of deviation sigma."""
        return to_pixel_units(self(to_model_units(x_noisy), sigma_to_model(sigma), keys))
