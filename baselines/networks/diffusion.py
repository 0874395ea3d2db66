"""Any diffusion model as a denoiser: one step, or a reverse chain from the time step of sigma."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.smoothing.noise import keyed_noise
from bench.smoothing.sigma import sigma_to_model, timestep_of_sigma, to_model_units, to_pixel_units

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""diffusers' names of what a network predicts: eps, v = sqrt(abar) eps - sqrt(1 - abar) x (arXiv 2202.00512), or x."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A reverse chain of `steps` network calls.

    Attributes:
        steps: 1 is one-shot denoising.
        eta: 1 draws the noise of the ancestral sampler, 0 none (arXiv 2010.02502, Eq. 16).
    """

    steps: int = 1
    eta: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"reverse_steps is {self.steps}, expected at least 1")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"reverse_eta is {self.eta:g}, expected 0 <= reverse_eta <= 1")

    def times(self, first: int) -> list[int]:
        """Return the time steps of the calls, evenly spaced from `first` on the way to clean images at -1.

        Raises:
            UsageError: more steps than there are.
        """
        if self.steps > first + 1:
            raise UsageError(
                f"reverse_steps is {self.steps}, but this sigma has {first + 1} time steps; ask for that many at most"
            )
        return [first - k * (first + 1) // self.steps for k in range(self.steps)]


class BeyondScheduleError(UsageError, ValueError):
    """A noise level at which a diffusion model was not trained."""


class DiffusionDenoiser(nn.Module):
    """A diffusion model as a Denoiser (arXiv 2206.10550, Algorithm 1; with a chain, its multi-step variant).

    Attributes:
        unet: (x_t, timesteps) -> an object whose `sample` is the prediction; channels beyond x_t's, a learned
            variance, are left out. Deviation: a chain has the posterior's variance, never the learned one, so that
            every network has the same sampler.
        alphas_cumprod: abar of each time step, (T,) float64, falling.
        time_scale: the network is fed this multiple of the time step.
        chain: how many calls; one-shot unless set.
    """

    def __init__(
        self,
        unet: nn.Module,
        alphas_cumprod: Tensor,
        *,
        prediction: Prediction = "epsilon",
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.unet, self.alphas_cumprod = unet, alphas_cumprod
        self.prediction, self.time_scale = prediction, time_scale
        self.chain = Chain()

    @property
    def alphas_cumprod(self) -> Tensor:
        """The schedule; whatever follows from it is computed once, since in each call it would delay the launches."""
        schedule: Tensor = vars(self)["alphas_cumprod"]
        return schedule

    @alphas_cumprod.setter
    def alphas_cumprod(self, alphas_cumprod: Tensor) -> None:
        # Under this name it is part of the digest of a classifier's weights.
        vars(self)["alphas_cumprod"] = alphas_cumprod
        self._abars: list[float] = []
        self._first_times: dict[float, int] = {}

    def predict(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """Return the network's prediction (B,C,H,W) for x_t at timesteps (B,)."""
        fed = timesteps if self.time_scale == 1 else timesteps * self.time_scale
        return self.unet(x_t, fed).sample[:, : x_t.shape[1]]

    def forward(self, x_noisy: Tensor, sigma_model: float, keys: Tensor | None = None) -> Tensor:
        """Return x_hat (B,C,H,W) in [-1,1] for x_noisy in model units with noise of deviation sigma_model.

        t* is the first time step whose noise level reaches sigma_model, x_t* = sqrt(abar) x_noisy, and the last
        call's x_hat is the result. Deviation: a released program redraws the noise at t*'s own level, a little above
        sigma, and begins its chain at t* - 1; here the certifier's noise stays, and the chain begins at t*, where
        x_t* was made.

        Args:
            keys: (B,) int64, the samples' identities; they pick the noise of a chain of more than one step.

        Raises:
            UsageError: a chain that draws noise, without keys, or with more steps than there are.
        """
        times = self.chain.times(self._first_time(sigma_model))
        x_t = self._abar[times[0]] ** 0.5 * x_noisy
        for now, then in pairwise(times):
            x_t = self._step(x_t, now, then, keys)
        return self.x_hat(x_t, times[-1])

    def x_hat(self, x_t: Tensor, t: int) -> Tensor:
        """Return the clean images (B,C,H,W), clipped to [-1,1], that the network sees in x_t at time step t."""
        abar = self._abar[t]
        predicted = self.predict(x_t, torch.full((len(x_t),), t, device=x_t.device))
        if self.prediction == "epsilon":
            predicted = (x_t - (1 - abar) ** 0.5 * predicted) / abar**0.5
        if self.prediction == "v_prediction":
            predicted = abar**0.5 * x_t - (1 - abar) ** 0.5 * predicted
        return predicted.clamp(-1, 1)

    def _step(self, x_t: Tensor, now: int, then: int, keys: Tensor | None) -> Tensor:
        """Return x at time step `then` < `now` (arXiv 2010.02502, Eq. 12, with the noise of the clipped x_hat)."""
        x_hat, abar, abar_then = self.x_hat(x_t, now), self._abar[now], self._abar[then]
        eps = (x_t - abar**0.5 * x_hat) / (1 - abar) ** 0.5
        variance = self.chain.eta**2 * (1 - abar_then) / (1 - abar) * (1 - abar / abar_then)
        x_then = abar_then**0.5 * x_hat + (1 - abar_then - variance) ** 0.5 * eps
        if variance == 0:
            return x_then
        if keys is None:
            raise UsageError(
                "a reverse chain draws noise for each sample by its key; pass keys, or set reverse_eta 0"
            )
        return x_then + variance**0.5 * keyed_noise(keys, now, tuple(x_t.shape[1:]), x_t.device)

    @property
    def _abar(self) -> list[float]:
        """The schedule as numbers, made at the first call: a network that is only counted is on the meta device."""
        if not self._abars:
            self._abars = self.alphas_cumprod.tolist()
        return self._abars

    def _first_time(self, sigma_model: float) -> int:
        if sigma_model not in self._first_times:
            try:
                self._first_times[sigma_model] = timestep_of_sigma(sigma_model / 2, self.alphas_cumprod)
            except ValueError as error:
                raise BeyondScheduleError(
                    f"{error}: name smaller noise levels, or another denoiser"
                ) from error
        return self._first_times[sigma_model]

    def denoise_pixels(self, x_noisy: Tensor, sigma: float, keys: Tensor | None = None) -> Tensor:
        """Return denoised pixels in [0,1] for x_noisy (B,C,H,W) in pixel units with noise of deviation sigma."""
        return to_pixel_units(self(to_model_units(x_noisy), sigma_to_model(sigma), keys))
