"""The commands. The only place that prints or exits: results to stdout, progress to stderr."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.catalogue import DATASETS
from bench.errors import BenchError, UsageError

if TYPE_CHECKING:
    from bench.config import RunConfig
    from bench.types import Run

IMAGENET_DIR = "IMAGENET_DIR"
"""The environment variable that names ImageNet's folder where --data-dir is not given."""


class Commands(click.Group):
    """A group that lists its commands in the order of their definition and hints at mistyped ones."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of their definition."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command, or fail with the nearest one."""
        from bench.catalogue import nearest_hint

        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(
                f"unknown command {args[0]!r}; {nearest_hint(args[0], self.commands)}", ctx
            )
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rrcm-bench", prog_name="bench")
def cli() -> None:
    """Compare certified-robustness methods under one protocol: accuracy, radius and cost.

    `bench run` is the main job; it needs no network and no GPU.
    """


def main() -> None:
    """Run the command line: exit code 0 done, 1 a BenchError (one line on stderr), 2 wrong usage."""
    try:
        code = cli.main(standalone_mode=False)
    except UsageError as error:
        _fail(str(error), 2)
    except BenchError as error:
        _fail(str(error), 1)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except OSError as error:  # a full disk or a read-only folder, wherever it is met
        _fail(f"{error}; everything certified is kept, repeat the command to continue", 1)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; everything certified is kept, repeat the command to continue", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    click.echo(f"bench: {' '.join(message.split())}", err=True)
    sys.exit(code)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _options(*options: Decorator) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


DATA_OPTIONS = _options(
    click.option("--dataset", metavar="NAME", help=f"One of {', '.join(DATASETS)}."),
    click.option(
        "--data-dir", metavar="DIR", help="Folder of the data; ImageNet's may stand in IMAGENET_DIR."
    ),
    click.option("--download", is_flag=True, default=None, help="Download a missing torchvision data set."),
    click.option("--image-size", metavar="PIXELS", help="Side of the images of data set 'folder'."),
    click.option("--seed", metavar="INT", help="Seed of all noise and of training."),
    click.option("--device", metavar="auto|cpu|cuda|mps", help="Where to compute."),
    click.option("--zoo", metavar="DIR", help="Folder of checkpoints, <DIR>/<dataset>/<file>."),
    click.option(
        "--backbone", metavar="NAME", help="Network of gaussian, consistency, dds: resnet, vit, a timm name."
    ),
    click.option(
        "--set", "changes", metavar="METHOD.OPTION=VALUE", multiple=True, help="A method's own option."
    ),
)

PROTOCOL_OPTIONS = _options(
    click.option("--n", "--N", "n", metavar="INT", help="Samples that estimate the class's probability."),
    click.option("--n0", "--N0", "n0", metavar="INT", help="Samples that select the class."),
    click.option("--alpha", metavar="FLOAT", help="Probability that a certificate is wrong, at most."),
    click.option("--batch-size", "--batch", "--batch_size", metavar="auto|INT", help="Samples per call."),
    click.option("--precision", metavar="float32|bfloat16", help="Arithmetic of the networks."),
)


@cli.command()
@click.option(
    "--preset", default="mnist5k", show_default=True, metavar="NAME|FILE.toml", help="Start from this."
)
@DATA_OPTIONS
@click.option("--methods", metavar="A,B,...", help="Methods to compare, or 'all'.")
@click.option("--sigmas", "--sigma", "sigmas", metavar="X,Y,...", help="Noise levels in pixel units.")
@PROTOCOL_OPTIONS
@click.option("--subset", metavar="SUBSET", help="standard, balanced or file:PATH.")
@click.option("--limit", "--max", "limit", metavar="INT", help="Number of images of the subset.")
@click.option("--skip", metavar="INT", help="Images of the subset to leave out at its start.")
@click.option("--radii", metavar="X,Y,...", help="Radii of the tables' columns.")
@click.option(
    "--cost-repetitions", metavar="INT", help="Repetitions of the cost measurement; 0 leaves it out."
)
@click.option("--out", metavar="DIR", help="The run's folder.")
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration and stop.")
def run(preset: str, dry_run: bool, **given: Any) -> None:
    """Certify images with every method at every sigma, measure the cost, write tables and figures.

    Repeating an interrupted command continues it.
    """
    config = _resolve(preset, given)
    if dry_run:
        _print_config(config)
        return
    from bench import runner
    from bench.display import RunDisplay

    with RunDisplay(config) as display:
        _, folder = runner.run(config, command=_command(), observer=display)
    _report([folder], folder, ())


