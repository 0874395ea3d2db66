"""A checkpoint's metadata and trial: `bench doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bench.commands.options import DATA_OPTIONS, preset_of, resolve, say
from bench.commands.terminal.help import command
from bench.commands.terminal.kinds import NoiseLevel, Whole

if TYPE_CHECKING:
    from bench.checks.doctor.trials import Answer, Trial
    from bench.report.markup import Row, Table

MORE = 4
"""Readings at most that "cannot tell" lists."""


@command(short_help="Check what a checkpoint is and how it was trained")
@click.option(
    "--checkpoint",
    required=True,
    metavar="PATH|MODULE:FUNCTION",
    help="A file, a released folder, a diffusers folder or a function that returns a classifier.",
)
@DATA_OPTIONS
@click.option(
    "--method", metavar="NAME", help="Method that the file belongs to. Default: the one in its metadata."
)
@click.option(
    "--sigma",
    type=NoiseLevel(),
    metavar="FLOAT",
    help="Noise level that it is declared for. Default: the one in its metadata.",
)
@click.option(
    "--num-heads",
    type=Whole(min=1),
    metavar="INT",
    help="Attention heads, for a network of unpublished size.",
)
@click.option(
    "--layernorm/--no-layernorm", default=None, help="Whether the head of rRCM follows the last LayerNorm."
)
@click.option(
    "--flags", metavar="TEXT", help="Flags of the released diffusion program, as on its command line."
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
    """Show the metadata of a checkpoint and check whether it behaves as declared.

    64 held-out training images are classified, clean and noisy, under the declared settings and under the known
    alternatives: other input ranges and normalizations, label orders and noise levels. The exit code is 1 if the
    checkpoint fits an alternative better.
    """
    config = resolve(preset_of(given["dataset"]), {**given, **({"methods": method} if method else {})})
    from bench.checks.doctor.examine import examine
    from bench.checks.doctor.images import choose_images
    from bench.checks.doctor.metadata import Request, open_checkpoint
    from bench.checks.doctor.trials import collapse
    from bench.commands.printing import name_table, print_table
    from bench.data.sets import load_split
    from bench.device.hardware import resolve_device

    split = load_split(config, "train")
    said = {"num_heads": num_heads, "layernorm": layernorm, "flags": flags}
    subject = open_checkpoint(
        checkpoint,
        Request(task=split.task, method=method, sigma=sigma, options=config.options, said=said),
    )
    name_table(("metadata", "what the file and its configuration tell"), subject.metadata)
    images = choose_images(split, seed=config.seed)
    answers = []
    for answer in examine(subject, images, resolve_device(config.device)):
        print_table(answer_table(answer))
        answers.append(answer)
    for answer in answers:
        say(f"{answer.question}: {sentence(answer)}")
        if told := collapse(answer):
            say(told)
    return 1 if any(answer.verdict.kind == "looks like" for answer in answers) else 0


def answer_table(answer: Answer) -> Table:
    """Return every trial of a question with its 95% interval, a block per condition, the declared reading in bold."""
    from bench.report.markup import Block, Table

    conditions = dict.fromkeys(trial.condition for trial in answer.trials)
    blocks = tuple(
        Block(title=name, rows=tuple(_row(t, answer.declared) for t in answer.trials if t.condition == name))
        for name in conditions
    )
    return Table(
        caption=f"{answer.question} (declared: {answer.declared or 'nothing'})",
        headers=("reading", "score", "95% interval", "images"),
        blocks=blocks,
        notes=(),
    )


def _row(trial: Trial, declared: str | None) -> Row:
    from bench.report.markup import Cell

    def shown(value: float) -> str:
        return f"{value:.3g}" if trial.lower_is_better else f"{100 * value:.1f}%"

    interval = f"[{shown(trial.low)}, {shown(trial.high)}]"
    name = Cell(text=trial.reading, is_best=trial.reading == declared)
    return (name, shown(trial.score), interval, str(trial.images))


def sentence(answer: Answer) -> str:
    """Return the verdict: as declared, looks like X, or cannot tell, and by what."""
    verdict = answer.verdict
    if verdict.kind == "as declared":
        return f"as declared, {answer.declared} (by {answer.by})"
    if verdict.kind == "looks like":
        declared = "" if answer.declared is None else f", not as declared ({answer.declared})"
        return f"looks like {' or '.join(verdict.readings)}{declared} (by {answer.by})"
    if not verdict.readings:
        return f"cannot tell (by {answer.by})"
    more = f" and {len(verdict.readings) - MORE} more" if len(verdict.readings) > MORE else ""
    return f"cannot tell {answer.declared} from {', '.join(verdict.readings[:MORE])}{more} (by {answer.by})"
