"""Units and schedules: closed forms."""

import itertools
import math
import operator
from decimal import Context, Decimal, localcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.smoothing.sigma import (
    c_in,
    cosine_alphas_cumprod,
    karras_grid,
    linear_alphas_cumprod,
    nearest_time,
    sigma_to_model,
    timestep_of_sigma,
    to_model_units,
    to_pixel_units,
)


def test_model_units_of_pixels_and_back():
    x = torch.tensor([0.0, 0.25, 1.0])
    assert to_model_units(x).tolist() == [-1.0, -0.5, 1.0]
    assert torch.equal(to_pixel_units(to_model_units(x)), x)


def test_sigma_doubles_as_the_pixels_do():
    x, z = torch.rand(10), torch.randn(10)
    noisy = to_model_units(x + 0.5 * z)
    torch.testing.assert_close(noisy, to_model_units(x) + sigma_to_model(0.5) * z)


def test_karras_grid_falls_from_80_to_0_002_with_even_seventh_roots():
    grid = karras_grid(81)
    assert grid.dtype == torch.float64
    assert grid[0].item() == pytest.approx(80)
    assert grid[-1].item() == pytest.approx(0.002)
    steps = (grid ** (1 / 7)).diff()
    torch.testing.assert_close(steps, steps[:1].expand(80))
    assert (steps < 0).all()


@pytest.mark.parametrize(
    ("sigma", "num_scales", "time"),
    [(0.25, 81, 0.4927), (0.5, 81, 0.9654), (1.0, 81, 2.0036), (1.0, 21, 1.58)],
)
def test_nearest_time_agrees_with_the_papers_grid(sigma, num_scales, time):
    assert nearest_time(sigma, num_scales) == pytest.approx(time, abs=0.005 if num_scales == 21 else 5e-5)


@pytest.mark.parametrize("t", [0.002, 0.5, 80.0])
def test_c_in_gives_unit_variance(t):
    scale = c_in(torch.tensor(t, dtype=torch.float64)).item()
    assert scale**2 * (0.5**2 + t**2) == pytest.approx(1)


def test_cosine_schedule_is_the_squared_cosine_until_betas_are_clipped():
    abar = cosine_alphas_cumprod(4000)
    assert len(abar) == 4000
    at = [math.cos((t / 4000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 1, 2000, 3900)]
    assert abar[[0, 1999, 3899]].tolist() == pytest.approx([at[1] / at[0], at[2] / at[0], at[3] / at[0]])
    assert (1 - abar[1:] / abar[:-1]).max() <= 0.999 + 1e-12


def squared_cosine(angle):
    """Return cos^2 a = (1 + cos 2a) / 2 by the cosine's series, in the precision of the context."""
    term, total, power = Decimal(1), Decimal(2), 0
    while abs(term) > Decimal(10) ** -45:
        power += 2
        term *= -((2 * angle) ** 2) / (power * (power - 1))
        total += term
    return total / 2


def test_the_cosine_schedule_is_rounded_once():
    pi = Decimal("3.14159265358979323846264338327950288419716939937510")
    with localcontext(Context(prec=48)):
        step = pi / 2 / 1000 / Decimal("1.008")
        exact = [squared_cosine((t + 8) * step) for t in range(0, 981, 7)]
        expected = [float(one / exact[0]) for one in exact[1:]]
    assert cosine_alphas_cumprod(1000)[6:980:7].tolist() == expected


def test_the_linear_schedule_rounds_products_and_sums_alone():
    """In Python's own numbers, one operation after the other."""
    first, last, steps = 0.1 / 1000, 20 / 1000, 1000
    betas = [i * ((last - first) / (steps - 1)) + first for i in range(steps - 1)] + [last]
    kept = itertools.accumulate((1 - beta for beta in betas), operator.mul)
    assert linear_alphas_cumprod(steps).tolist() == list(kept)


def test_timestep_is_the_first_that_reaches_the_noise():
    abar = cosine_alphas_cumprod(1000)
    step = timestep_of_sigma(0.5, abar)
    levels = [math.sqrt((1 - value) / value) for value in abar[: step + 1].tolist()]
    assert levels[-1] >= 1.0
    assert all(level < 1.0 for level in levels[:-1])


def test_a_schedule_that_ends_too_early_is_refused():
    with pytest.raises(ValueError, match=r"sigma 1 lies beyond this schedule, which ends at 0.166667"):
        timestep_of_sigma(1.0, torch.tensor([0.99, 0.9], dtype=torch.float64))


class NoOperations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} is a graph break of torch.compile")


@pytest.mark.parametrize("num_scales", [21, 81])
def test_the_nearest_time_is_a_time_of_the_grid_and_no_tensor_is_made_for_it(num_scales):
    grid = karras_grid(num_scales)
    for sigma in (0.12, 0.25, 0.5, 1.0, 2.0):
        with NoOperations():
            found = nearest_time(sigma, num_scales)
        assert found == grid[(grid - 2 * sigma).abs().argmin()]
