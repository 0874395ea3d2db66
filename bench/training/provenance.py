"""What a checkpoint says of its training: command, recipe, work, held-out scores, hardware."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.device.hardware import device_name
from bench.errors import CheckpointError, clipped, shown
from bench.training.batches import TrainingJob
from bench.training.checkpoints import load_metadata
from bench.training.loop import Fitted
from bench.types import Split

WORK = ("images_seen", "forward_equivalents", "seconds")
"""Entries that count the work of a training, and are added up over its parts."""

COUNTED = (*WORK, "parameters", "training_runs")
"""Entries that are numbers of 0 or more."""


OF_NO_NAME, CLASSES = "folder", "class_names"
"""The data set that is another one in each folder, and the entry that names its classes."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a checkpoint took to train, all that it starts from included; None where the file does not tell.

    Attributes:
        parameters: of the network, or of all trained networks of the method.
        images_seen: training images, repetitions counted.
        forward_equivalents: forward passes of each network on one image, a gradient counted as two more.
        seconds: wall time on the hardware that trained it.
        shared: forward-equivalents among these that serve other checkpoints too, such as a pre-training.
        training_runs: independent training runs behind the file.
    """

    parameters: int | None
    images_seen: int | None
    forward_equivalents: int | None
    seconds: float | None
    shared: int | None
    training_runs: int = 1


def provenance(job: TrainingJob, *fits: Fitted, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a checkpoint says of its training.

    Args:
        before: what the file says that the training starts from; {} or None where it starts from random weights.
    """
    said = {
        "command": job.command,
        "options": dict(job.options),
        "is_complete": all(fit.is_complete for fit in fits),
        "seed": job.seed,
        "seconds": round(sum(fit.seconds for fit in fits), 1),
        "steps": [fit.steps for fit in fits],
        "skipped_steps": [fit.skipped for fit in fits],
        "images_seen": sum(fit.images_seen for fit in fits),
        "forward_equivalents": sum(fit.forward_equivalents for fit in fits),
        "parameters": sum(value.numel() for fit in fits for value in fit.network.parameters()),
        "training_runs": 1,
        "held_out_scores": [fit.score for fit in fits],
        "held_out_images": len(job.held_out_indices),
        "train_images": len(job.train_indices),
        "hardware": device_name(job.device),
        "torch": torch.__version__,
        "stored": str(job.stored).removeprefix("torch."),
    }
    if job.split.task.dataset == OF_NO_NAME:
        said[CLASSES] = list(job.split.class_names)
    return said if not before else said | {"before": {name: before.get(name) for name in WORK}}


def work(training: Mapping[str, Any]) -> Work:
    """Return what a checkpoint took, from the `training` entry of its metadata."""
    before = training.get("before", {})
    parts = [training, *([before] if before else [])]

    def total(name: str) -> Any:
        values = [part.get(name) for part in parts]
        return None if None in values else sum(values)

    return Work(
        parameters=training.get("parameters"),
        images_seen=total("images_seen"),
        forward_equivalents=total("forward_equivalents"),
        seconds=total("seconds"),
        shared=before.get("forward_equivalents") if before else 0,
        training_runs=training.get("training_runs", 1),
    )


def check_classes(path: Path, split: Split) -> None:
    """Return nothing for a checkpoint that was trained on the classes of a split, as far as it names them.

    Raises:
        CheckpointError: it names others, so that it is of another folder; or it cannot be read.
    """
    if split.task.dataset != OF_NO_NAME or path.suffix != ".safetensors":
        return
    named = load_metadata(path).get("training", {}).get(CLASSES)
    if isinstance(named, list) and tuple(named) != split.class_names:
        raise CheckpointError(
            f"{path} was trained on other classes ({clipped(', '.join(map(str, named)))}) than those of the images "
            f"({clipped(', '.join(split.class_names))}): name the --zoo of this folder"
        )


def told(path: Path) -> dict[str, int | float]:
    """Return what a file says it took to train: the fields of `Work` that it tells but for the parameters.

    None of them for a file of others.

    Raises:
        CheckpointError: the file cannot be read, or one of its numbers is none.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    training = load_metadata(path).get("training", {})
    if not training.keys() & {*COUNTED}:
        return {}
    before = training.get("before", {})
    if not isinstance(before, dict):
        raise CheckpointError(_no_number(path, "before", before))
    for part in (training, before):
        for name in COUNTED:
            if not _is_count(name, value := part.get(name)):
                raise CheckpointError(_no_number(path, name, value))
    took = dataclasses.asdict(work(training))
    return {name: value for name, value in took.items() if value is not None and name != "parameters"}


def _is_count(name: str, value: object) -> bool:
    """Return whether a value counts what an entry counts; None stands for what is not told."""
    kinds = int | float if name == "seconds" else int
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    return value is None or (is_number and 0 <= value <= 2**52)  # type: ignore[operator]


def _no_number(path: Path, name: str, value: object) -> str:
    return (
        f"{path} says {name} {shown(value)} of its training, expected a number of 0 or more: take that entry out of "
        "the file's metadata, or train it again"
    )
