"""Seeded blocks of noise: each is fixed by its place, never by batch size, order of images or choice of methods."""

from __future__ import annotations

import functools
import hashlib
from typing import Literal

import torch
from torch import Tensor

from bench.smoothing import philox
from bench.types import Protocol

Stage = Literal["selection", "estimation"]

NOISE_BLOCK = 128
"""Samples drawn from one generator. Part of the protocol: another value is other noise."""


def stable_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on the parts alone, not on the process or the Python version."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def noise_block(
    seed: int, index: int, stage: Stage, block: int, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """Return block number `block` of standard normal noise, (NOISE_BLOCK, *shape) float32 on `device`.

    The draw depends on (seed, index, stage, block), the shape and the device type, and on nothing else;
    selection and estimation are independent draws. On CUDA it is counter-based, so that every GPU model gives
    the same noise; elsewhere it is torch's own, which is faster there.
    """
    block_seed = stable_seed(seed, index, stage, block)
    return standard_normal(block_seed, (NOISE_BLOCK, *shape), device)


def keyed_noise(keys: Tensor, step: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return standard normal noise (B, *shape) float32 for a method's own randomness.

    Sample i depends on (keys[i], step), the shape and the device type, and on nothing else of its batch.

    Args:
        keys: (B,) int64, one identity per sample.
        step: tells a sample's several draws apart.
    """
    seeds = [stable_seed(key, "method", step) for key in keys.tolist()]
    return torch.stack([standard_normal(seed, shape, device) for seed in seeds])


def standard_normal(seed: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return standard normal noise of a shape, float32 on `device`, drawn as the blocks are; `seed` has 63 bits."""
    if device.type == "meta":  # operations are counted from shapes
        return torch.empty(shape, device=device)
    if device.type == "cuda":
        return philox.normal(seed, shape, device, _compiled_philox())
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)


@functools.cache
def _compiled_philox() -> philox.CompiledPhilox:
    return philox.CompiledPhilox()


def sample_keys(seed: int, index: int, stage: Stage, block: int, device: torch.device) -> Tensor:
    """Return (NOISE_BLOCK,) int64 identities of the samples of one block, for methods with randomness of their own."""
    first = stable_seed(seed, index, stage, block, "keys") & ~(2 * NOISE_BLOCK - 1)
    return first + torch.arange(NOISE_BLOCK, device=device)


def image_uniform(seed: int, index: int) -> float:
    """Return the image's own draw from [0,1), of 53 bits, for randomised bounds; independent of all noise."""
    return (stable_seed(seed, index, "bound") >> 10) / 2**53


def bound_uniform(protocol: Protocol, index: int) -> float | None:
    """Return the image's own draw where the protocol's bound is randomised; None for a bound that takes none."""
    return image_uniform(protocol.seed, index) if protocol.bound == "randomised" else None
