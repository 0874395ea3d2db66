"""Seeded blocks of noise: each is fixed by its place, never by batch size, order of images or choice of methods.

A value's place is its key and counter of Philox4x64-10, so that two places never share a counter under one key:
(seed, stream) and (position, block, image) for the noise on images, (sample, stream) and (position, step) for a
method's own. Values are equal on every CPU and, but for the network, on every GPU; see philox.py and normal.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from bench.smoothing import normal, philox
from bench.types import Protocol

Stage = Literal["selection", "estimation"]

NOISE_BLOCK = 128
"""Samples that share a place. Part of the protocol: another value is other noise."""

INDEX_BITS, BLOCK_BITS = 31, 24
"""Images and blocks of a stage that are told apart, as powers of two."""

_STREAMS: dict[Stage, int] = {"selection": 1, "estimation": 2}
_METHOD_STREAM = 3


def stable_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on the parts alone, not on the process or the Python version."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def noise_block(
    seed: int,
    index: int,
    stage: Stage,
    block: int,
    shape: tuple[int, ...],
    device: torch.device,
    samples: int = NOISE_BLOCK,
) -> Tensor:
    """Return the first samples of block number `block` of standard normal noise, (samples, *shape) float32.

    The draw depends on (seed, index, stage, block) and the shape, and on nothing else: not on the device. No two
    places have a counter in common, so that their draws are independent.

    Args:
        seed: of the run, 0 <= seed < 2^63.
        index: identity of the image, 0 <= index < 2^31.
        stage: selection or estimation.
        block: 0 <= block < 2^24.
        shape: of one sample.
        device: where the noise is wanted; CUDA draws there, other devices get the CPU's.
        samples: how many of the block's NOISE_BLOCK samples are wanted.
    """
    key, counter = (seed, _STREAMS[stage]), (block, index, 0)
    return _standard_normal(key, counter, (samples, *shape), device)


def keyed_noise(keys: Tensor, step: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return standard normal noise (B, *shape) float32 for a method's own randomness.

    Sample i depends on (keys[i], step) and the shape, and on nothing else of its batch or device.

    Args:
        keys: (B,) int64, one identity per sample.
        step: tells a sample's several draws apart, >= 0.
        shape: of one sample.
        device: where the noise is wanted; CUDA draws there, other devices get the CPU's.
    """
    if device.type == "cuda":
        counter = _filled((step, 0, 0), device)
        return _on_device((keys[:, None], *_filled((_METHOD_STREAM,), device)), counter, shape)
    draws = [
        _standard_normal((key % 2**64, _METHOD_STREAM), (step, 0, 0), shape, device) for key in keys.tolist()
    ]
    return torch.stack(draws)


def _standard_normal(
    key: Sequence[int], counter: Sequence[int], shape: tuple[int, ...], device: torch.device
) -> Tensor:
    if device.type == "meta":  # operations are counted from shapes
        return torch.empty(shape, device=device)
    if device.type == "cuda":
        return _on_device(_filled(key, device), _filled(counter, device), shape)
    values = normal.draw(philox.stream(key, counter).random_raw, math.prod(shape))
    return torch.from_numpy(values).reshape(shape).to(device)


def _on_device(key: Sequence[Tensor], counter: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Return noise in torch operations; a key (B, 1) gives (B, *shape)."""
    count = math.prod(shape)
    groups = torch.arange(1, 1 + math.ceil(count / philox.WORDS), device=counter[0].device)
    words = philox.torch_words(key, (groups, *counter))
    pairs = (*normal.torch_from_words(*words[:2]), *normal.torch_from_words(*words[2:]))
    values = torch.stack(pairs, dim=-1).flatten(-2)[..., :count]
    return values.reshape(*values.shape[:-1], *shape)


def _filled(words: Sequence[int], device: torch.device) -> list[Tensor]:
    """Return words as tensors, filled on the device: a copy from the host would wait for what it still has to do."""
    return [torch.full((), philox.signed(word), dtype=torch.int64, device=device) for word in words]


def sample_keys(seed: int, index: int, stage: Stage, block: int, device: torch.device) -> Tensor:
    """Return (NOISE_BLOCK,) int64 identities of the samples of one block, for methods with randomness of their own.

    No two samples of one seed have the same identity, and those of two seeds have none in common but for a chance
    of some 1 in 10^9.
    """
    place = (index << 1 | (stage == "estimation")) << BLOCK_BITS | block
    first = place * NOISE_BLOCK ^ (stable_seed(seed, "keys") & -NOISE_BLOCK)
    return first + torch.arange(NOISE_BLOCK, device=device)


def image_uniform(seed: int, index: int) -> float:
    """Return the image's own draw from [0,1), of 53 bits, for randomised bounds; independent of all noise."""
    return (stable_seed(seed, index, "bound") >> 10) / 2**53


def part_protocol(protocol: Protocol, position: int, share: float) -> Protocol:
    """Return the protocol of one bound of a composed certificate: its share of alpha, and noise of its own.

    The first bound has the run's noise; the others have seeds that no two of them share but for a chance of some 1 in
    10^18, so that what is asked for may depend on what the bounds before have shown.

    Args:
        position: of the bound among those of its image, from 0.
        share: of alpha, in (0, 1].
    """
    seed = protocol.seed if position == 0 else stable_seed(protocol.seed, position, "part")
    return replace(protocol.protocol, seed=seed, alpha=protocol.alpha * share)


def bound_uniform(protocol: Protocol, index: int) -> float | None:
    """Return the image's own draw where the protocol's bound is randomised; None for a bound that takes none."""
    return image_uniform(protocol.seed, index) if protocol.bound == "randomised" else None
