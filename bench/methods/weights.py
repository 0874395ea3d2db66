"""A digest of the weights of whatever computes, however a user's classifier holds them: what cannot be seen is said."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.device.bfloat16 import COPIES, CastOnce
from bench.types import UNSEEN

IN_PART = " in part, without "
"""Stands between a digest and the kinds of objects, separated by commas, that may hold further weights."""

MOST = 300_000
"""Objects that are looked into at most."""

LIBRARIES = frozenset(
    {
        *sys.stdlib_module_names,
        *(
            "torch",
            "torchvision",
            "numpy",
            "scipy",
            "timm",
            "diffusers",
            "transformers",
            "safetensors",
            "PIL",
        ),
        "bench",
    }
)
"""Packages whose functions keep no weights of a user's model in their globals."""

CLOSED = frozenset({"torch", "numpy", *sys.stdlib_module_names})
"""Packages whose objects are not looked into, but for torch modules, tensors, arrays, functions and containers."""

PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, torch.dtype, torch.device)
"""Types that hold no weights."""

Part = tuple[str, Any]
"""The name of an object's part, and the part."""


def fingerprint(classifier: Any) -> str:
    """Return the SHA-256 of the weights that a classifier computes with, 64 hexadecimal digits.

    It covers names, types, shapes and bytes of all torch tensors and arrays that are reachable from the classifier
    through attributes, containers, closures, partial functions and the globals that its own functions use. With
    IN_PART and kinds of objects behind it where some could not be looked into; UNSEEN where there is no tensor at all.
    """
    walk = _Walk()
    walk.follow(classifier)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing runs outside Python's lock
        lines = [line for line in pool.map(walk.line, walk.found) if line]
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest() if lines else UNSEEN
    return f"{digest}{IN_PART}{', '.join(sorted(walk.unseen))}" if lines and walk.unseen else digest


@dataclass(kw_only=True)
class _Walk:
    """What is found on the way through the objects that a classifier holds.

    Attributes:
        found: name and tensor or array; unseen: kinds of objects that could not be looked into.
        kept: the objects visited, by identity; they are kept, so that no identity is used twice.
    """

    found: list[tuple[str, Tensor | np.ndarray[Any, Any]]] = field(default_factory=list)
    unseen: set[str] = field(default_factory=set)
    kept: dict[int, Any] = field(default_factory=dict)

    def follow(self, start: Any) -> None:
        """Visit everything that can be reached from an object."""
        waiting: deque[Part] = deque([("", start)])
        while waiting:
            name, value = waiting.popleft()
            if isinstance(value, PLAIN) or id(value) in self.kept:
                continue
            if len(self.kept) == MOST:
                self.unseen.add(f"what lies behind {MOST:,} objects")
                return
            self.kept[id(value)] = value
            if isinstance(value, Tensor | np.ndarray):
                self.found.append((name, value))
            else:
                waiting.extend((name + part, inner) for part, inner in self._parts(value))

    def line(self, one: tuple[str, Tensor | np.ndarray[Any, Any]]) -> str:
        """Return name, type, shape and digest of a tensor or array; "" where its values cannot be read."""
        name, value = one
        try:
            digest = hashlib.sha256(_bytes(value)).hexdigest()
            return f"{name} {value.dtype} {tuple(value.shape)} {digest}"
        except (RuntimeError, NotImplementedError, ValueError, TypeError):  # such as a tensor without storage
            self.unseen.add(_kind(value))
            return ""

    def _parts(self, value: Any) -> Iterator[Part]:
        for kind, parts in _PARTS:
            if isinstance(value, kind):
                return parts(value)
        if hasattr(type(value), "__array__"):
            return self._array(value)
        if isinstance(value, torch.ScriptObject | functools._lru_cache_wrapper):
            self.unseen.add(_kind(value))
        return self._members(value)

    def _array(self, value: Any) -> Iterator[Part]:
        try:
            yield "", np.asarray(value)
        except Exception:  # whatever another library's array does
            self.unseen.add(_kind(value))

    def _members(self, value: Any) -> Iterator[Part]:
        """Yield the attributes of any other object, and its class; objects of torch and of Python itself have none."""
        if _package(type(value)) in CLOSED:
            return
        slots = [name for cls in type(value).__mro__ for name in _listed(vars(cls).get("__slots__", ()))]
        members = {name: getattr(value, name) for name in slots if hasattr(value, name)} | _members_of(value)
        if not members and not hasattr(value, "__dict__") and not slots:
            self.unseen.add(_kind(value))
        yield from _named(members)
        yield "", type(value)


