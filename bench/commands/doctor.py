"""A checkpoint's passport and trial: `bench doctor`."""

from __future__ import annotations

from typing import Any

import click

from bench.commands.options import DATA_OPTIONS, NoiseLevel, preset_of, resolve


@click.command()
@click.option(
    "--checkpoint",
    required=True,
    metavar="PATH|MODULE:FUNCTION",
    help="A file, a released folder, a diffusers folder, or a function that returns a classifier.",
)
@DATA_OPTIONS
@click.option("--method", metavar="NAME", help="Read the file as this method's; default: as it says itself.")
@click.option(
    "--sigma",
    type=NoiseLevel(),
    metavar="FLOAT",
    help="Noise level it is declared for; default: its own.",
)
@click.option("--num-heads", type=click.IntRange(min=1), metavar="INT", help="Attention heads of a new size.")
@click.option(
    "--layernorm/--no-layernorm", default=None, help="Whether rRCM's head reads after the last LayerNorm."
)
@click.option(
    "--flags", metavar="TEXT", help="Flags of a released diffusion program, as on its command line."
)
def doctor(
    checkpoint: str,
    method: str | None,
    sigma: float | None,
    num_heads: int | None,
    layernorm: bool | None,
    flags: str | None,
    **given: Any,
) -> int:
    """Say what a checkpoint is, and whether it looks trained as it declares.

    64 held-out training images are classified, clean and noisy, under what the checkpoint declares and under the
    known alternatives: other input ranges and normalisations, other orders of labels, other noise levels. Exit code
    1 if it looks like an alternative.
    """
    config = resolve(preset_of(given["dataset"]), {**given, **({"methods": method} if method else {})})
    from bench.checks.doctor import examine as trial
    from bench.checks.doctor.images import choose_images
    from bench.checks.doctor.passport import Request, open_checkpoint
    from bench.commands.doctor_tables import answer_table, sentence
    from bench.commands.printing import name_table, print_table
    from bench.data.sets import load_split
    from bench.device.hardware import resolve_device

    split = load_split(config, "train")
    said = {"num_heads": num_heads, "layernorm": layernorm, "flags": flags}
    subject = open_checkpoint(
        checkpoint,
        Request(task=split.task, method=method, sigma=sigma, options=config.options, said=said),
    )
    name_table(("passport", "what the file and its configuration tell"), subject.passport)
    images = choose_images(split, seed=config.seed)
    answers = []
    for answer in trial.examine(subject, images, resolve_device(config.device)):
        print_table(answer_table(answer))
        answers.append(answer)
    for answer in answers:
        click.echo(f"{answer.question}: {sentence(answer)}")
    return 1 if any(answer.verdict.kind == "looks like" for answer in answers) else 0
