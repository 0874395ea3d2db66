"""Seeded noise: what a block of it depends on."""

import itertools
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


@pytest.mark.parametrize(
    ("seed", "one", "other"),
    [
        (0, (0, 213), (5280, 256)),
        (8, (5560, 287), (5560, 408)),
        (2**32, (0, 0), (0, 2**20)),
        (5, (1, 2), (2, 1)),
    ],
)
def test_blocks_whose_hashes_agree_in_32_bits_differ(seed, one, other):
    a, b = (noise.noise_block(seed, i, "estimation", block, (1, 2, 2), CPU) for i, block in (one, other))
    assert len(torch.cat([a, b]).flatten(1).unique(dim=0)) == 2 * noise.NOISE_BLOCK


@pytest.mark.parametrize("seed", [3, 3 + 2**32, 3 + 2**62])
def test_every_bit_of_a_seed_and_of_a_key_counts(seed):
    blocks = [noise.noise_block(one, 0, "estimation", 0, (4,), CPU) for one in (3, seed)]
    keyed = noise.keyed_noise(torch.tensor([3, seed]), 0, (512,), CPU)
    assert torch.equal(*blocks) == torch.equal(*keyed) == (seed == 3)


def test_the_first_samples_of_a_block_are_those_of_the_whole_block():
    whole = noise.noise_block(1, 2, "selection", 3, (3, 3), CPU)
    assert torch.equal(noise.noise_block(1, 2, "selection", 3, (3, 3), CPU, 5), whole[:5])


def test_noise_drawn_in_torch_operations_is_that_of_numpy():
    """What CUDA draws, on the CPU: an odd number of values, many keys at once."""
    key, counter, keys = (5, 2), (6, 7, 0), torch.tensor([2**62 + 1, 4])
    start = torch.zeros(1, dtype=torch.int64)
    [drawn] = noise._rows_in_torch(noise._filled(key, CPU), noise._filled(counter, CPU), start, (5, 3, 3))
    assert torch.equal(drawn, noise._standard_normal(key, counter, (5, 3, 3), CPU))
    assert torch.equal(noise._keyed_in_torch(keys, 9, (3, 3)), noise.keyed_noise(keys, 9, (3, 3), CPU))


@pytest.mark.parametrize(("start", "size"), [(0, 300), (250, 320), (599, 1)])
def test_samples_drawn_at_once_are_those_of_their_blocks(start, size):
    """An odd number of values, batches that begin and end within blocks, and several images."""
    series, indices = (
        noise.Series(seed=2**40, stage="estimation", samples=200),
        torch.tensor([2**31 - 1, 0, 7]),
    )
    images = torch.rand((3, 1, 3, 3), generator=torch.Generator().manual_seed(0))
    x_noisy, keys = noise.noisy_samples(images, indices, series, start=start, size=size, sigma=0.37)
    blocks = [
        (x, index, block) for x, index in zip(images, indices.tolist(), strict=True) for block in (0, 1)
    ]
    expected, names = [], []
    for x, index, block in blocks:
        count = (128, 72)[block]
        z = noise.noise_block(2**40, index, "estimation", block, (1, 3, 3), CPU, count)
        expected.append(z.mul_(0.37).add_(x))
        names.append(noise.sample_keys(2**40, index, "estimation", block, CPU)[:count])
    assert torch.equal(x_noisy, torch.cat(expected)[start : start + size])
    assert torch.equal(keys, torch.cat(names)[start : start + size])


def test_noise_has_mean_zero_and_variance_one():
    draws = noise.noise_block(0, 0, "estimation", 0, (4, 8, 8), CPU).double()
    # Standard deviations 1/sqrt(N) and sqrt(2/N); 5.5 of these is passed by chance with probability 8e-8.
    assert abs(draws.mean().item()) < 5.5 / math.sqrt(draws.numel())
    assert abs(draws.square().mean().item() - 1) < 5.5 * math.sqrt(2 / draws.numel())


def test_keys_identify_each_sample_once():
    places = itertools.product(
        (0, 1), (0, 1, 2**31 - 1), ("selection", "estimation"), (0, 1, 2, 3, 2**24 - 1)
    )
    keys = torch.cat([noise.sample_keys(*place, CPU) for place in places])
    assert keys.dtype == torch.int64
    assert (keys >= 0).all()
    assert len(keys.unique()) == 60 * noise.NOISE_BLOCK
