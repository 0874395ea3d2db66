"""Seeded blocks of noise: each is fixed by its place, never by batch size, order of images or choice of methods.

A value's place is its key and counter of Philox4x64-10, so that two places never share a counter under one key:
(seed, stream) and (position, block, image) for the noise on images, (sample, stream) and (position, step) for a
method's own. Values are equal on every CPU and, but for the network, on every GPU; see philox.py and normal.py. A GPU
draws the noise of a whole batch in one launch of kernel.py, or, where that cannot run, in many torch operations.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Literal, TypeVar

import torch
from torch import Tensor

from bench.smoothing import normal, philox
from bench.types import Protocol

Stage = Literal["selection", "estimation"]

NOISE_BLOCK = 128
"""Samples that share a place. Part of the protocol: another value is other noise."""

INDEX_BITS, BLOCK_BITS = 31, 24
"""Images and blocks of a stage that are told apart, as powers of two."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Which noise several images get: each the first `samples` samples of its own of a stage."""

    seed: int
    stage: Stage
    samples: int


Place = TypeVar("Place", int, Tensor)

_STREAMS: dict[Stage, int] = {"selection": 1, "estimation": 2}
_METHOD_STREAM = 3


def stable_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on the parts alone, not on the process or the Python version."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Draw the initial weights of networks made inside from `seed`, in float32 whatever torch's default is.

    The global generators and the default are as they were afterwards.
    """
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=list(gpus)):
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


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
        kernel = kernel_on(device)
        if isinstance(kernel, ModuleType):
            return kernel.keyed_noise(keys.contiguous(), _METHOD_STREAM, step, shape)
        return _keyed_in_torch(keys, step, shape)
    draws = [
        _standard_normal((key % 2**64, _METHOD_STREAM), (step, 0, 0), shape, device) for key in keys.tolist()
    ]
    return torch.stack(draws)


def noisy_samples(
    images: Tensor, indices: Tensor, series: Series, *, start: int, size: int, sigma: float
) -> tuple[Tensor, Tensor]:
    """Return x + sigma z (size, C, H, W) and keys (size,) of samples that follow one another, through several images.

    They are those of `noise_block` and `sample_keys`, the samples of one image after those of another. A GPU draws
    them in one launch, without a loop on the host and without waiting.

    Args:
        images: (G, C, H, W) float32, on the device where the samples are wanted.
        indices: (G,) int64 identities of the images, on that device.
        series: the noise; each image has `series.samples` samples.
        start: the first sample that is wanted, counted from the first image's first.
    """
    samples = torch.arange(start, start + size, device=images.device)
    position, within = samples // series.samples, samples % series.samples
    block, row = within // NOISE_BLOCK, within % NOISE_BLOCK
    index = indices[position]
    keys = _keys(series.seed, index, series.stage, block) + row
    kernel = kernel_on(images.device)
    if isinstance(kernel, ModuleType):
        place = (series.seed, _STREAMS[series.stage], series.samples, start)
        return kernel.image_noise(images, indices, place, size, sigma, NOISE_BLOCK), keys
    shape = tuple(images.shape[1:])
    x_noisy = torch.empty((size, *shape), dtype=torch.float32, device=images.device)
    key = _filled((series.seed, _STREAMS[series.stage]), images.device)
    for first in range(0, size, NOISE_BLOCK):
        part = slice(first, first + NOISE_BLOCK)
        counter = (block[part, None], index[part, None], *_filled((0,), images.device))
        z = _rows_in_torch(key, counter, row[part] * math.prod(shape), shape)
        torch.add(z.mul_(sigma), images[position[part]], out=x_noisy[part])
    return x_noisy, keys


@functools.cache
def kernel_on(device: torch.device) -> ModuleType | str:
    """Return the module that draws noise in one launch on a device, or why there is none, in words.

    It has drawn once, and given what a CPU gives, so that it is compiled and right.
    """
    if device.type != "cuda":
        return f"{device.type} draws on the CPU"
    try:
        from bench.smoothing import kernel

        found = _trial(kernel, device)
    except ImportError:
        return "Triton is not installed"
    except Exception as error:  # whatever the compiler of this machine raises
        if "out of memory" in str(error).lower():  # of torch, and of Triton in an error of no kind of its own
            raise
        reason = str(error).strip().split("\n")[0][:120]
        return f"Triton's kernel failed ({type(error).__name__}: {reason})"
    return kernel if found else "Triton's kernel gives other values than a CPU"


def _trial(kernel: ModuleType, device: torch.device) -> bool:
    """Return whether both kinds of noise of a kernel are a CPU's in every bit."""
    cpu, shape, place = torch.device("cpu"), (1, 3, 5), (2**40 + 1, _STREAMS["estimation"], 200, 192)
    keys, images = (
        torch.tensor([3, 2**62 + 1]),
        torch.rand((2, *shape), generator=torch.Generator().manual_seed(0)),
    )
    x_noisy = kernel.image_noise(images.to(device), keys.to(device), place, 16, 0.3, NOISE_BLOCK)
    keyed = kernel.keyed_noise(keys.to(device), _METHOD_STREAM, 9, shape)
    series = Series(seed=place[0], stage="estimation", samples=place[2])
    expected, _ = noisy_samples(images, keys, series, start=place[3], size=16, sigma=0.3)
    return torch.equal(x_noisy.cpu(), expected) and torch.equal(keyed.cpu(), keyed_noise(keys, 9, shape, cpu))