@cli.command()
@click.argument("method")
@DATA_OPTIONS
@click.option(
    "--sigma", default="0.5", show_default=True, metavar="FLOAT", help="Noise level in pixel units."
)
@click.option("--max-seconds", type=float, metavar="SECONDS", help="Stop each stage after this time.")
@click.option("--precision", metavar="float32|bfloat16", help="Arithmetic of the forward pass.")
def train(method: str, sigma: str, max_seconds: float | None, precision: str | None, **given: Any) -> None:
    """Train METHOD at one sigma until its held-out accuracy under noise stops rising.

    Repeating an interrupted command continues it.
    """
    if precision is not None:
        given["changes"] = (f"{method}.precision={precision}", *given["changes"])
    config = _resolve(_preset_of(given["dataset"]), {**given, "methods": method, "sigmas": sigma})
    from bench.display import TrainingDisplay
    from bench.training import train_method

    with TrainingDisplay() as display:
        path = train_method(
            method,
            config.sigmas[0],
            config,
            command=_command(),
            max_seconds=max_seconds,
            report=lambda progress: display.training(method, config.sigmas[0], progress),
        )
    click.echo(f"{path}")


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for tables and figures.")
@click.option(
    "--allow", metavar="FIELD,...", default="", help="Protocol fields in which the runs may differ."
)
def report(runs: tuple[Path, ...], out: Path | None, allow: str) -> None:
    """Make tables and figures again from the records of one run, or of several side by side."""
    if out is None and len(runs) > 1:
        raise UsageError("several runs need --out DIR, the folder for their common tables and figures")
    _report(runs, out or runs[0], tuple(filter(None, allow.split(","))))


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
def status(run: Path) -> None:
    """Say what of RUN is done, what is left and how long that will take."""
    from bench.display import status_table
    from bench.records import read_run

    status_table(read_run(run))


@cli.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--method", required=True, metavar="NAME", help="A method of `bench list methods`.")
@click.option(
    "--sigma", default="0.5", show_default=True, metavar="FLOAT", help="Noise level in pixel units."
)
@DATA_OPTIONS
@PROTOCOL_OPTIONS
def certify(image: Path, method: str, sigma: str, **given: Any) -> None:
    """Certify one IMAGE file with a trained method: its class, and the radius in which the class is certain."""
    config = _resolve(_preset_of(given["dataset"]), {**given, "methods": method, "sigmas": sigma})
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


@cli.command(name="list")
@click.argument("what", type=click.Choice(["methods", "datasets", "presets"]))
def list_names(what: str) -> None:
    """List the methods, data sets or presets."""
    from bench.config import list_presets
    from bench.display import name_table
    from bench.registry import methods

    if what == "methods":
        name_table(("method", "what it is"), [(entry.name, entry.summary) for entry in methods().values()])
    elif what == "datasets":
        name_table(("data set", "what it is"), list(DATASETS.items()))
    else:
        rows = [(preset.name, preset.description, preset.cost, preset.expected) for preset in list_presets()]
        name_table(("preset", "what it is", "cost", "expected result"), rows)


def _command() -> str:
    return shlex.join(["bench", *sys.argv[1:]])


def _preset_of(dataset: str | None) -> str | None:
    """Return the preset that holds the sizes of a data set's networks: the one of its name, or None."""
    from bench.config import list_presets

    name = dataset or "mnist5k"
    return name if name in {preset.name for preset in list_presets()} else None


def _resolve(preset: str | None, given: dict[str, Any]) -> RunConfig:
    """Return the validated configuration of a preset (None: RunConfig's defaults) and the options given."""
    from bench import registry
    from bench.config import RunConfig, load_preset, validate
    from bench.overrides import override
    from bench.registry import methods

    config = RunConfig() if preset is None else load_preset(preset)
    changes = {
        key: value for key, value in given.items() if value is not None and key not in ("changes", "backbone")
    }
    if "dataset" in changes and changes["dataset"] != config.dataset:
        config = replace(config, options={})  # a preset's options are for its own data set
    config = override(config, changes, where="options")
    if config.dataset == "imagenet" and config.data_dir is None and os.environ.get(IMAGENET_DIR):
        config = replace(config, data_dir=Path(os.environ[IMAGENET_DIR]))
    config = validate(config, methods())
    options = _method_options(config, given.get("backbone"), given.get("changes", ()))
    config = validate(replace(config, options=options), methods())
    for name, values in options.items():
        registry.check_options(name, values)
    return config


def _method_options(
    config: RunConfig, backbone: str | None, changes: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return the options of each method: the preset's, then --backbone where it applies, then each --set."""
    from bench.registry import has_backbone

    options = {name: dict(values) for name, values in config.options.items()}
    if backbone is not None:
        chosen = [name for name in config.methods if has_backbone(name)]
        if not chosen:
            raise UsageError(
                f"--backbone fits none of {', '.join(config.methods)}: they have their own networks"
            )
        for name in chosen:
            options.setdefault(name, {})["backbone"] = backbone
    for change in changes:
        target, equals, value = change.partition("=")
        method, dot, option = target.partition(".")
        if not (equals and dot):
            raise UsageError(f"--set is {change!r}, expected METHOD.OPTION=VALUE, such as rrcm.depth=6")
        options.setdefault(method, {})[option] = value
    return options


def _print_config(config: RunConfig) -> None:
    from bench.config import to_json
    from bench.runner import run_folder

    for key, value in to_json(replace(config, out=run_folder(config))).items():
        shown = ",".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{key} = {shown}")


def _report(folders: Sequence[Path], out: Path, allow: Sequence[str]) -> None:
    """Write tables and figures of the runs to `out`, print the main table and the speedups."""
    from bench import figures, tables
    from bench.display import print_results
    from bench.records import check_comparable, read_run

    runs: list[Run] = [read_run(folder) for folder in folders]
    check_comparable(runs, allow)
    written = [*tables.write_tables(runs, out), *figures.write_figures(runs, out)]
    print_results(runs, out, written)


if __name__ == "__main__":
    main()
