"""A run's header -> a figure of example images, clean and under the first noise that the certifier drew for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
import torch
from matplotlib.figure import Figure

from bench.errors import DataError
from bench.report.figures.style import COLUMN_WIDTH, SETTINGS, save_figure
from bench.report.page.pictures import split_of
from bench.smoothing.noise import noise_block
from bench.training.origin import holds_images_of
from bench.types import NOISE_VERSION, RunHeader

EXAMPLES = 4
"""Images that are shown: the first of the run."""


def write_images(
    header: RunHeader, sigmas: Sequence[float], folder: Path, data_dir: Path | None = None
) -> list[Path]:
    """Write images.png and images.pdf: a row per example, clean and at each sigma, cut to [0,1]; return the paths.

    Args:
        header: says which images, of which data set, under which noise.
        data_dir: where the data are; None: where the run found them.

    Raises:
        DataError: the data are not there, or are not those that were certified, or the seed of the noise is unknown or
            its version another.
    """
    split = split_of(header, data_dir)
    if not holds_images_of(header, split):
        raise DataError("the data found are not those that were certified: give --data-dir")
    if header.seed < 0:
        raise DataError("the run holds no seed of its noise: a published log has no noisy images to show")
    if header.noise_version != NOISE_VERSION:
        raise DataError(
            f"the run was made with version {header.noise_version} of the noise, and this program draws version "
            f"{NOISE_VERSION}: certify it again to see its noisy images"
        )
    chosen = header.indices[:EXAMPLES]
    side = COLUMN_WIDTH / (1 + len(sigmas))
    with matplotlib.style.context(["default", SETTINGS]):
        figure = Figure(figsize=(COLUMN_WIDTH, side * len(chosen) + 0.25), layout="constrained")
        panels = figure.subplots(len(chosen), 1 + len(sigmas), squeeze=False)
        for row, index in zip(panels, chosen, strict=True):
            x = split.images[index]
            noise = noise_block(header.seed, index, "selection", 0, tuple(x.shape), torch.device("cpu"), 1)[0]
            for axes, sigma in zip(row, (0.0, *sigmas), strict=True):
                shown = (x + sigma * noise).clamp(0, 1).movedim(0, -1).numpy()
                axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axes.set_axis_off()
        for axes, sigma in zip(panels[0], (0.0, *sigmas), strict=True):
            axes.set_title(rf"$\sigma$ = {sigma:g}" if sigma else "clean")
        folder.mkdir(parents=True, exist_ok=True)
        return save_figure(figure, folder / "images")
