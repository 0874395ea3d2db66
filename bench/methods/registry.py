"""Method and backbone names -> modules, imported only when asked for; see `bench.config.methods`."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.config.methods import BUILT_IN, methods
from bench.config.names import is_plug_in, method_hint, nearest_hint
from bench.config.overrides import override, user_path
from bench.errors import UnpublishedError, UsageError
from bench.training.architectures import Architecture, Chains, Network, RecipeTable
from bench.types import Backbone, MethodModule, Task

COUNTED = ("max_steps", "evaluate_every", "patience")
"""Options of training that a recipe of epochs sets itself."""


def load(name: str) -> MethodModule:
    """Return a method: its module, or the module's METHOD, or what stands for one where the name is "module:function".

    See `bench.types.MethodModule` and `bench.methods.plug_ins`.

    Raises:
        UsageError: an unknown name (the nearest is named), or a module that cannot be imported or lacks a part.
    """
    if is_plug_in(name):
        from bench.methods.plug_ins import plug_in

        stands_in: Any = plug_in(name)
        return stands_in
    known = methods()
    if name not in known:
        raise UsageError(f"unknown method {name!r}; {method_hint(name, known)}")
    try:
        module: Any = importlib.import_module(known[name].module)
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        told = str(error) if isinstance(error, Exception) else "it ends the program (sys.exit)"
        raise UsageError(f"method {name!r} cannot be imported from {known[name].module}: {told}") from error
    method = getattr(module, "METHOD", module)
    for part in ("Config", "build"):
        if not hasattr(method, part):
            raise UsageError(f"method {name!r}: {known[name].module} offers no {part}; add it to that file")
    return method


def offers(hook: str, names: Iterable[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield (method, its hook of that name) of each method that has one; a module is imported when its turn comes.

    A method of a package that cannot be imported offers nothing; `load` says why to whoever asks for it by name.

    Args:
        hook: one that `bench.types.MethodModule` lists.
        names: of the methods asked; None: all.
    """
    for name in methods() if names is None else names:
        try:
            method = load(name)
        except UsageError:
            if name in BUILT_IN:
                raise
            continue
        if (found := getattr(method, hook, None)) is not None:
            yield name, found


def configure(name: str, task: Task, sigma: float, options: Mapping[str, Any], *, trains: bool = True) -> Any:
    """Return the method's Config for a task and sigma, with its own options changed.

    Args:
        options: option -> value, text or typed; `backbone` is a name.
        trains: False where a checkpoint is there: a recipe that is not published at this sigma is left out then.

    Raises:
        UsageError: an unknown method, option or backbone, a value of a wrong type, a recipe that the method
            has not, or steps beside epochs.
    """
    module: Any = load(name)
    config = module.Config(task=task, sigma=sigma)
    changes, where = _own_options(name, options), f"method {name}"
    if hasattr(module, "expand"):
        named = {key: value for key, value in changes.items() if key in module.NAMED_OPTIONS}
        try:
            config = module.expand(override(config, named, where=where))
        except UnpublishedError:
            if trains:
                raise
            left = {key: value for key, value in changes.items() if key not in module.TRAINING_NAMES}
            return configure(name, task, sigma, left)
    if "backbone" in changes and not is_plug_in(name):
        if not has_backbone(name):
            raise UsageError(f"method {name!r} has a network of its own; leave --backbone out for it")
        config = dataclasses.replace(config, backbone=backbone(str(changes.pop("backbone"))))
    config = override(config, changes, where=where)
    if name in BUILT_IN:
        _check_ranges(name, {option: getattr(config, option) for option in changes if option != "backbone"})
    if hasattr(module, "settle"):
        config = module.settle(config, changes)
    if hasattr(module, "backbone_of") and (own := module.backbone_of(config)) is not None:
        config = dataclasses.replace(config, backbone=backbone(own))
    counted = [option for option in COUNTED if option in changes]
    if counted and not is_plug_in(name) and getattr(config, "epochs", 0) > 0:
        raise UsageError(
            f"{name}.{counted[0]} is given, but the recipe counts {config.epochs} epochs: set {name}.epochs instead, "
            f"or {name}.epochs=0 to count steps, in all options of the recipe that count epochs"
        )
    return config


COUNTS = frozenset(
    {
        "batch_size",
        "classifier_max_steps",
        "copies",
        "depth",
        "diffusion_steps",
        "double_every",
        "embed_dim",
        "finetune_max_steps",
        "hidden_dim",
        "max_steps",
        "nonfinite_limit",
        "num_heads",
        "output_dim",
        "patch",
        "patch_size",
        "patience",
        "pretrain_batch_size",
        "rate_every",
    }
)
"""Options that count something which must be there: 1 or more."""

SHARES = frozenset({"ema_decay", "pretrain_ema_decay", "pretrain_target_start", "pretrain_target_end"})
"""Options from 0 to 1."""