def drawn_with(device: torch.device) -> str:
    """Return what draws the noise of a device, in words."""
    if device.type != "cuda":
        return "numpy"
    kernel = kernel_on(device)
    return "one Triton kernel" if isinstance(kernel, ModuleType) else f"torch operations: {kernel}"


def why_slow(device: torch.device) -> str | None:
    """Return a sentence where the noise takes many times as long as it might, None elsewhere."""
    kernel = kernel_on(device)
    if device.type != "cuda" or isinstance(kernel, ModuleType):
        return None
    return (
        f"{kernel}: noise is drawn in torch operations, which give the same values in some hundred times the memory "
        "traffic; Triton comes with torch on Linux and needs a C compiler (gcc or clang) and Python's "
        "headers (python3-dev)"
    )


def _standard_normal(
    key: Sequence[int], counter: Sequence[int], shape: tuple[int, ...], device: torch.device
) -> Tensor:
    if device.type == "meta":  # operations are counted from shapes
        return torch.empty(shape, dtype=torch.float32, device=device)
    if device.type == "cuda":
        start = torch.zeros(1, dtype=torch.int64, device=device)
        return _rows_in_torch(_filled(key, device), _filled(counter, device), start, shape)[0]
    values = normal.draw(philox.stream(key, counter).random_raw, math.prod(shape))
    return torch.from_numpy(values).reshape(shape).to(device)


def _keyed_in_torch(keys: Tensor, step: int, shape: tuple[int, ...]) -> Tensor:
    """Return `keyed_noise` in torch operations, a block of samples after another for the sake of memory."""
    device = keys.device
    stream, counter = _filled((_METHOD_STREAM,), device), _filled((step, 0, 0), device)
    parts = [
        _rows_in_torch((part[:, None], *stream), counter, torch.zeros_like(part), shape)
        for part in keys.split(NOISE_BLOCK)
    ]
    return torch.cat(parts)


def _rows_in_torch(
    key: Sequence[Tensor], counter: Sequence[Tensor], first: Tensor, shape: tuple[int, ...]
) -> Tensor:
    """Return noise (B, *shape) in torch operations on the device of the counters.

    Args:
        key: two words, and counter: the last three places, each () or (B, 1).
        first: (B,), which value of its stream each row begins with.
    """
    count = math.prod(shape)
    group = first[:, None] // philox.WORDS + torch.arange(
        1, 2 + math.ceil(count / philox.WORDS), device=first.device
    )
    words = philox.torch_words(key, (group, *counter))
    pairs = (*normal.torch_from_words(*words[:2]), *normal.torch_from_words(*words[2:]))
    values = torch.stack(pairs, dim=-1).flatten(1)
    wanted = (first % philox.WORDS)[:, None] + torch.arange(count, device=first.device)
    return values.gather(1, wanted.expand(len(values), count)).reshape(-1, *shape)


def _filled(words: Sequence[int], device: torch.device) -> list[Tensor]:
    """Return words as tensors, filled on the device: a copy from the host would wait for what it still has to do."""
    return [torch.full((), philox.signed(word), dtype=torch.int64, device=device) for word in words]


def sample_keys(seed: int, index: int, stage: Stage, block: int, device: torch.device) -> Tensor:
    """Return (NOISE_BLOCK,) int64 identities of the samples of one block, for methods with randomness of their own.

    No two samples of one seed have the same identity, and those of two seeds have none in common but for a chance
    of some 1 in 10^9.
    """
    return _keys(seed, index, stage, block) + torch.arange(NOISE_BLOCK, device=device)


def _keys(seed: int, index: Place, stage: Stage, block: Place) -> Place:
    """Return the identity of a block's first sample."""
    place = (index << 1 | (stage == "estimation")) << BLOCK_BITS | block
    return place * NOISE_BLOCK ^ (stable_seed(seed, "keys") & -NOISE_BLOCK)


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