def _of_module(module: nn.Module) -> Iterator[Part]:
    """Yield the parts of a torch module under the names of its state dict, what no state dict holds, and its class."""
    if isinstance(module, torch.jit.ScriptModule):
        yield from _named(module.state_dict())
        return
    registered = ("_parameters", "_buffers", "_modules")
    for name in registered:
        held = vars(module).get(name, {})
        if isinstance(module, CastOnce):
            held = {own: value for own, value in held.items() if own not in COPIES}
        yield from _named(held)
    yield from _named({name: value for name, value in vars(module).items() if name not in registered})
    yield "", type(module)


def _of_function(function: types.FunctionType) -> Iterator[Part]:
    """Yield what a function's closure, defaults and attributes hold, and the globals that its code names."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            yield f".{name}", cell.cell_contents
    yield from _of_sequence(function.__defaults__ or ())
    yield from _named(function.__kwdefaults__ or {})
    yield from _named(vars(function))
    if _package(function) not in LIBRARIES:
        yield from _globals_of(function)


def _globals_of(function: types.FunctionType) -> Iterator[Part]:
    names = sorted(_names_in(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        if not isinstance(value, types.ModuleType):
            yield f".{name}", value
        elif value.__name__.partition(".")[0] not in LIBRARIES:
            held = {inner: vars(value)[inner] for inner in names if inner in vars(value)}
            yield from ((f".{name}{part}", found) for part, found in _named(held) if not _is_module(found))


def _is_module(value: Any) -> bool:
    return isinstance(value, types.ModuleType)


def _names_in(code: types.CodeType) -> set[str]:
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return {*code.co_names}.union(*map(_names_in, inner))


def _of_class(cls: type) -> Iterator[Part]:
    """Yield what a user's class and the classes that it is made from hold."""
    for base in cls.__mro__:
        if _package(base) not in LIBRARIES:
            yield from _named({name: value for name, value in vars(base).items() if name != "__dict__"})


def _of_sequence(values: Any) -> Iterator[Part]:
    return ((f"[{position}]", value) for position, value in enumerate(values))


def _of_mapping(values: Mapping[Any, Any]) -> Iterator[Part]:
    for position, (key, value) in enumerate(values.items()):
        yield f".{key}" if isinstance(key, str | int) else f"[{position}]", value


def _named(values: Mapping[str, Any]) -> Iterator[Part]:
    return ((f".{name}", value) for name, value in values.items())


def _members_of(value: Any) -> dict[str, Any]:
    return getattr(value, "__dict__", None) or {}


def _listed(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


_PARTS: tuple[tuple[Any, Callable[[Any], Iterator[Part]]], ...] = (
    (nn.Module, _of_module),
    (types.FunctionType, _of_function),
    (types.MethodType, lambda bound: iter([("", bound.__self__), ("", bound.__func__)])),
    (functools.partial, lambda one: iter([("", one.func), (".args", one.args), ("", one.keywords)])),
    (staticmethod | classmethod, lambda one: iter([("", one.__func__)])),
    (property, lambda one: iter([("", one.fget)])),
    (weakref.ReferenceType, lambda one: iter([("", one())])),
    (type, _of_class),
    (types.ModuleType, lambda one: iter(())),
    (types.SimpleNamespace, lambda one: _named(vars(one))),
    (Mapping, _of_mapping),
    (list | tuple | deque, _of_sequence),
    (set | frozenset, lambda values: (("{}", value) for value in values)),
)
"""Types, and what their objects are made of; the first that fits counts."""


def _bytes(value: Tensor | np.ndarray[Any, Any]) -> Any:
    """Return the values of a tensor or an array as something that can be hashed, without a copy where that is possible.

    Raises:
        RuntimeError, NotImplementedError, ValueError, TypeError: it has none to read.
    """
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    plain = value.detach().cpu()
    if plain.is_quantized:
        return plain.int_repr().numpy().tobytes() + repr(plain.qscheme()).encode()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    return plain.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy()


def _package(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "").partition(".")[0]


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
