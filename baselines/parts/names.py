"""What names a part of a purifier that its method did not train, and which files the names stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from baselines.parts import own
from bench.config.names import is_plug_in
from bench.training.released import load_with_arch

if TYPE_CHECKING:
    from baselines.parts.options import Config

HUB = "hub:"
"""Begins a name that diffusers fetches from its hub."""

TRANSFORMERS = "transformers:"
"""Begins the folder, or the name on the hub, of a classifier of the transformers library."""


def is_function(source: str) -> bool:
    """Return whether a name is "module:function" of the user's own."""
    return is_plug_in(source) and not source.startswith((HUB, TRANSFORMERS))


def foreign_files(config: Config) -> dict[str, Path]:
    """Return the files and folders of the parts that others trained, part -> path, without what is fetched by name."""
    is_file = not (config.denoiser.startswith(HUB) or is_function(config.denoiser))
    sources = {
        "denoiser": config.denoiser if is_file else "",
        "classifier_checkpoint": config.classifier_checkpoint,
    }
    if config.classifier.endswith(own.SUFFIX):
        sources["classifier"] = config.classifier
    if config.classifier.startswith(TRANSFORMERS):
        folder = config.classifier.removeprefix(TRANSFORMERS)
        sources["classifier"] = folder if Path(folder).is_dir() else ""
    return {part: Path(source) for part, source in sources.items() if source}


def backbone_of(config: Config) -> str | None:
    """Return the name of the network that the file `config.classifier` holds; None where it names no file of ours.

    Raises:
        CheckpointError: as in `bench.training.released.load_with_arch`.
    """
    if not config.classifier.endswith(own.SUFFIX):
        return None
    return load_with_arch(Path(config.classifier))[0]
