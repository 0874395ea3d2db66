"""Units, schedules and seeded noise: closed forms, and what a block of noise depends on."""

import math
import subprocess
import sys

import pytest
import torch

from bench.smoothing import noise

CPU = torch.device("cpu")


def test_model_units_of_pixels_and_back():
    x = torch.tensor([0.0, 0.25, 1.0])
    assert noise.to_model_units(x).tolist() == [-1.0, -0.5, 1.0]
    assert torch.equal(noise.to_pixel_units(noise.to_model_units(x)), x)


def test_sigma_doubles_as_the_pixels_do():
    x, z = torch.rand(10), torch.randn(10)
    noisy = noise.to_model_units(x + 0.5 * z)
    torch.testing.assert_close(noisy, noise.to_model_units(x) + noise.sigma_to_model(0.5) * z)


def test_karras_grid_falls_from_80_to_0_002_with_even_seventh_roots():
    grid = noise.karras_grid(81)
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
    assert noise.nearest_time(sigma, num_scales) == pytest.approx(
        time, abs=0.005 if num_scales == 21 else 5e-5
    )


@pytest.mark.parametrize("t", [0.002, 0.5, 80.0])
def test_c_in_gives_unit_variance(t):
    scale = noise.c_in(torch.tensor(t, dtype=torch.float64)).item()
    assert scale**2 * (0.5**2 + t**2) == pytest.approx(1)


def test_cosine_schedule_is_the_squared_cosine_until_betas_are_clipped():
    abar = noise.cosine_alphas_cumprod(4000)
    assert len(abar) == 4000
    at = [math.cos((t / 4000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 1, 2000, 3900)]
    assert abar[[0, 1999, 3899]].tolist() == pytest.approx([at[1] / at[0], at[2] / at[0], at[3] / at[0]])
    assert (1 - abar[1:] / abar[:-1]).max() <= 0.999 + 1e-12


def test_timestep_is_the_first_that_reaches_the_noise():
    abar = noise.cosine_alphas_cumprod(1000)
    step = noise.timestep_of_sigma(0.5, abar)
    levels = [math.sqrt((1 - value) / value) for value in abar[: step + 1].tolist()]
    assert levels[-1] >= 1.0
    assert all(level < 1.0 for level in levels[:-1])


def test_a_schedule_that_ends_too_early_is_refused():
    with pytest.raises(ValueError, match=r"sigma 1 lies beyond this schedule, which ends at 0.166667"):
        noise.timestep_of_sigma(1.0, torch.tensor([0.99, 0.9], dtype=torch.float64))


def test_seeds_are_the_same_in_another_process():
    command = "from bench.smoothing.noise import stable_seed; print(stable_seed(3, 'a', 0.5))"
    printed = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    ).stdout
    assert int(printed) == noise.stable_seed(3, "a", 0.5)


def test_seeds_fit_63_bits_and_depend_on_where_parts_end():
    seeds = {noise.stable_seed(*parts) for parts in [(1, 23), (12, 3), (1, 2, 3), (123,)]}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_block_is_the_same_whatever_was_drawn_before():
    first = noise.noise_block(1, 2, "selection", 3, (1, 4, 4), CPU)
    torch.randn(7)
    assert torch.equal(noise.noise_block(1, 2, "selection", 3, (1, 4, 4), CPU), first)
    assert first.shape == (noise.NOISE_BLOCK, 1, 4, 4)
    assert first.dtype == torch.float32


def test_drawing_a_block_leaves_the_global_generator_alone():
    torch.randn(7)
    state = torch.get_rng_state()
    noise.noise_block(1, 2, "selection", 3, (1, 4, 4), CPU)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "other", [(2, 2, "selection", 3), (1, 3, "selection", 3), (1, 2, "estimation", 3), (1, 2, "selection", 4)]
)
def test_seed_index_stage_and_block_each_change_the_noise(other):
    a = noise.noise_block(1, 2, "selection", 3, (4, 8, 8), CPU)
    b = noise.noise_block(*other, (4, 8, 8), CPU)
    # 32,768 products of independent normals: mean 0, standard deviation 1/181; 5.5 of these is passed
    # by chance with probability 4e-8.
    assert abs((a * b).mean().item()) < 5.5 / math.sqrt(a.numel())


def test_noise_has_mean_zero_and_variance_one():
    draws = noise.noise_block(0, 0, "estimation", 0, (4, 8, 8), CPU).double()
    # Standard deviations 1/sqrt(N) and sqrt(2/N); 5.5 of these is passed by chance with probability 8e-8.
    assert abs(draws.mean().item()) < 5.5 / math.sqrt(draws.numel())
    assert abs(draws.square().mean().item() - 1) < 5.5 * math.sqrt(2 / draws.numel())


def test_keys_identify_each_sample_once():
    blocks = [
        noise.sample_keys(seed, index, stage, block, CPU)
        for seed in (0, 1)
        for index in (0, 1)
        for stage in ("selection", "estimation")
        for block in range(4)
    ]
    keys = torch.cat(blocks)
    assert keys.dtype == torch.int64
    assert (keys >= 0).all()
    assert len(keys.unique()) == 32 * noise.NOISE_BLOCK
