"""One image file: its certificate, or the smoothed class, by one trained method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.config.names import IMAGENET_RESIZE
from bench.config.run import RunConfig
from bench.data.folders import read_image
from bench.runs.runner import choose_batch_sizes
from bench.runs.workbench import Setup, load_classifier, prepare, protocol_of, require_checkpoint
from bench.smoothing import certifier
from bench.types import Certificate, Classifier


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A classifier, an image on its device, and what `smoothing.certify` and `smoothing.predict` need besides."""

    classifier: Classifier
    x: Tensor
    arguments: dict[str, Any]
    class_names: tuple[str, ...]


def certify_file(path: Path, config: RunConfig) -> tuple[Certificate, tuple[str, ...]]:
    """Return the certificate of an image file by the configuration's first method and sigma, and the class names.

    The image is resized and centre-cropped as the data set's own are.

    Raises:
        DataError: the file cannot be read as an image.
        CheckpointError: the method has no checkpoint for the data set yet, or it does not fit.
    """
    subject = _subject(path, config)
    return certifier.certify(subject.classifier, subject.x, **subject.arguments), subject.class_names


def predict_file(path: Path, config: RunConfig) -> tuple[int, tuple[str, ...]]:
    """Return the smoothed class of an image file, or ABSTAIN, and the class names; else as `certify_file`."""
    subject = _subject(path, config)
    return certifier.predict(subject.classifier, subject.x, **subject.arguments), subject.class_names


def _subject(path: Path, config: RunConfig) -> Subject:
    setup = prepare(config)
    task = setup.split.task
    short_side = IMAGENET_RESIZE if config.dataset == "imagenet" else task.image_size
    return about(read_image(path, resize=short_side, crop=task.image_size, channels=task.channels), setup)


def about(x: Tensor, setup: Setup) -> Subject:
    """Return the configuration's first method at its first sigma, and an image (C,H,W) in [0,1], ready to certify.

    Raises:
        CheckpointError: the method has no checkpoint for the data set yet, or it does not fit.
    """
    config, task = setup.config, setup.split.task
    method, sigma = config.methods[0], config.sigmas[0]
    checkpoint = require_checkpoint(setup, method, sigma)
    return Subject(
        classifier=load_classifier(setup, method, sigma, checkpoint),
        x=x.to(setup.device),
        arguments={
            "sigma": sigma,
            "index": 0,
            "protocol": protocol_of(config),
            "batch_size": choose_batch_sizes(setup, {(method, sigma): checkpoint})[method],
            "num_classes": task.num_classes,
        },
        class_names=setup.split.class_names,
    )
