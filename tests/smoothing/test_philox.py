"""Counter-based noise: the published words, normal values, and independence of how much is drawn."""

import math

import pytest
import torch
from scipy import stats

from bench.smoothing.philox import CompiledPhilox, normal, philox

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_words_are_those_published_with_random123(counter, key, expected):
    words = philox(tuple(torch.tensor([word]) for word in counter), tuple(map(torch.tensor, key)))
    assert tuple(int(word) for word in words) == expected


def test_values_are_standard_normal_and_uncorrelated_with_their_neighbours():
    x = normal(3, (200_001,), CPU).double()
    assert stats.kstest(x.numpy(), "norm").pvalue > 1e-6  # the false-alarm rate
    assert abs(float((x[1:] * x[:-1]).mean())) < 5 / math.sqrt(len(x))  # false alarm below 1e-6
    assert abs(float((x[1:] ** 2 * x[:-1] ** 2).mean()) - 1) < 5 * math.sqrt(8 / len(x))


def test_a_shorter_draw_is_the_beginning_of_a_longer_one():
    long = normal(7, (5, 3, 3), CPU)
    assert long.dtype == torch.float32
    assert torch.equal(normal(7, (2, 3, 3), CPU), long[:2])
    assert torch.equal(normal(7, (7,), CPU), long.flatten()[:7])


@pytest.mark.parametrize("other", [8, 7 + 2**32, 7 + 2**62])
def test_every_bit_of_the_seed_counts(other):
    assert not torch.equal(normal(7, (8,), CPU), normal(other, (8,), CPU))


def test_where_compiling_fails_the_words_are_the_same():
    def refuses(function):
        def fail(*arguments):
            raise RuntimeError("no compiler")

        return fail

    compiled = CompiledPhilox(refuses)
    assert torch.equal(normal(7, (8,), CPU, compiled), normal(7, (8,), CPU))
    assert not compiled.is_compiled
    working = CompiledPhilox(lambda function: function)
    assert torch.equal(normal(7, (8,), CPU, working), normal(7, (8,), CPU))
    assert working.is_compiled
