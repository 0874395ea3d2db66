"""Seeded noise: what a block of it depends on."""

import math
import subprocess
import sys

import pytest
import torch

from bench.smoothing import noise

CPU = torch.device("cpu")


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
