"""Code that files name: nothing of it is imported unless the user typed its name in the same command.

A preset, a records file and a checkpoint can hold "module:function" as a method or as the value of an option. Built-in
methods, and those that installed packages register, are code that the user has chosen already; a function of any other
module is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.config.names import is_plug_in
from bench.errors import UsageError, clipped


def named_code(methods: Iterable[str], options: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return each "module:function" among methods and their options, and how a user types it.

    Args:
        methods: names of methods.
        options: method -> option -> value, of any type.
    """
    found = {name: f"--methods {name}" for name in (*methods, *options) if is_plug_in(name)}
    for method, values in options.items():
        for option, value in values.items():
            for text in _texts(value):
                if is_plug_in(text):
                    found.setdefault(text, f"--set {method}.{option}={text}")
    return found


def typed_code(methods: str | None, changes: Iterable[str]) -> frozenset[str]:
    """Return each "module:function" that a command line holds.

    Args:
        methods: the value of --methods, names separated by commas; None: not given.
        changes: each METHOD.OPTION=VALUE of --set.
    """
    values = (part for change in changes for part in change.partition("=")[2].split(","))
    names = ((methods or "").split(","), values)
    return frozenset(name.strip() for some in names for name in some if is_plug_in(name.strip()))


def check_typed(found: Mapping[str, str], typed: Iterable[str], source: object) -> None:
    """Return nothing where the user typed all code that a file names.

    Args:
        found: as `named_code` returns it for what the file holds.
        typed: as `typed_code` returns it for the command.
        source: the file, for the message.

    Raises:
        UsageError: the user did not; the message says what to type.
    """
    for name in found.keys() - {*typed}:
        raise UsageError(
            f"{source} names code, {clipped(name)}, and a name in a file is not run: read that code, "
            f"then add {clipped(found[name], 200)} to run it"
        )


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value, however it is nested, and the parts of one that lists several."""
    if isinstance(value, str):
        yield from (value, *(part.strip() for part in value.split(",")))
    elif isinstance(value, Mapping):
        for inner in (*value, *value.values()):
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
