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
from bench.commands.terminal.kinds import UserPath
from bench.commands.terminal.machine import JSON_OPTION, quiet_option
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.config.run import RunConfig
    from bench.runs.single import Opened

ABSTAINED = "abstains"
"""Printed in place of a class."""

IMAGE_OPTIONS = shared_options(
    click.argument("image", type=UserPath()),
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
    quiet_option("Print the class only, and for certify the radius behind it."),
    JSON_OPTION,
)


@command(short_help="Certify one image")
@IMAGE_OPTIONS
def certify(image: Path, **given: Any) -> None:
    """Certify one IMAGE file with a trained method.

    The output is its class and a radius: the prediction of the smoothed classifier is constant within that distance.
    The statement is wrong with probability alpha at most.
    """
    is_quiet, as_json = given.pop("is_quiet"), given.pop("as_json")
    config, opened = _opened(image, given)
    from bench.report.markup import format_radius
    from bench.types import ABSTAIN

    certificate = opened.certify_file(image)
    name = None if certificate.predict == ABSTAIN else opened.class_names[certificate.predict]
    if as_json:
        machine.print_json(
            {"image": str(image), "class": name, **_said(config), **dataclasses.asdict(certificate)}
        )
    elif is_quiet:
        say(f"{name or ABSTAINED} {format_radius(certificate.radius, 4)}")
    elif name is None:
        say(f"{image}: abstains at sigma {config.sigmas[0]:g} (no class is certain enough)")
    else:
        radius = format_radius(certificate.radius, 4)
        say(
            f"{image}: class {name}, certified L2 radius {radius} at sigma "
            f"{config.sigmas[0]:g} (n {config.n}, alpha {config.alpha:g}, pixels in [0,1])"
        )


def _opened(image: Path, given: dict[str, Any]) -> tuple[RunConfig, Opened]:
    """Return the configuration and the trained method that were asked for, which fits the image."""
    fit = given.pop("fit")
    config = resolve_one(given.pop("method"), given.pop("sigma"), given)
    from bench.runs.single import open_method

    opened = open_method(config, note=lambda text: say(f"note: {text}", err=True))
    if not fit:
        opened.check_fits(image)
    return config, opened


def _said(config: RunConfig) -> dict[str, Any]:
    """Return under what an image was certified or predicted."""
    return {"method": config.methods[0], "sigma": config.sigmas[0], "n": config.n, "alpha": config.alpha}


@command(short_help="Smoothed class of one image")
@IMAGE_OPTIONS
def predict(image: Path, **given: Any) -> None:
    """Predict the class of one IMAGE file with the smoothed classifier (PREDICT of arXiv 1902.02918).

    The class is wrong with probability alpha at most.
    """
    for name in ("n0", "estimation", "bound"):
        if given[name] is not None:
            raise UsageError(f"--{name} plays no part in PREDICT, which draws n samples once: leave it out")
    is_quiet, as_json = given.pop("is_quiet"), given.pop("as_json")
    config, opened = _opened(image, given)
    from bench.types import ABSTAIN

    label = opened.predict_file(image)
    found = None if label == ABSTAIN else opened.class_names[label]
    if as_json:
        machine.print_json({"image": str(image), "class": found, "predict": label, **_said(config)})
        return
    if is_quiet:
        say(found or ABSTAINED)
        return
    said = "abstains (no class is clearly the most frequent)" if found is None else f"class {found}"
    say(f"{image}: {said} at sigma {config.sigmas[0]:g} (n {config.n}, alpha {config.alpha:g})")
