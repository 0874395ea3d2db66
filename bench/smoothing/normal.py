"""Standard normal values from random words: Box and Muller's transform, equal to the last bit on every machine.

A pair of values takes two words: z = sqrt(-2 ln u) (cos 2 pi v, sin 2 pi v), with u odd multiples of 2^-53 and v
multiples, so that |z| ends at 8.57, beyond which a normal variable lies with probability 1e-17. Logarithm and rotation
are a table's entry and a short series in float64 additions, multiplications and square roots, which IEEE 754 rounds in
one way only; library functions differ in the last bits between instruction sets. The result is the float32 nearest to
the exact value but for some 1 in 10^8, which are the second nearest.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LOG_BITS, TURN_BITS = 11, 12
"""Leading bits of a mantissa, and of a turn, that pick an entry of the tables."""

LN_2 = math.log(2.0)
RADIANS = 2 * math.pi / 2.0**53
"""One step of v, as an angle."""

PI = Decimal("3.14159265358979323846264338327950288")
MANTISSA, ONE = (1 << 52) - 1, 1023 << 52
_CHUNK = 8192
"""Pairs that are computed at once on a CPU, so that all that is between stays in its cache."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Entries by leading bits, float64: 1 / c and ln c at the middle c of each part of [1, 2); each turn's cosine and
    sine."""

    inverse: NDArray[np.float64]
    log: NDArray[np.float64]
    cosine: NDArray[np.float64]
    sine: NDArray[np.float64]


@functools.cache
def tables() -> Tables:
    """Return the tables, each entry rounded once from 30 digits."""
    with localcontext(Context(prec=30)):
        middles = [1 + (i + 0.5) / 2**LOG_BITS for i in range(2**LOG_BITS)]
        inverse = [1 / middle for middle in middles]
        turns = list(rotations(Decimal(0), 2 * PI / 2**TURN_BITS, 2**TURN_BITS))
        return Tables(
            inverse=np.array(inverse),
            log=np.array([float(-Decimal(one).ln()) for one in inverse]),
            cosine=np.array([float(cosine) for cosine, _ in turns]),
            sine=np.array([float(sine) for _, sine in turns]),
        )


def rotations(start: Decimal, step: Decimal, count: int) -> Iterator[tuple[Decimal, Decimal]]:
    """Yield the cosine and sine of start, start + step, ..., one rotation after the other, in the context's precision.

    Args:
        start, step: angles below 1.6; both functions' series end with the 19th power, enough for 30 digits below 0.1.
    """
    cosine, sine = _cosine_and_sine(start)
    along, across = _cosine_and_sine(step)
    for _ in range(count):
        yield cosine, sine
        cosine, sine = cosine * along - sine * across, sine * along + cosine * across


def _cosine_and_sine(angle: Decimal) -> tuple[Decimal, Decimal]:
    terms = [Decimal(1)]
    for power in range(1, 20):
        terms.append(terms[-1] * angle / power)
    cosine = sum((term * (-1) ** i for i, term in enumerate(terms[0::2])), Decimal(0))
    return cosine, sum((term * (-1) ** i for i, term in enumerate(terms[1::2])), Decimal(0))


def draw(words: Callable[[int], NDArray[np.uint64]], count: int) -> NDArray[np.float32]:
    """Return (count,) standard normal values, each from a word of its own.

    Args:
        words: returns the next so many independent uniform words.
        count: how many values; an odd one takes a word more.
    """
    values = np.empty(((count + 1) // 2, 2), dtype=np.float32)
    room = tuple(np.empty(min(_CHUNK, len(values))) for _ in range(5))
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK]
        pairs = words(2 * len(chunk)).view(np.int64).reshape(-1, 2)
        _pairs(pairs, chunk, tuple(one[: len(chunk)] for one in room))
    return values.reshape(-1)[:count]


def _pairs(pairs: NDArray[np.int64], out: NDArray[np.float32], room: tuple[NDArray[np.float64], ...]) -> None:
    """Write the values (P, 2) of P pairs of words; `room` is five arrays (P,), so that nothing is allocated."""
    table = tables()
    length, x, y, z, spare = room
    index = spare.view(np.int64)
    _length(pairs[:, 0], length, x, y, index)
    turn = z.view(np.int64)
    np.right_shift(pairs[:, 1], 64 - TURN_BITS, out=index)
    np.bitwise_and(index, (1 << TURN_BITS) - 1, out=index)
    np.right_shift(pairs[:, 1], 11, out=turn)
    np.bitwise_and(turn, (1 << 53 - TURN_BITS) - 1, out=turn)
    np.multiply(turn, RADIANS, out=x)
    np.multiply(x, x, out=y)
    _series((1 / 24, -1 / 2, 1.0), y, out=z)
    z *= length
    x *= length
    _series((1 / 120, -1 / 6, 1.0), y, out=length)
    x *= length
    table.cosine.take(index, out=y, mode="clip")
    table.sine.take(index, out=length, mode="clip")
    np.multiply(y, z, out=spare)
    z *= length
    length *= x
    x *= y
    np.subtract(spare, length, out=out[:, 0], casting="same_kind")
    np.add(z, x, out=out[:, 1], casting="same_kind")


def _length(
    first: NDArray[np.int64],
    out: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    index: NDArray[np.int64],
) -> None:
    """Write sqrt(-2 ln u), where 2^53 u is the odd number of each word's upper 53 bits; the others are overwritten."""
    table = tables()
    np.right_shift(first, 11, out=index)
    np.bitwise_and(index, (1 << 53) - 1, out=index)
    np.bitwise_or(index, 1, out=index)
    np.copyto(x, index)
    bits = x.view(np.int64)
    exponent = y.view(np.int64)
    np.right_shift(bits, 52 - LOG_BITS, out=index)
    np.right_shift(index, LOG_BITS, out=exponent)
    np.subtract(exponent, 1023 + 53, out=exponent)
    np.multiply(exponent, LN_2, out=y)
    np.bitwise_and(index, (1 << LOG_BITS) - 1, out=index)
    np.bitwise_and(bits, MANTISSA, out=bits)
    np.bitwise_or(bits, ONE, out=bits)
    table.inverse.take(index, out=out, mode="clip")
    x *= out
    x -= 1
    _series((-1 / 4, 1 / 3, -1 / 2, 1.0), x, out=out)
    out *= x
    table.log.take(index, out=x, mode="clip")
    out += x
    out += y
    out *= -2
    np.abs(out, out=out)  # beside u = 1 the rounding errors decide the sign
    np.sqrt(out, out=out)


