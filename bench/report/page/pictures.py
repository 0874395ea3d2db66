"""Pictures for the page: certified images and the first noisy copy that the certifier made of each, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bench.data.sets import load
from bench.errors import DataError
from bench.smoothing.noise import noise_block
from bench.training.origin import holds_images_of
from bench.types import NOISE_VERSION, RunHeader, Split

BUDGET = 400_000
"""Characters of pictures on a page, at most: first images with noisy copies, then others, the rest has none."""

LARGEST_LOSSLESS = 64
"""Side in pixels up to which pictures are PNG; larger ones are JPEG, which noise does not swell."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What can be shown of the images.

    Attributes:
        clean: image index -> data URI.
        noisy: (image index, sigma) -> data URI of the image under its first selection noise, cut to [0,1].
        note: one sentence on what is shown, or on why nothing is.
    """

    clean: dict[int, str]
    noisy: dict[tuple[int, float], str]
    note: str


def draw_pictures(
    header: RunHeader,
    sigmas: Sequence[float],
    data_dir: Path | None = None,
    budget: int = BUDGET,
    noisy_for: Collection[int] | None = None,
) -> Pictures:
    """Return pictures of the certified images, in the order of the run, until the budget is spent.

    Args:
        header: says which images, of which data set, under which noise.
        sigmas: noise levels to show.
        data_dir: where the data lie now; None: where the run found them.
        budget: characters of data URIs, at most.
        noisy_for: images to show with noise, which come first; None: all.
    """
    try:
        split = split_of(header, data_dir)
    except DataError as error:
        return Pictures(clean={}, noisy={}, note=f"No pictures: {error}.")
    if not holds_images_of(header, split):
        return Pictures(
            clean={}, noisy={}, note="No pictures: the data found are not those that were certified."
        )
    clean: dict[int, str] = {}
    noisy: dict[tuple[int, float], str] = {}
    shown_noisy = frozenset(header.indices if noisy_for is None else noisy_for)
    for index in sorted(header.indices, key=lambda one: one not in shown_noisy):
        x = split.images[index]
        drawn = dict(_noisy_pictures(x, header, index, sigmas)) if index in shown_noisy else {}
        picture = data_uri(x)
        if (budget := budget - len(picture) - sum(map(len, drawn.values()))) < 0:
            break
        clean[index] = picture
        noisy |= {(index, sigma): uri for sigma, uri in drawn.items()}
    return Pictures(clean=clean, noisy=noisy, note=_note(header, len(clean)))


def data_uri(x: Tensor) -> str:
    """Return an image (C, H, W), cut to [0,1], as a data URI: PNG where it is small, else JPEG."""
    pixels = x.clamp(0, 1).mul(255).round().to(torch.uint8)
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    kind = "PNG" if max(x.shape[1:]) <= LARGEST_LOSSLESS else "JPEG"
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **({"optimize": True} if kind == "PNG" else {"quality": 80}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def split_of(header: RunHeader, data_dir: Path | None) -> Split:
    """Return the test split of a run's data set, from `data_dir` or where the run found it."""
    config = header.config
    folder = data_dir or (Path(config["data_dir"]) if config.get("data_dir") else None)
    return load(
        header.dataset,
        "test",
        data_dir=folder,
        image_size=config.get("image_size"),
        geometry=header.image_geometry or "resize-256",
    )


def _noisy_pictures(
    x: Tensor, header: RunHeader, index: int, sigmas: Sequence[float]
) -> Iterator[tuple[float, str]]:
    if header.seed < 0:
        return
    noise = noise_block(header.seed, index, "selection", 0, tuple(x.shape), torch.device("cpu"), 1)[0]
    for sigma in sigmas:
        yield sigma, data_uri(x + sigma * noise)


def _note(header: RunHeader, shown: int) -> str:
    images = f"Pictures of {shown} of {len(header.indices)} images. " if shown < len(header.indices) else ""
    if header.seed < 0:
        return f"{images}No noisy pictures: the seed of the noise is unknown."
    own = (
        "the first that the certifier drew for it"
        if header.noise_version == NOISE_VERSION
        else f"not the certifier's own, which version {header.noise_version} of the noise gave"
    )
    return f"{images}The noise of an image is {own}; noisy pixels are cut to [0,1] for showing only."
