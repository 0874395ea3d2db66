"""Counter-based noise: Philox4x32-10 (Salmon et al. 2011) in torch integer operations, and Box-Muller.

torch's own CUDA generator assigns counters to elements by the number of multiprocessors, so that the same seed
gives other noise on another GPU model. Here element i depends on the seed and i alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


Words = tuple[Tensor, ...]
"""int64 tensors with values in [0, 2^32)."""

Generate = Callable[[Words, Words], Words]
"""`philox`, or something that returns the same."""


def philox(counter: Words, key: Words) -> Words:
    """Return the four 32-bit words of Philox4x32-10 for each counter.

    Args:
        counter: four int64 tensors of one shape, each value in [0, 2^32); the least significant word first.
        key: two int64 scalars in [0, 2^32).

    Returns:
        Four int64 tensors of that shape, each value in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _multiply(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the high and low words of a 64-bit product; int64 wraps, which leaves all 64 bits right."""
    product = word * factor
    return (product >> 32) & _MASK, product & _MASK


class CompiledPhilox:
    """`philox` under torch.compile: one kernel instead of a hundred; eager, with the same words, where that fails.

    Attributes:
        is_compiled: False after compiling failed.
    """

    def __init__(self, compiler: Callable[..., Generate] = torch.compile) -> None:
        self.is_compiled = True
        self._compiled = compiler(philox)

    def __call__(self, counter: Words, key: Words) -> Words:
        """Return what `philox` returns."""
        if self.is_compiled:
            try:
                return self._compiled(counter, key)
            except Exception:  # whatever the compiler of this machine raises
                self.is_compiled = False
        return philox(counter, key)


def normal(seed: int, shape: tuple[int, ...], device: torch.device, generate: Generate = philox) -> Tensor:
    """Return standard normal float32 noise of a shape; a shorter shape gives the first elements of a longer one.

    Box-Muller on 53 bits for the length and 32 for the angle: values end at 8.6, beyond which a normal variable
    lies with probability 8e-18. Two elements share four words.

    Args:
        seed: of 63 bits.
        shape: of the noise.
        device: where to draw; it needs float64.
        generate: `philox`, or its compiled form.
    """
    count = math.prod(shape)
    position = torch.arange((count + 1) // 2, device=device)
    zero = torch.zeros_like(position)
    key = tuple(  # filled on the device: a copy from the host would wait for all that it still has to do
        torch.full((), word, dtype=torch.int64, device=device) for word in (seed & _MASK, seed >> 32)
    )
    w0, w1, w2, _ = generate((position & _MASK, position >> 32, zero, zero), key)
    uniform = ((w0 << 21 | w1 >> 11).double() + 0.5) / 2.0**53
    length = (-2 * uniform.log()).sqrt().float()
    angle = (w2.double() * (2 * math.pi / 2.0**32)).float()
    pairs = torch.stack([length * angle.cos(), length * angle.sin()], dim=1)
    return pairs.flatten()[:count].reshape(shape)
