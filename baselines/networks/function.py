"""A denoiser of the user's own: any callable of the contract `bench.types.Denoiser`."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from bench.smoothing.sigma import sigma_to_model, to_model_units, to_pixel_units


def is_denoiser(made: Any) -> bool:
    """Return whether something can be called as a denoiser is, with (x_noisy, sigma_model, keys)."""
    if not callable(made):
        return False
    try:
        inspect.signature(made.forward if isinstance(made, nn.Module) else made).bind(None, None, None)
    except (TypeError, ValueError):
        return False
    return True


class FunctionDenoiser(nn.Module):
    """A callable of (x_noisy, sigma_model, keys), as a denoiser of one step.

    Args:
        denoise: from images in model units ([-1,1], noise of deviation sigma_model) to clean ones; a torch module is
            moved to the device with the rest.
    """

    def __init__(self, denoise: Any) -> None:
        super().__init__()
        self.denoise = denoise

    def forward(self, x_noisy: Tensor, sigma_model: float, keys: Tensor | None = None) -> Tensor:
        """Return x_hat (B,C,H,W) for x_noisy in model units."""
        return self.denoise(x_noisy, sigma_model, keys)

    def denoise_pixels(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return denoised pixels for x_noisy (B,C,H,W) in pixel units with noise of deviation sigma."""
        return to_pixel_units(self(to_model_units(x_noisy), sigma_to_model(sigma), keys))