def _check_ranges(name: str, given: Mapping[str, Any]) -> None:
    """Raise UsageError for a number that no training can have, among the options that the user gives."""
    for option, value in given.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if isinstance(value, tuple) and not value:
            raise UsageError(f"{name}.{option} is empty, expected one number or more")
        for one in numbers:
            if isinstance(one, bool) or not isinstance(one, int | float):
                continue
            least = 1 if option in COUNTS or isinstance(value, tuple) else 0
            if one < least:
                raise UsageError(f"{name}.{option} is {one:g}, expected {least} or more")
            if option in SHARES and one > 1:
                raise UsageError(f"{name}.{option} is {one:g}, expected 1 or less")


def _own_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the method's Config is to take; `checkpoint` need not be a field of it.

    Raises:
        UsageError: one that is no option of the method, but of the run; or no path as `checkpoint`.
    """
    for key, instead in (("sigma", "--sigma"), ("task", "--dataset")):
        if key in options:
            raise UsageError(f"{name}.{key} is no option of a method: give {instead}")
    if is_plug_in(name) or "checkpoint" in _fields_of(name):
        return dict(options)
    if not isinstance(options.get("checkpoint", ""), str):
        raise UsageError(f"{name}.checkpoint is {options['checkpoint']!r}, expected the path of a file")
    return {key: value for key, value in options.items() if key != "checkpoint"}


def checkpoint_of(config: Any, options: Mapping[str, Any]) -> Path | None:
    """Return the file that the option `checkpoint` names, of any method; None where it names none.

    Args:
        config: what `configure` made of the options.

    Raises:
        UsageError: it begins with the home folder of a user who is not there.
    """
    named = getattr(config, "checkpoint", None) or options.get("checkpoint")
    try:
        return user_path(named) if named else None
    except ValueError as error:
        raise UsageError(f"checkpoint: {error}: give the path of a file") from error


def checked_options(name: str, options: Mapping[str, Any], sigmas: Sequence[float] = ()) -> dict[str, Any]:
    """Return options that `configure` takes, whatever the data set, with text as the values that it stands for.

    Args:
        sigmas: noise levels of the run; they are checked at 0.5 where it is among them, since every recipe has it.

    Raises:
        UsageError: as in `configure`.
    """
    sigma = 0.5 if not sigmas or 0.5 in sigmas else sigmas[0]
    config = configure(name, Task(dataset="", channels=1, image_size=28, num_classes=10), sigma, options)
    return {
        key: value if key == "backbone" and not is_plug_in(name) else getattr(config, key, value)
        for key, value in options.items()
    }


def _fields_of(name: str) -> set[str]:
    return {field.name for field in dataclasses.fields(load(name).Config)}


def stands_for(name: str, option: str) -> Collection[str]:
    """Return the options that a method's option stands for; none for one that stands for itself alone.

    Raises:
        UsageError: as in `load`.
    """
    return getattr(load(name), "NAMED_OPTIONS", {}).get(option, ())


def has_backbone(name: str) -> bool:
    """Return whether the method's network can be chosen; an option of that name of a plug-in is its own."""
    return not is_plug_in(name) and "backbone" in _fields_of(name)


def backbone(name: str) -> Backbone:
    """Return a network by name: the first method that knows the name makes it.

    Raises:
        UsageError: no method does; the nearest name is given.
    """
    for _, own in offers("backbone"):
        if (found := own(name)) is not None:
            return found
    known = [one for _, names in offers("backbone_names") for one in names()]
    raise UsageError(f"unknown backbone {name!r}; {nearest_hint(name, known)}")


def networks(names: Iterable[str] | None = None) -> Iterator[Network]:
    """Yield the own networks of methods of these names, or of all, on the meta device."""
    for _, own in offers("networks", names):
        yield from own()


def architectures(family: str, chains: Chains) -> dict[str, Architecture]:
    """Return the methods of a family, "imagenet" or "cifar10" or one of these with "-reduced" behind it, by name."""
    return {one.name: one for _, own in offers("architectures") for one in own(family, chains)}


def architecture(name: str, task: Task, sigma: float, options: Mapping[str, Any]) -> Architecture:
    """Return a method with the given options, and random weights, as something to measure.

    Raises:
        UsageError: as in `configure`; or, when it is built, that it is no `torch.nn.Module`.
    """
    import torch

    from bench.smoothing.classifiers import opened

    config, module = configure(name, task, sigma, options, trains=False), load(name)

    def on_cpu() -> Any:
        with torch.device("cpu"):  # whatever device is asked for: not every module can be made elsewhere
            built = opened(name, lambda: module.build(config, None))
        if not isinstance(built, torch.nn.Module):
            raise UsageError(
                f"{name} is {type(built).__name__}, no torch.nn.Module, so that its operations cannot be counted: "
                "return the module, or let `bench run` time it"
            )
        return built

    return Architecture(name=name, task=task, build=lambda make: make(name, on_cpu), batch_size=128)


def recipe_tables(names: Iterable[str] | None = None) -> list[RecipeTable]:
    """Return (headers, rows) of the published recipes that options can name; methods of equal headers share a table.

    Args:
        names: of the methods asked; None: all.
    """
    tables: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for _, own in offers("recipe_tables", names):
        for headers, rows in own():
            tables.setdefault(headers, []).extend(rows)
    return [*tables.items()]
