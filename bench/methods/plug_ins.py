"""A function of the user's own by "module:function" as a method: its parameters are the method's options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bench.smoothing.classifiers import NO_ARGUMENTS, called, function_named, opened
from bench.types import Classifier, Task

TOLD = ("task", "sigma")
"""Parameters of a user's function that are not options: it is told them where it has them."""

NEEDED = object()
"""Stands for the value of an option that has no default."""


@dataclass(frozen=True, kw_only=True)
class PlugInConfig:
    """What every method is told; a plug-in's options are the parameters of its function."""

    task: Task
    sigma: float


@dataclass(frozen=True, kw_only=True)
class PlugIn:
    """A plug-in as a method's module; see `bench.types.MethodModule`."""

    source: str
    Config: type = PlugInConfig

    def build(self, config: PlugInConfig, checkpoint: Path | None) -> Classifier:
        """Return the classifier that the function returns, called with the options; see `open_plug_in`."""
        given = {one.name: getattr(config, one.name) for one in fields(config) if one.name not in TOLD}
        return open_plug_in(self.source, {**given, "task": config.task, "sigma": config.sigma})


def plug_in(source: str) -> PlugIn:
    """Return the plug-in as a method, its function found but not yet called.

    Raises:
        UsageError: a module that cannot be imported, or that has no such function.
    """
    own = [
        (name, annotation, field(default=default))
        for name, (annotation, default) in _options_of(function_named(source)).items()
    ]
    config = make_dataclass("Config", own, bases=(PlugInConfig,), frozen=True, kw_only=True)
    return PlugIn(source=source, Config=config)


def open_plug_in(source: str, arguments: Mapping[str, Any] = NO_ARGUMENTS) -> Classifier:
    """Return the classifier that "module:function" returns, in eval mode.

    It is a module or a callable, of noisy pixels or of (x_noisy, sigma, keys).

    Args:
        arguments: of the function, by name; of TOLD those that it has a parameter for.

    Raises:
        UsageError: no such function, one that needs other arguments, or what it returns cannot be called.
        CheckpointError: as in `opened`.
    """
    return opened(source, lambda: _made(source, arguments))


def _made(source: str, arguments: Mapping[str, Any]) -> Any:
    function = function_named(source)
    options = _options_of(function)
    taken = {
        name: value
        for name, value in arguments.items()
        if (name in options and value is not NEEDED) or (name in TOLD and name in _parameters(function))
    }
    return called(source, function, taken)


def _options_of(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Return the type and the default, NEEDED for none, of each parameter that text or a plain value can stand for."""
    try:
        made_by: Any = vars(function)["__init__"] if isinstance(function, type) else function
        hints = get_type_hints(made_by)
    except Exception:  # a name in an annotation that does not exist is no fault of the function's
        hints = {}
    found: dict[str, tuple[Any, Any]] = {}
    for name, one in _parameters(function).items():
        has_default = one.default is not inspect.Parameter.empty
        annotation = hints.get(name, _type_of(one.default) if has_default else str)
        if not _is_plain(annotation) and has_default and one.default is not None:
            annotation = _type_of(one.default)
        if name not in TOLD and _is_plain(annotation):
            found[name] = (annotation, one.default if has_default else NEEDED)
    return found


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters that can be given by name."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: one for name, one in signature.parameters.items() if one.kind in named}


def _type_of(default: Any) -> Any:
    """Return the type that values in place of a default have; one that is not plain for a default that is not."""
    if default is None:
        return str | None
    if isinstance(default, tuple) and len({*map(type, default)}) == 1:
        return tuple[type(default[0]), ...]  # type: ignore[misc]
    return type(default)


def _is_plain(annotation: Any) -> bool:
    """Return whether text can stand for a value of a type; see `bench.config.overrides.override`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return all(map(_is_plain, arguments))
    if origin is tuple:
        return all(one is Ellipsis or _is_plain(one) for one in arguments)
    return origin is Literal or annotation in (int, float, bool, str, Path, NoneType)
