"""The noise of a whole batch in one launch on a GPU, in Triton: the words of philox.py, the values of normal.py.

Integers and values are those of these two in every bit: each operation of the kernel is one that IEEE 754 rounds in
one way, fused multiplications and additions are forbidden, and the tables come from the same 30 digits.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.smoothing import normal, philox

GROUPS = 256
"""Groups of four values that one program of the kernel draws."""

_LOG = tl.constexpr(2**normal.LOG_BITS)
_COSINE, _SINE = (
    tl.constexpr(2 * 2**normal.LOG_BITS),
    tl.constexpr(2 * 2**normal.LOG_BITS + 2**normal.TURN_BITS),
)
_CONSTANTS = tl.constexpr(2 * 2**normal.LOG_BITS + 2 * 2**normal.TURN_BITS)
"""Where the parts of `_numbers` begin; 1 / c is the first."""

_LOG_SHIFT, _LOG_MASK = tl.constexpr(52 - normal.LOG_BITS), tl.constexpr(2**normal.LOG_BITS - 1)
_TURN_SHIFT, _ANGLE_MASK = tl.constexpr(64 - normal.TURN_BITS), tl.constexpr(2 ** (53 - normal.TURN_BITS) - 1)

_MULTIPLIER_0, _MULTIPLIER_1 = (tl.constexpr(one) for one in philox.MULTIPLIERS)
_WEYL_0, _WEYL_1 = (tl.constexpr(one) for one in philox.WEYL)
_ROUNDS = tl.constexpr(philox.ROUNDS)
_MANTISSA, _ONE = tl.constexpr(normal.MANTISSA), tl.constexpr(normal.ONE)


def image_noise(
    images: Tensor, indices: Tensor, place: tuple[int, int, int, int], size: int, sigma: float, block: int
) -> Tensor:
    """Return x + sigma z (size, C, H, W) float32 for the samples of images that follow one another.

    Args:
        images: (G, C, H, W) float32.
        indices: (G,) int64, which pick their noise.
        place: seed, stream, samples of each image, and the first sample, counted through all images.
        block: samples that share a place.
    """
    out = torch.empty((size, *images.shape[1:]), dtype=torch.float32, device=images.device)
    _launch(out, images.contiguous(), indices, (*place, block), sigma, is_keyed=False)
    return out


def keyed_noise(keys: Tensor, stream: int, step: int, shape: tuple[int, ...]) -> Tensor:
    """Return z (B, *shape) float32 for the identities (B,) int64 of samples; see `bench.smoothing.noise`."""
    out = torch.empty((len(keys), *shape), dtype=torch.float32, device=keys.device)
    _launch(out, out, keys, (0, stream, 1, step, 1), 1.0, is_keyed=True)
    return out


def _launch(
    out: Tensor,
    images: Tensor,
    identities: Tensor,
    place: tuple[int, int, int, int, int],
    sigma: float,
    *,
    is_keyed: bool,
) -> None:
    values = out[0].numel() if len(out) else 0
    if not values:
        return
    programs = triton.cdiv(values // philox.WORDS + 2, GROUPS)
    with torch.cuda.device_of(out):  # Triton launches on the current GPU
        _draw[(len(out) * programs,)](
            out,
            images,
            identities,
            _numbers(out.device),
            *map(int, place),  # those of numpy are none for Triton
            float(sigma),
            values,
            programs,
            KEYED=is_keyed,
            SIZE=GROUPS,
            num_warps=4,
            enable_fp_fusion=False,
        )


@functools.cache
def _numbers(device: torch.device) -> Tensor:
    """Return the tables 1 / c, ln c, cosine and sine, one after another, and then the constants, float64."""
    table = normal.tables()
    constants = np.array([normal.LN_2, normal.RADIANS, 1 / 3, 1 / 24, 1 / 120, 1 / 6])
    parts = (table.inverse, table.log, table.cosine, table.sine, constants)
    return torch.from_numpy(np.concatenate(parts)).to(device)


@triton.jit(do_not_specialize=["seed", "stream", "samples", "start", "programs"])
def _draw(  # type: ignore[no-untyped-def]
    out, images, identities, numbers, seed, stream, samples, start, block, sigma, values, programs,
    KEYED: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Draw SIZE groups of four values of one sample; a group that two samples share is drawn for each.

    For KEYED noise `start` is the step, and the sample's identity the key; there are no images.
    """
    program = tl.program_id(0)
    sample = (program // programs).to(tl.int64)
    if KEYED:
        image = sample
        row = sample * 0
        key = tl.load(identities + sample)
        counter_1 = row + start
        counter_2 = row
    else:
        number = sample + start
        image = number // samples
        within = number - image * samples
        counter_1 = within // block
        row = within - counter_1 * block
        counter_2 = tl.load(identities + image)
        key = row * 0 + seed
    first = row * values // 4
    group = first + (program % programs) * SIZE + tl.arange(0, SIZE)
    a, b, c, d = _words(group + 1, counter_1, counter_2, key, row * 0 + stream)
    z0, z1 = _pair(a, b, numbers)
    z2, z3 = _pair(c, d, numbers)
    z = tl.reshape(tl.join(tl.join(z0, z2), tl.join(z1, z3)), [4 * SIZE])
    position = first * 4 + (program % programs) * (4 * SIZE) + tl.arange(0, 4 * SIZE) - row * values
    is_own = (position >= 0) & (position < values)
    if not KEYED:
        x = tl.load(images + image * values + position, mask=is_own, other=0.0)
        z = z * sigma + x
    tl.store(out + sample * values + position, z, mask=is_own)


@triton.jit
def _words(group, counter_1, counter_2, key, stream):  # type: ignore[no-untyped-def]
    """Return the four words of Philox4x64-10, uint64."""
    c0 = group.to(tl.uint64)
    zero = c0 * 0
    c1 = zero + counter_1.to(tl.uint64)
    c2 = zero + counter_2.to(tl.uint64)
    c3 = zero
    k0 = zero + key.to(tl.uint64)
    k1 = zero + stream.to(tl.uint64)
    for _ in tl.static_range(_ROUNDS):
        high0 = tl.umulhi(c0, zero + _MULTIPLIER_0)
        high1 = tl.umulhi(c2, zero + _MULTIPLIER_1)
        low0 = c0 * _MULTIPLIER_0
        low1 = c2 * _MULTIPLIER_1
        c0 = high1 ^ c1 ^ k0
        c2 = high0 ^ c3 ^ k1
        c1 = low1
        c3 = low0
        k0 = k0 + _WEYL_0
        k1 = k1 + _WEYL_1
    return c0, c1, c2, c3


@triton.jit
def _pair(one, other, numbers):  # type: ignore[no-untyped-def]
    """Return the two float32 values of a pair of words, uint64; see normal.py."""
    constants = numbers + _CONSTANTS
    ln_2 = tl.load(constants)
    radians = tl.load(constants + 1)
    third = tl.load(constants + 2)
    part_24 = tl.load(constants + 3)
    part_120 = tl.load(constants + 4)
    sixth = tl.load(constants + 5)
    odd = ((one >> 11) | 1).to(tl.int64).to(tl.float64)
    bits = odd.to(tl.int64, bitcast=True)
    index = (bits >> _LOG_SHIFT) & _LOG_MASK
    mantissa = ((bits & _MANTISSA) | _ONE).to(tl.float64, bitcast=True)
    x = mantissa * tl.load(numbers + index) - 1.0
    series = (((x * -0.25 + third) * x - 0.5) * x + 1.0) * x
    exponent = ((bits >> 52) - 1076).to(tl.float64)
    square = tl.abs((series + tl.load(numbers + _LOG + index) + exponent * ln_2) * -2.0)
    length = tl.sqrt(square)
    turn = (other >> _TURN_SHIFT).to(tl.int64)
    angle = ((other >> 11) & _ANGLE_MASK).to(tl.int64).to(tl.float64) * radians
    y = angle * angle
    along = ((y * part_24 - 0.5) * y + 1.0) * length
    across = angle * length * ((y * part_120 - sixth) * y + 1.0)
    cosine = tl.load(numbers + _COSINE + turn)
    sine = tl.load(numbers + _SINE + turn)
    return (cosine * along - sine * across).to(tl.float32), (along * sine + across * cosine).to(tl.float32)
