"""Counter-based random words: Philox4x64-10 (Salmon et al. 2011), in numpy and in torch.

Word i of a stream depends on the stream's key and counter and on i alone: not on the library's version, the
instruction set, or the number of multiprocessors, as it does with the generators of torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

WORDS = 4
"""Words of 64 bits that one counter gives."""

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10
_LOW = 0xFFFFFFFF


def stream(key: Sequence[int], counter: Sequence[int]) -> np.random.Philox:
    """Return a stream of uniform words on the CPU: `random_raw(count)` gives the next ones, uint64.

    Group g of four words is Philox4x64-10 of the key and of the counter with g + 1 in its first place.

    Args:
        key: two integers in [0, 2^64).
        counter: the last three places of the counter, each an integer in [0, 2^64).
    """
    start = np.array([0, *counter], dtype=np.uint64)
    return np.random.Philox(key=np.array(key, dtype=np.uint64), counter=start)


def torch_words(key: Sequence[Tensor], counter: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the four words of Philox4x64-10 for each counter, on the device of the counters.

    Args:
        key: two int64 tensors, the bits of unsigned words; they broadcast against the counters.
        counter: four such tensors, the least significant word first.

    Returns:
        Four int64 tensors of the common shape that hold the bits of unsigned words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, MULTIPLIERS[0])
        high1, low1 = _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + signed(WEYL[0]), k1 + signed(WEYL[1])
    return c0, c1, c2, c3


def signed(word: int) -> int:
    """Return the int64 value that has the bits of an unsigned word."""
    return word - (1 << 64) if word >> 63 else word


def splitmix64(words: Tensor) -> Tensor:
    """Return int64 words mixed as by splitmix64's finaliser (Steele, Lea and Flood 2014), which is one to one."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ shifted(words, shift)) * signed(factor)
    return words ^ shifted(words, 31)


SPLITMIX_STEP = 0x9E3779B97F4A7C15
"""The increment of splitmix64."""


def shifted(words: Tensor, bits: int) -> Tensor:
    """Return int64 words shifted right as if they had no sign."""
    return words >> bits & (1 << 64 - bits) - 1


def _multiply(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the high and low words of a 128-bit product, from four products of halves; int64 wraps."""
    low, high = word & _LOW, _upper(word)
    factor_low, factor_high = factor & _LOW, factor >> 32
    first = _upper(low * factor_low) + high * factor_low
    second = low * factor_high + (first & _LOW)
    return high * factor_high + _upper(first) + _upper(second), word * signed(factor)


def _upper(word: Tensor) -> Tensor:
    """Return the upper 32 bits of unsigned words."""
    return torch.bitwise_and(word >> 32, _LOW)