def _series(
    coefficients: tuple[float, ...], x: NDArray[np.float64], out: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Write a polynomial's value at x, highest coefficient first (Horner)."""
    np.multiply(x, coefficients[0], out=out)
    out += coefficients[1]
    for coefficient in coefficients[2:]:
        out *= x
        out += coefficient
    return out


def torch_from_words(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two values of each pair of words on their device, equal to `draw` in every bit on CUDA.

    On a CPU torch takes its square root from a library that errs in the last bit of a float64 now and then, which the
    float32 result shows in values below 1e-20 alone.

    Args:
        first, second: int64 tensors of one shape, the bits of unsigned words; the device needs float64.

    Returns:
        Two float32 tensors of that shape.
    """
    inverse, log, cosine, sine = _tables_on(first.device)
    bits = (first >> 11 & (1 << 53) - 1 | 1).double().view(torch.int64)
    index = bits >> 52 - LOG_BITS & (1 << LOG_BITS) - 1
    x = (bits & MANTISSA | ONE).view(torch.float64) * inverse[index] - 1
    series = (((x * (-1 / 4) + 1 / 3) * x - 1 / 2) * x + 1) * x
    square = ((series + log[index] + ((bits >> 52) - (1023 + 53)).double() * LN_2) * -2).abs()
    length = square.sqrt()
    index = second >> 64 - TURN_BITS & (1 << TURN_BITS) - 1
    x = (second >> 11 & (1 << 53 - TURN_BITS) - 1).double() * RADIANS
    y = x * x
    along = ((y * (1 / 24) - 1 / 2) * y + 1) * length
    across = x * length * ((y * (1 / 120) - 1 / 6) * y + 1)
    one = (cosine[index] * along - sine[index] * across).float()
    return one, (along * sine[index] + across * cosine[index]).float()


@functools.cache
def _tables_on(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    table = tables()
    arrays = (table.inverse, table.log, table.cosine, table.sine)
    one, two, three, four = (torch.from_numpy(array).to(device) for array in arrays)
    return one, two, three, four
