"""How the baselines' networks are fed, and other ways to feed them: for the trial of a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from baselines.diffusion import DiffusionDenoiser
from baselines.external import ResizedClassifier
from baselines.resnet import Normalize
from bench.noise import cosine_alphas_cumprod, linear_alphas_cumprod

Denoise = Callable[[Tensor, float], Tensor]
"""(x_noisy (B,C,H,W) in pixel units, sigma) -> denoised pixels."""

PREDICTIONS = {"epsilon": "the noise", "sample": "the clean image", "v_prediction": "v"}
"""diffusers' name of what a network predicts -> ours in a sentence."""


def normalisation(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return (mean, deviation) in pixel units of the network's own normalisation, or None where it has none."""
    layers = (layer for layer in network.modules() if isinstance(layer, Normalize))
    layer = next(layers, None)
    return None if layer is None else (layer.mean, layer.std)


def resized_to(network: nn.Module) -> tuple[int, int] | None:
    """Return (height, width) that the network resizes images to, or None where it leaves them as they are."""
    layers = (layer.size for layer in network.modules() if isinstance(layer, ResizedClassifier))
    return next(layers, None)


def time_rule(denoiser: DiffusionDenoiser) -> str:
    """Return in words which time step stands for sigma."""
    steps = len(denoiser.alphas_cumprod)
    fed = "" if denoiser.time_scale == 1 else f", fed times {denoiser.time_scale:g}"
    return f"first of {steps} steps with sqrt((1 - abar)/abar) >= 2 sigma{fed}"


def schedule_name(denoiser: DiffusionDenoiser) -> str:
    """Return the name of the noise schedule: cosine, linear, or its own."""
    ours = denoiser.alphas_cumprod
    known = {"cosine": cosine_alphas_cumprod(len(ours)), "linear": linear_alphas_cumprod(len(ours))}
    near = (name for name, abar in known.items() if torch.allclose(abar, ours.double().cpu(), rtol=1e-3))
    return next(near, "its own")


def denoiser_readings(denoiser: DiffusionDenoiser) -> dict[str, dict[str, Denoise]]:
    """Return the ways to use a denoiser that released programs are confused in: question -> reading -> denoising.

    The first reading of each question is the declared one. A reading raises ValueError where its schedule ends
    below the noise level.
    """
    ours, steps = denoiser.denoise_pixels, len(denoiser.alphas_cumprod)
    said = schedule_name(denoiser)
    other = "linear" if said == "cosine" else "cosine"
    abar = {"linear": linear_alphas_cumprod, "cosine": cosine_alphas_cumprod}[other](steps)
    predictions = {denoiser.prediction: ours} | {
        name: _changed(denoiser, prediction=name) for name in PREDICTIONS if name != denoiser.prediction
    }
    questions: dict[str, dict[str, Denoise]] = {
        "prediction": {f"predicts {PREDICTIONS[name]}": use for name, use in predictions.items()},
        "schedule": {f"{said} schedule": ours, f"{other} schedule": _changed(denoiser, alphas_cumprod=abar)},
        "range": {"[-1,1]": ours, "[0,1]": lambda x_noisy, sigma: denoiser(x_noisy, sigma)},
        "time": {
            "time step of 2 sigma": ours,
            "time step of sigma": lambda x_noisy, sigma: ours(x_noisy, sigma / 2),
            "time step of 4 sigma": lambda x_noisy, sigma: ours(x_noisy, 2 * sigma),
        },
    }
    if steps != 1000 and type(denoiser).predict is DiffusionDenoiser.predict:
        scale = 1000 / steps if denoiser.time_scale == 1 else 1.0
        questions["time"][f"time step fed times {scale:g}"] = _changed(denoiser, time_scale=scale)
    return questions


def _changed(denoiser: DiffusionDenoiser, **attributes: object) -> Denoise:
    """Return the denoising of a copy that shares the weights and differs in some attributes."""
    other = copy.copy(denoiser)
    for name, value in attributes.items():
        setattr(other, name, value)
    return other.denoise_pixels
