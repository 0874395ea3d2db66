"""A consistency model as a denoiser, and the loss of consistency training (Song et al. 2023, arXiv 2303.01469)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.smoothing.sigma import SIGMA_DATA, SIGMA_MIN, sigma_to_model, to_model_units, to_pixel_units

HUBER = 0.00054
"""c / sqrt(d) of the pseudo-Huber distance in d dimensions (arXiv 2310.14189, Section 3.3)."""


class ConsistencyModel(nn.Module):
    """f(x, t) = c_skip(t) x + c_out(t) F(c_in(t) x, 250 ln t), which is x at t = sigma_min (arXiv 2303.01469, Eq. 5).

    Attributes:
        unet: (scaled x, times) -> an object whose `sample` is F.
        patch: side of the squares of pixels folded into channels before the U-Net; 1 leaves pixels as they are.
        sigma_data, sigma_min: constants of the scalings, in model units.
        sigma_max: the latest time that was trained, in model units; None where nothing tells it.
    """

    def __init__(
        self,
        unet: nn.Module,
        *,
        patch: int = 1,
        sigma_data: float = SIGMA_DATA,
        sigma_min: float = SIGMA_MIN,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.patch = unet, patch
        self.sigma_data, self.sigma_min, self.sigma_max = sigma_data, sigma_min, sigma_max

    def scalings(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return c_skip, c_out and c_in at times t in model units (arXiv 2303.01469, Appendix C)."""
        past, norm = t - self.sigma_min, (t.square() + self.sigma_data**2).rsqrt()
        c_skip = self.sigma_data**2 / (past.square() + self.sigma_data**2)
        return c_skip, past * self.sigma_data * norm, norm

    def at(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return f(x_t, t), unclipped, (B,C,H,W) in model units, for times t (B,)."""
        c_skip, c_out, c_in = (scale.view(-1, 1, 1, 1) for scale in self.scalings(t))
        folded = F.pixel_unshuffle(c_in * x_t, self.patch)
        predicted = F.pixel_shuffle(self.unet(folded, 250 * t.log()).sample, self.patch)
        return c_skip * x_t + c_out * predicted

    def forward(self, x_noisy: Tensor, sigma_model: float, keys: Tensor | None = None) -> Tensor:
        """Return x_hat (B,C,H,W), clipped to [-1,1], from one call for x_noisy with noise of deviation sigma_model."""
        t = torch.full((len(x_noisy),), sigma_model, dtype=torch.float32, device=x_noisy.device)
        return self.at(x_noisy, t).clamp(-1, 1)

    def denoise_pixels(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return denoised pixels in [0,1] for x_noisy (B,C,H,W) in pixel units with noise of deviation sigma."""
        return to_pixel_units(self(to_model_units(x_noisy), sigma_to_model(sigma)))


def training_loss(model: ConsistencyModel, x: Tensor, z: Tensor, times: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean of d(f(x + t z, t), f(x + s z, s)) / (t - s), the second f without gradient.

    It is the loss of arXiv 2303.01469, Algorithm 3. Deviation: the target network is the network itself without
    gradient, not its running average, which arXiv 2310.14189 (Section 3.2) shows to bias the result; d is the
    pseudo-Huber distance sqrt(|a - b|^2 + c^2) - c instead of LPIPS, since LPIPS needs a network trained on other
    data, and since a squared distance lets the few pairs that lie far apart rule the gradient; the weight 1 / (t - s)
    is that of arXiv 2310.14189 (Section 3.1).

    Args:
        x, z: clean images in model units and standard normal noise, (B,C,H,W).
        times: (t, s), each (B,), with t > s >= sigma_min.
    """
    t, s = times
    ours = model.at(x + t.view(-1, 1, 1, 1) * z, t)
    with torch.no_grad():
        target = model.at(x + s.view(-1, 1, 1, 1) * z, s)
    squared = (ours - target).float().square().flatten(1).sum(1)
    c = HUBER * x[0].numel() ** 0.5
    distance = squared / ((squared + c**2).sqrt() + c)  # the same as sqrt(. + c^2) - c, without cancellation
    return (distance / (t - s)).mean()
