"""All of sigma: pixel and model units, noise schedules, and input scalings.

Pixels are in [0,1] and carry noise of standard deviation sigma; models are in [-1,1], where the same noise has
sigma_model = 2 sigma. Units change here and nowhere else.
"""

from __future__ import annotations

import operator
from decimal import Context, Decimal, localcontext
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from bench.smoothing.normal import PI, rotations

SIGMA_MIN, SIGMA_MAX, SIGMA_DATA, RHO = 0.002, 80.0, 0.5, 7.0
"""Constants of the time grid and the input scaling in model units (arXiv 2501.13094; arXiv 2206.00364, Eq. 5)."""


def to_model_units(x: Tensor) -> Tensor:
    """Return pixels [0,1] as model units [-1,1]; noise in them doubles its standard deviation."""
    return 2.0 * x - 1.0


def to_pixel_units(x: Tensor) -> Tensor:
    """Return model units [-1,1] as pixels [0,1]; inverse of `to_model_units`."""
    return (x + 1.0) / 2.0


def sigma_to_model(sigma: float) -> float:
    """Return the standard deviation, in model units, of noise that has `sigma` in pixel units."""
    return 2.0 * sigma


def karras_grid(num_scales: int, sigma_max: float = SIGMA_MAX) -> Tensor:
    """Return the N times t_0 > ... > t_{N-1} of the trajectory, (N,) float64, model units.

    t_i = (sigma_max^(1/7) + i/(N-1) (0.002^(1/7) - sigma_max^(1/7)))^7, from sigma_max down to SIGMA_MIN
    (arXiv 2206.00364, Eq. 5).
    """
    return torch.tensor(_karras_times(num_scales, sigma_max), dtype=torch.float64)


def nearest_time(sigma: float, num_scales: int) -> float:
    """Return the grid time nearest to sigma's exact time 2 sigma (arXiv 2501.13094, fine-tuning)."""
    return min(_karras_times(num_scales, SIGMA_MAX), key=lambda time: abs(time - sigma_to_model(sigma)))


def _karras_times(num_scales: int, sigma_max: float) -> list[float]:
    """Return the values of `karras_grid` without tensors, which torch.compile would stop at."""
    step, half = (
        1 / (num_scales - 1),
        num_scales // 2,
    )  # the second half counts from the end, as torch.linspace does
    steps = [i * step if i < half else 1 - (num_scales - 1 - i) * step for i in range(num_scales)]
    start, stop = sigma_max ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return [(start + one * (stop - start)) ** RHO for one in steps]


def c_in(t: Tensor) -> Tensor:
    """Return 1/sqrt(t^2 + sigma_data^2), the scale that gives x + t z unit variance (arXiv 2206.00364, Table 1)."""
    return (t.square() + SIGMA_DATA**2).rsqrt()


def cosine_alphas_cumprod(steps: int) -> Tensor:
    """Return abar_1 ... abar_T of the cosine schedule, (steps,) float64 (arXiv 2102.09672, Eq. 17, betas <= 0.999).

    Each is rounded once from 30 digits: a cosine from a library has other last bits on another processor, and with them
    a classifier's weights would have another digest.
    """
    with localcontext(Context(prec=30)):
        step = PI / 2 / steps / Decimal("1.008")
        angles = rotations(Decimal("0.008") * steps * step, step, steps + 1)
        squares = [cosine * cosine for cosine, _ in angles]
        kept = (max(after / before, Decimal("0.001")) for before, after in pairwise(squares))
        return torch.tensor([float(abar) for abar in accumulate(kept, operator.mul)], dtype=torch.float64)


def linear_alphas_cumprod(steps: int) -> Tensor:
    """Return abar_1 ... abar_T, (steps,) float64, of betas 0.1/T to 20/T (arXiv 2006.11239, Section 4, for any T)."""
    # Products and sums alone, which all processors round alike.
    betas = np.linspace(0.1 / steps, 20 / steps, steps)
    return torch.from_numpy(np.cumprod(1 - betas))


def timestep_of_sigma(sigma: float, alphas_cumprod: Tensor) -> int:
    """Return the first t with sqrt((1 - abar_t) / abar_t) >= 2 sigma (arXiv 2206.10550, Eq. 4).

    Raises:
        ValueError: the schedule ends before that noise level.
    """
    levels = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
    reached = torch.nonzero(levels >= sigma_to_model(sigma))
    if len(reached) == 0:
        raise ValueError(
            f"sigma {sigma:g} lies beyond this schedule, which ends at {float(levels[-1]) / 2:g}"
        )
    return int(reached[0])
