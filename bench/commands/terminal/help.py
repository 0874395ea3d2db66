"""How help is printed: commands in sections with whole summaries, options in groups with their defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import click
from click.shell_completion import CompletionItem

SECTIONS = {
    "Certify": ("run", "certify", "predict", "plan", "status", "merge"),
    "Report": ("report", "compare", "recertify", "cost"),
    "Train": ("train", "curves"),
    "Checkpoints": ("import-checkpoint", "doctor"),
    "Verify": ("selftest", "audit", "replay"),
    "Published logs": ("import-log", "export-log", "check-log"),
    "Help": ("list", "guide", "completion"),
}
"""Title -> its commands, in the order of `bench --help`."""

GROUPS = {
    "Data": (
        "dataset",
        "data_dir",
        "download",
        "image_size",
        "geometry",
        "subset",
        "limit",
        "skip",
        "images",
    ),
    "Methods": ("methods", "method", "sigmas", "sigma", "zoo", "backbone", "changes", "allow"),
    "Protocol": ("n", "n0", "alpha", "estimation", "bound", "seed", "radii"),
    "Compute": (
        *("device", "batch_size", "precision", "compile", "engine", "workers", "address"),
        *("cpus_per_worker", "gpus_per_worker", "shard", "cost_repetitions"),
    ),
    "Output": ("out", "folder", "dry_run", "as_json", "is_quiet"),
}
"""Title -> the parameters whose options it holds; what is in no group comes first."""

MOST_UNGROUPED = 9
"""Options that a command lists without groups, at most."""


class Sectioned(click.Group):
    """A group whose help lists its commands by SECTIONS; what is in none of them is not listed."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section with the whole summary of each command."""
        for title, names in SECTIONS.items():
            commands = [(name, self.commands[name]) for name in names if name in self.commands]
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in commands])


class Grouped(click.Command):
    """A command whose help has its options in GROUPS, with the defaults that come from the preset."""

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        """Return the names of the option that prints help: click keeps those of the first context, whatever it is."""
        return ["-h", "--help"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, in groups where there are many."""
        found = [one for one in self.get_params(ctx) if one.get_help_record(ctx) is not None]
        group = {name: title for title, names in GROUPS.items() for name in names}
        groups: dict[str, list[click.Parameter]] = {"Options": [], **{title: [] for title in GROUPS}}
        for one in found:
            title = group.get(one.name or "", "Options") if len(found) > MOST_UNGROUPED else "Options"
            groups[title].append(one)
        for title, options in groups.items():
            if options:
                with formatter.section(title):
                    formatter.write_dl([_record(one, ctx) for one in options])


command: Callable[..., Any] = partial(click.command, cls=Grouped)
"""`click.command` for commands whose options are in groups."""


def _record(option: click.Parameter, ctx: click.Context) -> tuple[str, str]:
    """Return an option's names and its help, with its default where a preset holds it."""
    names, text = option.get_help_record(ctx) or ("", "")
    is_open = not isinstance(option.default, str | int | float)
    default = _preset_defaults().get(option.name or "") if is_open else None
    names_of_command = {one.name for one in ctx.command.params}
    is_of_preset = (
        "changes" in names_of_command and "run" not in names_of_command
    )  # those of a run are its own
    return names, f"{text}  [mnist5k: {default}]" if default and is_of_preset else text


def _preset_defaults() -> dict[str, str]:
    """Return what the preset that runs by default has, option -> value as a user would type it."""
    from bench.config.run import load_preset, to_json

    shown: tuple[str, ...] = (
        "dataset",
        "methods",
        "sigmas",
        "n",
        "n0",
        "alpha",
        "limit",
        "radii",
        "seed",
        "device",
        "batch_size",
    )
    shown += ("estimation", "bound", "precision", "compile", "subset", "cost_repetitions")
    values = to_json(load_preset("mnist5k"))
    return {
        name: ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values[name])
        if isinstance(values[name], list)
        else str(values[name])
        for name in shown
    }


def completes(names: Callable[[], Iterable[str]] | str) -> Callable[..., list[CompletionItem]]:
    """Return what completes an option's value: each of the names, also behind a comma.

    Args:
        names: "a|b|c", or a function that returns the names.
    """

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        known = names.split("|") if isinstance(names, str) else names()
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(f"{before}{comma}{name}") for name in known if name.startswith(last)]

    return complete


def dataset_names() -> Iterable[str]:
    """Return the names of data sets."""
    from bench.config.names import DATASETS

    return DATASETS


def method_names() -> Iterable[str]:
    """Return the names of methods, and "all"."""
    from bench.config.methods import methods

    return (*methods(), "all")


def preset_names() -> Iterable[str]:
    """Return the names of the presets that come with the program."""
    from bench.config.run import list_presets

    return (one.name for one in list_presets())
