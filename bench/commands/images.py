"""One image file: `bench certify`, `bench predict`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands.options import (
    ALLOW_OPTION,
    DATA_OPTIONS,
    PROTOCOL_OPTIONS,
    resolve_one,
    say,
    shared_options,
)
from bench.commands.terminal import machine
from bench.commands.terminal.help import command, completes, method_names
from bench.commands.terminal.machine import JSON_OPTION
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.config.run import RunConfig

IMAGE_OPTIONS = shared_options(
    click.argument("image", type=click.Path(path_type=Path)),
    click.option(
        "--method",
        required=True,
        metavar="NAME",
        help="A name of `bench list methods`, or MODULE:FUNCTION for a model of your own.",
        shell_complete=completes(method_names),
    ),
    click.option(
        "--sigma", default="0.5", show_default=True, metavar="FLOAT", help="Noise level in pixel units."
    ),
    DATA_OPTIONS,
    PROTOCOL_OPTIONS,
    ALLOW_OPTION,
    click.option(
        "--fit",
        is_flag=True,
        help="Resize, crop and convert an image whose size or colours differ from the data set's.",
    ),
    JSON_OPTION,
)


@command(short_help="Certify one image")
@IMAGE_OPTIONS
def certify(image: Path, method: str, sigma: str, fit: bool, as_json: bool, **given: Any) -> None:
    """Certify one IMAGE file with a trained method.

    The output is its class and a radius: the prediction of the smoothed classifier is constant within that distance.
    The statement is wrong with probability alpha at most.
    """
    config = resolve_one(method, sigma, given)
    from bench.report.markup import format_radius
    from bench.runs.single import open_method
    from bench.types import ABSTAIN

    opened = open_method(config)
    if not fit:
        opened.check_fits(image)
    certificate = opened.certify_file(image)
    if as_json:
        name = None if certificate.predict == ABSTAIN else opened.class_names[certificate.predict]
        machine.print_json(
            {"image": str(image), "class": name, **_said(config), **dataclasses.asdict(certificate)}
        )
    elif certificate.predict == ABSTAIN:
        say(f"{image}: abstains at sigma {config.sigmas[0]:g} (no class is certain enough)")
    else:
        radius = format_radius(certificate.radius, 4)
        say(
            f"{image}: class {opened.class_names[certificate.predict]}, certified L2 radius {radius} at sigma "
            f"{config.sigmas[0]:g} (n {config.n}, alpha {config.alpha:g}, pixels in [0,1])"
        )


def _said(config: RunConfig) -> dict[str, Any]:
    """Return under what an image was certified or predicted."""
    return {"method": config.methods[0], "sigma": config.sigmas[0], "n": config.n, "alpha": config.alpha}


@command(short_help="Smoothed class of one image")
@IMAGE_OPTIONS
def predict(image: Path, method: str, sigma: str, fit: bool, as_json: bool, **given: Any) -> None:
    """Predict the class of one IMAGE file with the smoothed classifier (PREDICT of arXiv 1902.02918).

    The class is wrong with probability alpha at most.
    """
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
    if as_json:
        found = None if label == ABSTAIN else opened.class_names[label]
        machine.print_json({"image": str(image), "class": found, "predict": label, **_said(config)})
        return
    said = (
        "abstains (no class is clearly the most frequent)"
        if label == ABSTAIN
        else f"class {opened.class_names[label]}"
    )
    say(f"{image}: {said} at sigma {config.sigmas[0]:g} (n {config.n}, alpha {config.alpha:g})")
