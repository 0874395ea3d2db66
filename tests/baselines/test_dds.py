"""One-shot denoising: the optimal denoiser of Gaussian data, and the whole pipeline's units."""

import pytest
import torch
from torch import nn

from baselines.networks.unet import Denoiser
from baselines.purifiers.denoised import DenoisedClassifier
from bench.errors import UsageError
from bench.smoothing.sigma import timestep_of_sigma
from tests.support.tiny import TASK

MEAN, DEVIATION = 0.2, 0.3


class OptimalNoise(nn.Module):
    """E[eps | x_t] for data N(MEAN, DEVIATION^2) in model units: the U-Net that training would reach."""

    def __init__(self, alphas_cumprod):
        super().__init__()
        self.alphas_cumprod = alphas_cumprod

    def forward(self, x_t, timesteps):
        abar = self.alphas_cumprod[timesteps].float().view(-1, 1, 1, 1)
        variance = abar * DEVIATION**2 + 1 - abar
        eps = (1 - abar).sqrt() * (x_t - abar.sqrt() * MEAN) / variance
        return type("Output", (), {"sample": eps})


def optimal():
    denoiser = Denoiser(TASK, (8, 8))
    denoiser.unet = OptimalNoise(denoiser.alphas_cumprod)
    return denoiser


@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0])
def test_optimal_noise_prediction_gives_the_optimal_denoiser(sigma):
    denoiser = optimal()
    x_noisy = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    abar = denoiser.alphas_cumprod[timestep_of_sigma(sigma, denoiser.alphas_cumprod)]
    level = float((1 - abar) / abar)  # the time step's own noise, the first not below 2 sigma
    assert (2 * sigma) ** 2 <= level < 1.05 * (2 * sigma) ** 2
    expected = (DEVIATION**2 * x_noisy + level * MEAN) / (DEVIATION**2 + level)
    torch.testing.assert_close(denoiser(x_noisy, 2 * sigma), expected, rtol=1e-4, atol=1e-5)


def test_classifier_sees_denoised_pixels():
    method = DenoisedClassifier(optimal(), nn.Flatten())
    seen = method(torch.full((1, 1, 8, 8), 0.6), 0.5)  # 0.6 in pixels is the data's mean, 0.2 in model units
    torch.testing.assert_close(seen, torch.full((1, 64), 0.6))


def test_folding_pixels_loses_nothing():
    x = torch.rand(2, 1, 8, 8)
    denoiser = Denoiser(TASK, (8, 8))
    denoiser.unet = type(
        "Echo", (nn.Module,), {"forward": lambda self, x, t: type("Output", (), {"sample": x})}
    )()
    assert torch.equal(denoiser.predict(x, torch.zeros(2).long()), x)


def test_image_size_must_fit_the_network():
    with pytest.raises(UsageError, match="image size that 8 divides, got 28"):
        Denoiser(type(TASK)(dataset="grey", channels=1, image_size=28, num_classes=2), (8, 8, 8))
