"""Whether a published log can be what a user says of it: the data set, its labels, the noise level."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from scipy import special

from bench.config.names import FIRST_LABELS, NUM_CLASSES, TEST_IMAGES
from bench.config.run import RunConfig
from bench.errors import UsageError
from bench.records.logs import Log
from bench.types import LARGEST_SIGMA

IMPOSSIBLE_ALPHA = 0.5
"""A level from which on a radius stands for no guarantee: no log is made at it."""

ROUNDED = 0.05
"""Share by which the sigma in a file's name may differ from the one that is given: names round it."""

_SIGMA_IN_NAME = re.compile(
    r"(?:sigma|noise)[_=-]?(?=((?:[0-9]*\.)?[0-9]+))(?=([0-9]+[._][0-9]+)?)", re.IGNORECASE
)
"""A number, and what it is where an underscore stands for its point; "noise2noise" names none that is meant."""


def check_claim(log: Log, config: RunConfig, labels: Sequence[int] | None = None) -> None:
    """Return nothing for a log that may be of the configuration's data set, sigma and n.

    Args:
        log: as it was read.
        config: with one sigma.
        labels: classes of the data set's test images by position; None where the data set is not at hand.

    Raises:
        UsageError: it cannot; the message says what contradicts what.
    """
    _check_images(log, config.dataset)
    if log.rows[0].index is not None:
        _check_labels(log, config.dataset, labels)
    _check_sigma(log, config)


def claim_fault(log: Log, dataset: str) -> str | None:
    """Return why a log cannot be of a data set, by its positions, classes and first labels; None where it may be."""
    try:
        _check_images(log, dataset)
        if log.rows[0].index is not None:
            _check_labels(log, dataset, None)
    except UsageError as error:
        return str(error).removeprefix(f"log {log.name} ").rpartition(": ")[0]
    return None


def _check_images(log: Log, dataset: str) -> None:
    held, classes, remedy = (
        TEST_IMAGES.get(dataset),
        NUM_CLASSES.get(dataset),
        "name its data set by --dataset",
    )
    largest = max(log.indices)
    if held is not None and largest >= held:
        raise UsageError(
            f"log {log.name} certifies image {largest}, but {dataset} has {held:,} test images: {remedy}"
        )
    label = max(max(row.label, row.predict) for row in log.rows)
    if classes is not None and label >= classes:
        raise UsageError(f"log {log.name} holds class {label}, but {dataset} has {classes} classes: {remedy}")


def _check_labels(log: Log, dataset: str, labels: Sequence[int] | None) -> None:
    known = [int(digit) for digit in FIRST_LABELS.get(dataset, "")] if labels is None else labels
    compared = [
        (index, row.label) for index, row in zip(log.indices, log.rows, strict=True) if index < len(known)
    ]
    other = [(index, label) for index, label in compared if known[index] != label]
    if other:
        index, label = other[0]
        raise UsageError(
            f"log {log.name} says class {label} of image {index}, which is {known[index]} in {dataset}; "
            f"{len(other)} of {len(compared)} labels differ: name its data set by --dataset"
        )


def _check_sigma(log: Log, config: RunConfig) -> None:
    """Refuse a sigma at which a radius of the log is out of reach at every level that a log is made at."""
    sigma, names = config.sigmas[0], _SIGMA_IN_NAME.findall(log.name)
    named = [float(text.replace("_", ".")) for both in names for text in both[::-1] if text]
    agrees = not named or any(
        one > LARGEST_SIGMA or math.isclose(one, sigma, rel_tol=ROUNDED) for one in named
    )  # "sigma_25" may mean 0.25
    said = sigma if agrees else named[-1] if len(names) > 1 else named[0]
    hint = "" if agrees else f"; the name of the file says {said:g}"
    largest = max(row.radius for row in log.rows)
    unit = 10.0 ** (math.floor(math.log10(largest)) - log.digits + 1) if largest else 0.0
    needed = math.exp(config.n * float(special.log_ndtr((largest - unit / 2) / sigma)))
    if needed >= IMPOSSIBLE_ALPHA:
        raise UsageError(
            f"log {log.name} holds a radius of {largest:g}, which n = {config.n} samples cannot certify at sigma "
            f"{sigma:g} at any alpha below {IMPOSSIBLE_ALPHA:g}{hint}: give the sigma (in pixel units of [0,1]) and n "
            "of the log"
        )
    if hint:
        raise UsageError(
            f"--sigma is {sigma:g}, but the name of log {log.name} says {said:g}: give that, or rename the file"
        )
