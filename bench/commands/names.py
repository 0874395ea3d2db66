"""What can be looked up: `bench list`, `guide`, `completion`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import click

from bench.commands.options import say
from bench.commands.terminal import machine, pages
from bench.commands.terminal.help import command, completes, method_names
from bench.commands.terminal.machine import JSON_OPTION, quiet_option
from bench.config.names import DATASETS
from bench.errors import UsageError

Tables = Iterable[tuple[Sequence[str], Sequence[Sequence[str]]]]


def _methods() -> Tables:
    from bench.config.methods import methods

    rows = [(one.name, one.display_name or one.name, one.summary) for one in methods().values()]
    return [(("method", "in papers", "what it is"), rows)]


def _datasets() -> Tables:
    return [(("data set", "what it is"), list(DATASETS.items()))]


def _presets() -> Tables:
    from bench.config.run import list_presets

    rows = [
        (preset.name, _sentences(preset.description, f"Cost: {preset.cost}", f"Expected: {preset.expected}"))
        for preset in list_presets()
    ]
    return [(("preset", "what it is, its cost, the expected result"), rows)]


def _sentences(*texts: str) -> str:
    return " ".join(f"{' '.join(text.split()).rstrip('.')}." for text in texts)


def _models() -> Tables:
    from bench.methods.listed import model_tables

    return model_tables()


def _options(method: str) -> list[tuple[str, str, str]]:
    """Return name, type and default of each option of a method."""
    import dataclasses
    from typing import get_type_hints

    from bench.config.overrides import describe
    from bench.methods import registry

    config = registry.load(method).Config
    hints = get_type_hints(config)
    rows = []
    for one in dataclasses.fields(config):
        if one.name not in ("task", "sigma"):
            default = one.default if one.default is not dataclasses.MISSING else ""
            rows.append((f"{method}.{one.name}", describe(hints[one.name]), _typed(default)))
    if "checkpoint" not in hints and ":" not in method:
        rows.append((f"{method}.checkpoint", "a path", "the zoo's"))
    return rows


def _typed(value: object) -> str:
    """Return a value as `--set` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(_typed, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "name", value))


def _recipes() -> Tables:
    from bench.methods.listed import recipe_tables

    return recipe_tables()


LISTS: Mapping[str, Callable[[], Tables]] = {
    "methods": _methods,
    "datasets": _datasets,
    "presets": _presets,
    "models": _models,
    "recipes": _recipes,
}


@command(name="list", short_help="Methods, data sets, presets, models, recipes, options")
@click.argument("what", type=click.Choice([*LISTS, "options"]))
@click.argument("method", required=False, shell_complete=completes(method_names))
@quiet_option("Print the names only, one per line.")
@JSON_OPTION
def list_names(what: str, method: str | None, is_quiet: bool, as_json: bool) -> None:
    """List methods, data sets, presets, networks with their sizes, training recipes, or the options of METHOD."""
    from bench.commands.printing import name_table

    if (what == "options") != (method is not None):
        raise UsageError("`bench list options METHOD` names one method, and the other lists none")
    tables = LISTS[what]() if method is None else [(("--set", "value", "default"), _options(method))]
    if as_json:
        machine.print_json({what: [row for table in tables for row in machine.named(*table)]})
        return
    for headers, rows in tables:
        if is_quiet:
            for row in rows:
                say(row[0])
        else:
            name_table(headers, rows)


@command(short_help="Show a page of the guide")
@click.argument("topic", required=False, shell_complete=completes(lambda: pages.topics()))
@click.option("--plain", "is_plain", is_flag=True, help="Print the Markdown source.")
def guide(topic: str | None, is_plain: bool) -> None:
    """Show TOPIC of the guide in the terminal; without TOPIC, list the topics."""
    from bench.commands.printing import name_table

    if topic is None:
        name_table(("topic", "what it is about"), list(pages.topics().items()))
    else:
        pages.show(topic, is_plain=is_plain)


@command(short_help="Print the completion script of a shell")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    For bash, add `eval "$(bench completion bash)"` to ~/.bashrc; for zsh, the same with zsh to ~/.zshrc; for fish, run
    `bench completion fish > ~/.config/fish/completions/bench.fish`.
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    found = get_completion_class(shell)
    assert found is not None  # the choices above are click's own
    click.echo(found(root, {}, "bench", "_BENCH_COMPLETE").source())
