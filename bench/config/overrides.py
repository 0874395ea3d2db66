"""Strict changes to any frozen dataclass: values from TOML, or text from the command line, by field type."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from bench.config.names import nearest_hint
from bench.config.numbers import integer, number
from bench.errors import UsageError, shown

Instance = TypeVar("Instance")


def override(instance: Instance, changes: Mapping[str, Any], *, where: str = "") -> Instance:
    """Return a copy of a frozen dataclass with some fields changed, each value checked against its type.

    Text is converted: "8" for an int, "1e-3" for a float, "true" or "false" for a bool, "0.25,0.5" for a
    tuple, "none" where None is allowed. An integer stands for a float, never a float or a bool for an int.

    Args:
        instance: a frozen dataclass whose annotations are int, float, bool, str, Path, Literal, tuples or
            dicts of these, or unions of these.
        changes: field name -> value.
        where: what the changes belong to, put before the message of an error.

    Raises:
        UsageError: a field that does not exist (the nearest one is named), or a value of another type.
    """
    assert dataclasses.is_dataclass(instance)
    assert not isinstance(instance, type)
    prefix = f"{where}: " if where else ""
    names = [field.name for field in dataclasses.fields(instance) if field.init]
    for name in changes:
        if name not in names:
            raise UsageError(f"{prefix}unknown key {shown(name)}; {nearest_hint(name, names)}")
    annotations = get_type_hints(type(instance))
    converted = {}
    for name, value in changes.items():
        try:
            converted[name] = _convert(value, annotations[name])
        except (ValueError, OverflowError) as error:
            expected = describe(annotations[name])
            raise UsageError(f"{prefix}{name} is {shown(value)}, expected {expected}") from error
    return dataclasses.replace(instance, **converted)


def _convert(value: Any, annotation: Any) -> Any:
    """Return `value` as the type `annotation`.

    Raises:
        ValueError: it is not of that type, and no text for it.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin in (Union, UnionType):
        return _convert_union(value, arguments)
    if origin is Literal:
        return _convert_literal(value, arguments)
    if origin is tuple:
        return _convert_tuple(value, arguments)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError
        return {_convert(key, arguments[0]): _convert(item, arguments[1]) for key, item in value.items()}
    return _convert_scalar(value, annotation)


def _convert_literal(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if value == str(choice) or (type(value) is type(choice) and value == choice):
            return choice
    raise ValueError


def _convert_union(value: Any, members: tuple[Any, ...]) -> Any:
    """Return `value` as the first member that takes it; None, and the text "none", come before the others."""
    if NoneType in members and (value is None or str(value).lower() == "none"):
        return None
    for member in members:
        try:
            return _convert(value, member)
        except ValueError:
            continue
    raise ValueError


def _convert_tuple(value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")] if value.strip() else []
    if not isinstance(value, list | tuple):
        raise ValueError
    if arguments[1:] == (Ellipsis,):
        return tuple(_convert(item, arguments[0]) for item in value)
    if len(value) != len(arguments):
        raise ValueError
    return tuple(_convert(item, member) for item, member in zip(value, arguments, strict=True))


def _convert_scalar(value: Any, annotation: Any) -> Any:
    if annotation is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if annotation in (int, float) and not isinstance(value, bool):
        return _convert_number(value, annotation)
    if annotation is Path and isinstance(value, str | Path) and str(value):
        return user_path(value)
    if isinstance(annotation, type) and annotation not in (int, float) and isinstance(value, annotation):
        return value
    raise ValueError


def user_path(value: str | Path) -> Path:
    """Return a path, "~" and "~user" at its beginning being home folders.

    Raises:
        ValueError: there is no such user, or no file can have that name.
    """
    if "\0" in str(value):
        raise ValueError(f"{str(value)!r} is no name that a file can have")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{str(value)!r} names no user's home folder") from error


def _convert_number(value: Any, annotation: type[int] | type[float]) -> int | float:
    """Return a finite number; an int from an int or its text, a float from any number or its text."""
    if isinstance(value, str):
        return integer(value) if annotation is int else number(value)
    wanted: Any = Integral if annotation is int else Real  # numpy's numbers too
    if not isinstance(value, wanted):
        raise ValueError
    converted = annotation(value)
    if not math.isfinite(converted):
        raise ValueError
    return converted


def describe(annotation: Any) -> str:
    """Return a type as a user reads it, such as "an integer or none"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(describe(member) for member in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return f"a list, each {describe(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}: " + ", ".join(describe(member) for member in arguments)
    if origin is dict:
        return "a table"
    words = {int: "an integer", float: "a finite number", bool: "true or false", str: "text", Path: "a path"}
    words[NoneType] = "none"
    word = words.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return f"the name of a {word.lower()}" if _has_name(annotation) else word


def _has_name(annotation: Any) -> bool:
    """Return whether a type is a dataclass whose instances are given by their names."""
    return dataclasses.is_dataclass(annotation) and "name" in {
        one.name for one in dataclasses.fields(annotation)
    }
