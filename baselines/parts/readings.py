"""How a denoiser is used, and other ways to use it: for the trial of a checkpoint."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from baselines.networks.consistency_map import ConsistencyModel
from baselines.networks.diffusion import DiffusionDenoiser
from bench.smoothing.sigma import cosine_alphas_cumprod, linear_alphas_cumprod

PREDICTIONS = {"epsilon": "the noise", "sample": "the clean image", "v_prediction": "v"}
"""diffusers' name of what a network predicts -> ours in a sentence."""


def schedule_name(denoiser: DiffusionDenoiser) -> str:
    """Return the name of the noise schedule: cosine, linear, or its own."""
    ours = denoiser.alphas_cumprod
    known = {"cosine": cosine_alphas_cumprod(len(ours)), "linear": linear_alphas_cumprod(len(ours))}
    near = (name for name, abar in known.items() if torch.allclose(abar, ours.double().cpu(), rtol=1e-3))
    return next(near, "its own")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A way to use a denoiser; see `bench.training.released.DenoiserReading`.

    Attributes:
        denoiser: a diffusion model with its prediction, schedule and scale of time, or a consistency model.
        told: it is told this multiple of sigma; the noise is that of sigma.
        sees_pixels: its images lie in [0,1] instead of [-1,1], with noise of sigma instead of 2 sigma.
    """

    denoiser: DiffusionDenoiser | ConsistencyModel
    told: float = 1.0
    sees_pixels: bool = False

    def __call__(self, x_noisy: Tensor, sigma: float) -> Tensor:
        """Return denoised pixels for x_noisy (B,C,H,W) in pixel units with noise of deviation sigma.

        Raises:
            ValueError: the schedule ends before that noise level.
        """
        if self.sees_pixels:
            return self.denoiser(x_noisy, self.told * sigma)
        return self.denoiser.denoise_pixels(x_noisy, self.told * sigma)

    def alternatives(self) -> dict[str, dict[str, Reading]]:
        """Return ways to use the denoiser that differ from this one in one thing: question -> reading -> use.

        The first reading of each question is this one. A consistency model has no prediction type and no schedule.
        Nor is it asked which sigma it is told: even a right one, which aims at an image of its own and not at the mean
        of all that are possible, comes nearer to the clean image where it is told more noise than there is.
        """
        ranges = {
            name: replace(self, sees_pixels=pixels) for name, pixels in (("[-1,1]", False), ("[0,1]", True))
        }
        in_range = {"range": {"[0,1]" if self.sees_pixels else "[-1,1]": self} | ranges}
        if isinstance(self.denoiser, ConsistencyModel):
            return in_range
        return _diffusion_questions(self, self.denoiser) | in_range

    def description(self) -> str:
        """Return in words what the denoiser is and which time stands for sigma."""
        if isinstance(self.denoiser, ConsistencyModel):
            return f"consistency model, one call, {self.time_rule()}"
        predicts, schedule = PREDICTIONS[self.denoiser.prediction], schedule_name(self.denoiser)
        return f"predicts {predicts}, {schedule} schedule, {self.time_rule()}"

    def time_rule(self) -> str:
        """Return in words which time, or time step, stands for sigma."""
        denoiser = self.denoiser
        if isinstance(denoiser, ConsistencyModel):
            latest = "a time that is not told" if denoiser.sigma_max is None else f"{denoiser.sigma_max:g}"
            return f"the time 2 sigma, of {denoiser.sigma_min:g} to {latest}"
        steps = len(denoiser.alphas_cumprod)
        fed = "" if denoiser.time_scale == 1 else f", fed times {denoiser.time_scale:g}"
        return f"first of {steps} steps with sqrt((1 - abar)/abar) >= 2 sigma{fed}"


def _diffusion_questions(base: Reading, denoiser: DiffusionDenoiser) -> dict[str, dict[str, Reading]]:
    """Return what is asked of a diffusion model alone."""
    told = {f"told {factor:g} sigma": replace(base, told=factor) for factor in (1.0, 0.5, 2.0)}
    steps = len(denoiser.alphas_cumprod)
    said = schedule_name(denoiser)
    other = "linear" if said == "cosine" else "cosine"
    abar = {"linear": linear_alphas_cumprod, "cosine": cosine_alphas_cumprod}[other](steps)
    predictions = {
        f"predicts {PREDICTIONS[name]}": _changed(base, prediction=name)
        for name in PREDICTIONS
        if name != denoiser.prediction
    }
    scales = {_fed(1.0): 1.0, _fed(1000 / steps): 1000 / steps}
    times = {name: _changed(base, time_scale=scale) for name, scale in scales.items()}
    questions = {
        "prediction": {f"predicts {PREDICTIONS[denoiser.prediction]}": base} | predictions,
        "schedule": {f"{said} schedule": base, f"{other} schedule": _changed(base, alphas_cumprod=abar)},
        "sigma told": {f"told {base.told:g} sigma": base} | told,
    }
    if steps != 1000 and type(denoiser).predict is DiffusionDenoiser.predict:
        questions["scale of time"] = {_fed(denoiser.time_scale): base} | times
    return questions


def _fed(scale: float) -> str:
    return f"time step fed times {scale:g}"


def _changed(base: Reading, **attributes: object) -> Reading:
    """Return the reading of a copy of the denoiser that shares the weights and differs in some attributes."""
    other = copy.copy(base.denoiser)
    for name, value in attributes.items():
        setattr(other, name, value)
    return replace(base, denoiser=other)
