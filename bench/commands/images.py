"""One image file: `bench certify`, `bench predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.commands.options import (
    ALLOW_OPTION,
    DATA_OPTIONS,
    PROTOCOL_OPTIONS,
    resolve_one,
    say,
    shared_options,
)
from bench.errors import UsageError

IMAGE_OPTIONS = shared_options(
    click.argument("image", type=click.Path(path_type=Path)),
    click.option(
        "--method",
        required=True,
        metavar="NAME",
        help="One of `bench list methods`, or MODULE:FUNCTION.",
    ),
    click.option(
        "--sigma", default="0.5", show_default=True, metavar="FLOAT", help="Noise level in pixel units."
    ),
    DATA_OPTIONS,
    PROTOCOL_OPTIONS,
    ALLOW_OPTION,
    click.option(
        "--fit", is_flag=True, help="Resize, crop and grey an image that is not as the data set's are."
    ),
)


@click.command()
@IMAGE_OPTIONS
def certify(image: Path, method: str, sigma: str, fit: bool, **given: Any) -> None:
    """Certify one IMAGE file with a trained method: its class, and the radius of the ball around
    it in which the smoothed class does not change; both are wrong with probability alpha at most.
    """
    config = resolve_one(method, sigma, given)
    from bench.report.markup import format_radius
    from bench.runs.single import open_method
    from bench.types import ABSTAIN

    opened = open_method(config)
    if not fit:
        opened.check_fits(image)
    certificate = opened.certify_file(image)
    if certificate.predict == ABSTAIN:
        say(f"{image}: abstains at sigma {config.sigmas[0]:g} (no class is certain enough)")
    else:
        radius = format_radius(certificate.radius, 4)
        say(
            f"{image}: class {opened.class_names[certificate.predict]}, certified L2 radius {radius} at sigma "
            f"{config.sigmas[0]:g} (n {config.n}, alpha {config.alpha:g}, pixels in [0,1])"
        )


@click.command()
@IMAGE_OPTIONS
def predict(image: Path, method: str, sigma: str, fit: bool, **given: Any) -> None:
    """Say the smoothed class of one IMAGE file (PREDICT of arXiv 1902.02918): wrong with probability alpha at most."""
    for name in ("n0", "estimation", "bound"):
        if given[name] is not None:
            raise UsageError(f"--{name} plays no part in PREDICT, which draws n samples once: leave it out")
    config = resolve_one(method, sigma, given)
    from bench.runs.single import open_method
    from bench.types import ABSTAIN

    opened = open_method(config)
    if not fit:
        opened.check_fits(image)
    label = opened.predict_file(image)
    said = (
        "abstains (no class is clearly the most frequent)"
        if label == ABSTAIN
        else f"class {opened.class_names[label]}"
    )
    say(f"{image}: {said} at sigma {config.sigmas[0]:g} (n {config.n}, alpha {config.alpha:g})")
