"""Noise levels as a user types them: numbers, or fractions of the 255 levels of a byte."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

from bench.config.numbers import number
from bench.errors import UsageError
from bench.types import LARGEST_SIGMA, LEAST_ALPHA


def noise_level(text: str) -> float:
    """Return a noise level in pixel units from its text: "0.5", or a fraction such as "128/255".

    Raises:
        UsageError: it is no finite number.
    """
    value = _value(text)
    if not math.isfinite(value):
        raise UsageError(
            f"sigma is {text!r}, expected a noise level in pixel units of [0,1], such as 0.5 or 128/255"
        )
    return value


def noise_levels(value: Any) -> Any:
    """Return the noise levels of a text with commas between them, or of a list that holds texts.

    Anything else is returned as it is, for a check of types.

    Raises:
        UsageError: as in `noise_level`.
    """
    if isinstance(value, str):
        value = value.split(",") if value.strip() else []
    if not isinstance(value, list | tuple):
        return value
    return [noise_level(one.strip()) if isinstance(one, str) else one for one in value]


def written(sigma: float, names: Iterable[str]) -> bool:
    """Return whether one of the names means a noise level: as it is printed, or as a number or fraction.

    Names that are no numbers mean none.
    """
    return any(name == f"{sigma:g}" or _value(name) == sigma for name in names)


def alike(sigmas: Collection[float]) -> tuple[float, float] | None:
    """Return two different noise levels that are printed alike, which name the same key in a header; None for none."""
    seen: dict[str, float] = {}
    for sigma in sorted(sigmas):
        if seen.setdefault(f"{sigma:g}", sigma) != sigma:
            return seen[f"{sigma:g}"], sigma
    return None


def shortest(sigma: float) -> str:
    """Return a noise level in as few digits as are read back as the same number."""
    text = f"{sigma:g}"
    return text if float(text) == sigma else repr(sigma)


def check_alpha(alpha: float) -> None:
    """Return nothing for a failure probability that certificates may have.

    Raises:
        UsageError: it does not lie between 0 and 1, or is below LEAST_ALPHA.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha:g}, expected 0 < alpha < 1")
    if alpha < LEAST_ALPHA:
        raise UsageError(f"alpha is {alpha:g}, expected at least {LEAST_ALPHA:g}")


def check_size(sigma: float) -> None:
    """Return nothing for a noise level of images in [0,1].

    Raises:
        UsageError: it is above LARGEST_SIGMA, where no image can be told from another.
    """
    if sigma > LARGEST_SIGMA:
        raise UsageError(
            f"sigma is {sigma:g}, expected at most {LARGEST_SIGMA:g}: it is in units of pixels in [0,1], so that "
            f"{sigma:g} of 255 levels is {sigma:g}/255 = {sigma / 255:#.4g}"
        )


def _value(text: str) -> float:
    """Return the number that a text is, a fraction too; NaN for none."""
    above, slash, below = text.partition("/")
    try:
        return number(above) / number(below) if slash else number(text)
    except (ValueError, ZeroDivisionError):
        return math.nan
