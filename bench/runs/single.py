"""One trained method made ready, and one image file: its certificate, or the smoothed class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from bench.config.names import IMAGENET_RESIZE
from bench.config.run import RunConfig
from bench.data.folders import read_image, size_and_colours
from bench.errors import CheckpointError, DataError
from bench.methods import zoo
from bench.runs.workbench import Setup, choose_batch_sizes, entrant, prepare, smoothed
from bench.smoothing.certifier import Smoothed
from bench.types import Certificate


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A configuration's first method at its first sigma, ready to certify, and the data it is for."""

    setup: Setup
    smoothed: Smoothed

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by class."""
        return self.setup.split.class_names

    def check_fits(self, path: Path) -> None:
        """Return nothing for an image file of the data set's size and colours.

        Of a data set whose own images are resized any size will do.

        Raises:
            DataError: it would have to be resized or lose its colours, or cannot be read as an image.
        """
        config, task = self.setup.config, self.setup.split.task
        width, height, has_colours = size_and_colours(path)
        is_resized = task.dataset == "imagenet" or config.image_size is not None
        fits_size = is_resized or (width, height) == (task.image_size, task.image_size)
        if fits_size and not (has_colours and task.channels == 1):
            return
        kind = "in colour" if has_colours else "in grey"
        wanted = "in colour" if task.channels == 3 else "in grey"
        raise DataError(
            f"{path} is {width}x{height} {kind}, and images of {task.dataset} are {task.image_size}x{task.image_size} "
            f"{wanted}: bring it so, or add --fit to have it resized, cropped and greyed; a radius holds for what "
            "comes of that"
        )

    def certify_file(self, path: Path) -> Certificate:
        """Return the certificate of an image file, resized and centre-cropped as the data set's own are.

        Raises:
            DataError: the file cannot be read as an image.
        """
        return self.smoothed.certify(self._read(path), 0, self.setup.config.protocol)

    def predict_file(self, path: Path) -> int:
        """Return the smoothed class of an image file, or ABSTAIN; else as `certify_file`."""
        return self.smoothed.predict(self._read(path), 0, self.setup.config.protocol)

    def _read(self, path: Path) -> Tensor:
        task = self.setup.split.task
        short_side = IMAGENET_RESIZE if task.dataset == "imagenet" else task.image_size
        x = read_image(
            path,
            resize=short_side,
            crop=task.image_size,
            channels=task.channels,
            geometry=self.setup.config.geometry,
        )
        return x.to(self.setup.device)


def open_method(config: RunConfig, note: Callable[[str], None] = lambda text: None) -> Opened:
    """Return the configuration's first method at its first sigma.

    Args:
        note: takes sentences for the user, such as on a checkpoint of another sigma.

    Raises:
        CheckpointError: the method has no checkpoint for the data set yet, or it does not fit.
    """
    setup = replace(prepare(config), note=note)
    one = entrant(setup, config.methods[0], config.sigmas[0])
    levels = zoo.other_levels(config.zoo, config.dataset, one.file_name or "") if one.is_missing else []
    if levels:
        held = ", ".join(f"{level:g}" for level in levels)
        raise CheckpointError(
            f"no {one.file_name} for {config.dataset}: {one.method} is there at sigma {held}; "
            f"train this one with `{one.training_command()}`"
        )
    one.required(config.allow)
    size = choose_batch_sizes(setup, [one])[one.method]
    return Opened(setup=setup, smoothed=smoothed(setup, one, size))
