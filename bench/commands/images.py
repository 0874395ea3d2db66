"""One image file: `bench certify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.commands.options import DATA_OPTIONS, PROTOCOL_OPTIONS, preset_of, resolve


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--method", required=True, metavar="NAME", help="A method of `bench list methods`.")
@click.option(
    "--sigma", default="0.5", show_default=True, metavar="FLOAT", help="Noise level in pixel units."
)
@DATA_OPTIONS
@PROTOCOL_OPTIONS
def certify(image: Path, method: str, sigma: str, **given: Any) -> None:
    """Certify one IMAGE file with a trained method: its class, and the radius in which the class is certain."""
    config = resolve(preset_of(given["dataset"]), {**given, "methods": method, "sigmas": sigma})
    from bench.markup import format_radius
    from bench.runner import certify_file
    from bench.types import ABSTAIN

    certificate, class_names = certify_file(image, config)
    if certificate.predict == ABSTAIN:
        click.echo(f"{image}: abstains at sigma {config.sigmas[0]:g} (no class is certain enough)")
    else:
        radius = format_radius(certificate.radius, 4)
        click.echo(
            f"{image}: class {class_names[certificate.predict]}, certified L2 radius {radius} at sigma "
            f"{config.sigmas[0]:g} (n {config.n}, alpha {config.alpha:g}, pixels in [0,1])"
        )
