"""Training methods: `bench train`, `bench curves`; and checkpoints of others: `bench import-checkpoint`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands.options import DATA_OPTIONS, command_line, preset_of, resolve, say
from bench.commands.terminal.help import command, completes, method_names, preset_names
from bench.commands.terminal.kinds import NoiseLevel, Real, UserPath, Whole
from bench.errors import UnfinishedError, UsageError

if TYPE_CHECKING:
    from bench.config.run import RunConfig
    from bench.runs.train import TrainingOptions
    from bench.training.loop import Progress

WORLD_SIZE = "WORLD_SIZE"
"""The environment variable in which launchers of several processes tell each how many there are."""


@command(short_help="Train a method at one noise level")
@click.argument("method", shell_complete=completes(method_names))
@DATA_OPTIONS
@click.option(
    "--preset",
    metavar="NAME",
    help="Preset that holds the options of METHOD. Default: the preset named like the data set.",
    shell_complete=completes(preset_names),
)
@click.option(
    "--sigma", default="0.5", show_default=True, metavar="FLOAT", help="Noise level in pixel units."
)
@click.option("--again", is_flag=True, help="Train again although a checkpoint exists, and replace it.")
@click.option(
    "--max-seconds",
    type=Real(min=0),
    metavar="SECONDS",
    help="Stop each stage after this time; the repeated command continues it.",
)
@click.option(
    "--checkpoint-every",
    type=Whole(min=1),
    metavar="STEPS",
    help="Steps between saved states, besides those at each evaluation on the held-out images.",
)
@click.option(
    "--workers",
    type=Whole(min=0),
    help="Threads per process that read image files ahead, and processes that run RandAugment. Default: 8 where "
    "either is needed, at most one per core.",
)
@click.option(
    "--held-out",
    type=Whole(min=0),
    metavar="IMAGES",
    help="Training images held out to select the weights. Default: a tenth, at most 1,000; 0 keeps the last weights.",
)
@click.option(
    "--half",
    is_flag=True,
    help="Keep the weights as float16, in half the space; they are the ones certified.",
)
@click.option("--precision", metavar="float32|tf32|bfloat16|float16", help="Arithmetic of the forward pass.")
@click.option(
    "--stage",
    metavar="pretrain|linear|finetune",
    help="Train one stage of rrcm only: the encoder, a linear head on frozen features, or everything at sigma.",
)
def train(method: str, sigma: str, **given: Any) -> None:
    """Train METHOD at one sigma and keep the weights with the largest mean radius on held-out images.

    An interrupted training continues when the command is repeated. For several GPUs use `accelerate launch -m bench.cli
    train METHOD ...`; the batch size is the total over all processes.
    """
    import torch

    from bench.methods import registry
    from bench.runs.train import TrainingOptions
    from bench.training import processes

    running = {
        name: given.pop(name) for name in ("again", "max_seconds", "checkpoint_every", "workers", "held_out")
    }
    if given.pop("half"):
        running["stored"] = torch.float16
    stage, precision = given.pop("stage"), given.pop("precision")
    if "," in sigma:
        raise UsageError(f"--sigma is {sigma}, expected one noise level: repeat the command for each")
    if precision is not None:
        names = {field.name for field in dataclasses.fields(registry.load(method).Config)}
        of_stage = {f"{stage}_precision"} & names or {"precision"}
        chosen = {name for name in names if name.endswith("precision")} if stage is None else of_stage & names
        given["changes"] = (*(f"{method}.{name}={precision}" for name in sorted(chosen)), *given["changes"])
    if stage is not None:
        given["changes"] = (*given["changes"], f"{method}.stage={stage}")
    config = resolve(
        given.pop("preset") or preset_of(given["dataset"]), {**given, "methods": method, "sigmas": sigma}
    )
    for note in _notes_on(method, config, given["changes"]):
        say(f"note: {note}", err=True)
    started = started_processes()
    if started > 1 and ":" in config.device:
        raise UsageError(
            f"{started} processes train together, and --device {config.device} gives all of them one GPU: use cuda"
        )
    with processes.joined(started, on_cpu=config.device == "cpu"):
        _train(method, config, TrainingOptions(**running), is_shown=processes.is_first())


def _notes_on(method: str, config: RunConfig, changes: Collection[str]) -> Iterable[str]:
    """Yield what the user may not mean: a zoo that is made, options that play no part in a training."""
    from bench.methods import registry

    if config.zoo is not None and not config.zoo.is_dir():
        yield f"{config.zoo} is not there yet, and is made"
    for change in changes:
        if change.partition("=")[0].rpartition(".")[0] != method:
            yield f"{change} is an option of another method and plays no part in training {method}"
    fields = {one.name: one for one in dataclasses.fields(registry.load(method).Config)}
    for name in dict.fromkeys(change.partition("=")[0].rpartition(".")[2] for change in changes):
        is_chain = name.startswith("reverse_") and config.options.get(method, {}).get(
            "finetune"
        )  # which it denoises by
        if name in fields and fields[name].metadata.get("in_use") and name != "stage" and not is_chain:
            yield (
                f"{method}.{name} says how a checkpoint is used and plays no part in its training, for which the "
                "method trains each part of its own"
            )


def _train(method: str, config: RunConfig, options: TrainingOptions, *, is_shown: bool) -> None:
    """Train, and show what comes of it; a training that its time ends leaves its curves as well."""
    from bench.commands.progress import Bars
    from bench.runs.train import train_method, workspace

    stages: dict[str, None] = {}  # an ordered set

    def report(progress: Progress) -> None:
        stages[progress.stage] = None
        display.training(method, config.sigmas[0], progress)

    try:
        with Bars(is_shown=is_shown) as display:
            path = train_method(
                method, config.sigmas[0], config, command=command_line(), options=options, report=report
            )
    except UnfinishedError:
        if is_shown:
            _draw_each(workspace(config), stages)
        raise
    if is_shown:
        say(f"{path}")
        _draw_each(workspace(config), stages)


def _draw_each(folder: Path, stages: Iterable[str]) -> None:
    """Draw the curves of each stage beside their CSV file, and name the figures; a stage without a look has none."""
    from bench.report.figures.curves import draw_curves

    for stage in stages:
        if (source := folder / f"{stage}.csv").exists():
            say(f"{draw_curves([source], source.with_suffix('.png'))}")


@command(short_help="Plot loss and held-out score of training runs")
@click.argument("sources", nargs=-1, required=True, type=UserPath())
@click.option(
    "--out",
    default="curves.png",
    show_default=True,
    type=UserPath(),
    help="Figure to write: png, pdf or svg.",
)
def curves(sources: tuple[Path, ...], out: Path) -> None:
    """Plot loss and held-out score of training runs in one figure.

    SOURCES are the CSV files that `bench train` writes, one line per evaluation; the training may still be running.
    """
    from bench.report.figures.curves import draw_curves

    say(f"{draw_curves(sources, out)}")


@command(name="import-checkpoint", short_help="Convert a released checkpoint to safetensors")
@click.argument("path", type=UserPath())
@click.option("--out", required=True, type=UserPath(), help="Safetensors file to write.")
@click.option(
    "--which", metavar="ema|online|target", help="Network to read from a folder <step>.ckpt. Default: ema."
)
@click.option(
    "--sigma", type=NoiseLevel(), metavar="FLOAT", help="Noise level that a classifier was trained at."
)
@click.option(
    "--num-heads",
    type=Whole(min=1),
    metavar="INT",
    help="Attention heads, for a network of unpublished size.",
)
@click.option("--layernorm/--no-layernorm", default=None, help="Whether the head follows the last LayerNorm.")
@click.option(
    "--flags", metavar="TEXT", help="Flags of the released diffusion program, as on its command line."
)
@click.option(
    "--method",
    metavar="NAME",
    help="Method that trained it, if several use this format. Default for residual networks: gaussian.",
)
def import_checkpoint(path: Path, out: Path, which: str | None, method: str | None, **said: Any) -> None:
    """Convert a released checkpoint to a safetensors file with metadata.

    PATH is a pre-training folder <step>.ckpt of rRCM, a file in it, a fine-tuned classifier, a residual network with
    its arch, or a U-Net of improved-diffusion or guided-diffusion. Only tensors are read; code in the file is never
    run.
    """
    from bench.methods.importing import import_checkpoint as convert

    for sentence in convert(path, out, command=command_line(), which=which, method=method, said=said):
        say(sentence)
    say(f"{out}")


def started_processes() -> int:
    """Return how many processes `accelerate launch` started for this command.

    Raises:
        UsageError: the variable of the environment holds no number.
    """
    text = os.environ.get(WORLD_SIZE, "1")
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(
            f"the environment has {WORLD_SIZE} {text!r}, expected a number of processes: unset it"
        )
    return int(text)
