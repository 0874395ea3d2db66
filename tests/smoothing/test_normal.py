"""Values from words: exact to the last bit, normal in the middle and in the tails, one of a kind per machine."""

import hashlib
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from bench.smoothing.noise import keyed_noise, noise_block
from bench.smoothing.normal import draw, torch_from_words
from bench.smoothing.philox import stream

MOST = 2**64 - 1
EDGES = np.array([[0, 0], [0, MOST], [MOST, 0], [MOST, MOST], [2**63, 2**62], [1 << 11, 1 << 52]], np.uint64)


def words(key, counter, count):
    return stream(key, counter).random_raw(count)


def from_words(given):
    """Return the values of words, which come in parts of the sizes that `draw` asks for."""
    left = iter(given)
    return draw(lambda count: np.fromiter(itertools.islice(left, count), np.uint64, count), len(given))


def exact(drawn):
    """Return the values of pairs of words (P, 2) in extended precision, from the definition."""
    u = (drawn[:, 0] >> np.uint64(11) | np.uint64(1)).astype(np.longdouble) / 2**53
    v = (drawn[:, 1] >> np.uint64(11)).astype(np.longdouble) / 2**53
    length, angle = np.sqrt(-2 * np.log1p(u - 1)), 8 * np.arctan(np.longdouble(1)) * v
    return np.stack([length * np.cos(angle), length * np.sin(angle)], 1).ravel()


def test_values_are_the_float32_nearest_to_the_definition():
    drawn = words((1, 2), (3, 4, 5), 200_000).reshape(-1, 2)
    assert np.array_equal(from_words(drawn.ravel()), exact(drawn).astype(np.float32))


def test_at_the_edges_of_the_words_values_are_finite_and_right():
    found = from_words(EDGES.ravel())
    assert np.allclose(found, exact(EDGES).astype(float), atol=3e-8)
    assert found[0] == np.float32(math.sqrt(2 * 53 * math.log(2)))  # the largest value there is


def test_torch_and_numpy_agree_in_every_bit():
    drawn = np.concatenate([words((1, 2), (3, 4, 5), 50_000), EDGES.ravel()])
    pairs = torch.from_numpy(drawn.view(np.int64)).view(-1, 2)
    found = torch.stack(torch_from_words(pairs[:, 0], pairs[:, 1]), 1).flatten().numpy()
    expected = from_words(drawn)
    assert np.array_equal(found[:50_000].view(np.int32), expected[:50_000].view(np.int32))
    assert np.allclose(found, expected, rtol=0, atol=1e-20)


def test_values_are_standard_normal_and_uncorrelated_with_their_neighbours():
    x = from_words(words((3, 1), (0, 0, 0), 200_002)).astype(float)
    assert stats.kstest(x, "norm").pvalue > 1e-6  # the false-alarm rate
    for lag in (1, 2, 8):
        a, b = x[lag:], x[:-lag]
        assert abs((a * b).mean()) < 5 / math.sqrt(len(a))  # false alarm below 1e-6
        assert abs((a**2 * b**2).mean() - 1) < 5 * math.sqrt(8 / len(a))


def test_the_tail_beyond_5_768_is_seen_at_its_rate():
    """24-bit uniforms end there: beyond is a pair whose first word has 24 zeros in front, 4 of 2^26 expected."""
    first = np.concatenate([words((0, 9), (block, 0, 0), 2**20)[::2] for block in range(128)])
    beyond = first[first >> np.uint64(40) == 0]
    values = from_words(np.stack([beyond, np.zeros_like(beyond)], 1).ravel())[::2]
    assert (values >= np.float32(math.sqrt(48 * math.log(2)))).all()
    assert 0 < len(beyond) < 20  # of other seeds 2% have none, and one in 10^8 has 20


def digest():
    """Return SHA-256 of a block of noise and of a method's own."""
    block = noise_block(1, 2, "estimation", 3, (3, 32, 32), torch.device("cpu"))
    own = keyed_noise(torch.tensor([5, 6]), 7, (3, 8, 8), torch.device("cpu"))
    return hashlib.sha256(block.numpy().tobytes() + own.numpy().tobytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"ATEN_CPU_CAPABILITY": "default"},
        {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F"},
        {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX"},
    ],
)
def test_the_noise_is_the_same_on_every_instruction_set(environment):
    command = "from tests.smoothing.test_normal import digest; print(digest())"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert ran.stdout.strip() == digest(), ran.stderr


def test_the_noise_is_that_of_every_other_machine():
    """Another digest is another NOISE_VERSION, and no older record can be extended or replayed."""
    assert digest() == "a3423bc3cc05ed3342df005b342d961180e7757823cc51f772b79870b43455b1"
