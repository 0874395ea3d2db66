"""A method at one sigma, as it enters a run: configured once, with the checkpoint that it certifies."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from bench.config.levels import shortest
from bench.config.names import Allowance
from bench.config.run import RunConfig, list_presets, load_preset
from bench.errors import CheckpointError, clipped, shown
from bench.methods import registry, zoo
from bench.smoothing.classifiers import opened
from bench.training.checkpoints import check_trained_as, load_metadata, unfinished
from bench.training.origin import LIMITS
from bench.training.provenance import told
from bench.training.recipes import trained_options
from bench.types import Classifier, Task

SHOWN = 3
"""Options that a note on a checkpoint names at most."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A method at one sigma.

    Attributes:
        options: the method's own options, as they were given.
        config: the method's Config with these options; whatever only its training needs is left out where it fails.
        checkpoint: the file that it certifies; None where it needs none, or where it is missing.
        training_command: returns what trains a checkpoint that is missing.
    """

    method: str
    sigma: float
    options: Mapping[str, Any]
    config: Any
    checkpoint: Path | None
    training_command: Callable[[], str] = lambda: ""

    def __reduce__(self) -> tuple[Any, ...]:
        # By name and options: a network's maker in the config need not cross to another process.
        return configured, (self.config.task, self.method, self.sigma, self.options, self.checkpoint)

    @property
    def key(self) -> str:
        """Its name in a header: "<method>/<sigma>"."""
        return f"{self.method}/{self.sigma:g}"

    @property
    def file_name(self) -> str | None:
        """The name of its checkpoint's file below <zoo>/<dataset>/; None where it needs none."""
        module = registry.load(self.method)
        return module.checkpoint_name(self.config) if hasattr(module, "checkpoint_name") else None

    @property
    def is_missing(self) -> bool:
        """True where it needs a checkpoint that is not there."""
        return self.file_name is not None and self.checkpoint is None

    def required(self, allow: Collection[Allowance] = ()) -> Entrant:
        """Return this entrant if its checkpoint is there, and as in `finished`.

        Raises:
            CheckpointError: it is not; the message says how to train it.
        """
        if self.is_missing:
            raise CheckpointError(
                f"no {self.file_name} for {self.config.task.dataset}: train it first with "
                f"`{self.training_command()}`, or name its --zoo"
            )
        return self.finished(allow)

    def finished(self, allow: Collection[Allowance] = ()) -> Entrant:
        """Return this entrant if none of its files is of a training that was stopped before its end.

        Args:
            allow: with "unfinished" in it they may be.

        Raises:
            CheckpointError: one of them is; the message says how far it has come, and what to do.
        """
        for name, steps in {} if "unfinished" in allow else self.unfinished().items():
            raise CheckpointError(
                f"{self.files()[name]} is of a training that was stopped after {steps} and has not ended: repeat its "
                "`bench train` to finish it, or add --allow unfinished, and every table will name it"
            )
        return self

    def files(self) -> dict[str, Path]:
        """Return the files that its classifier is built from and that are there, by `key` and "<key>/<part>"."""
        module = registry.load(self.method)
        parts = module.foreign_files(self.config) if hasattr(module, "foreign_files") else {}
        found = {} if self.checkpoint is None else {self.key: self.checkpoint}
        return found | {f"{self.key}/{part}": path for part, path in parts.items() if path.exists()}

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each of its files.

        A part that is missing has none: opening it says what to do.

        Raises:
            CheckpointError: one of them cannot be read.
        """
        return {name: zoo.sha256(path) for name, path in self.files().items()}

    def unfinished(self) -> dict[str, str]:
        """Return how far the training had come of each of its files whose training has not ended.

        Raises:
            CheckpointError: one of them cannot be read.
        """
        return {name: steps for name, path in self.files().items() if (steps := unfinished(path)) is not None}

    def training(self, parameters: int | None) -> dict[str, dict[str, int | float]]:
        """Return what each of its files took to train, as far as they tell; see `bench.training.provenance.told`.

        Args:
            parameters: of the whole method, which stand under its `key`; None: unknown.

        Raises:
            CheckpointError: one of them cannot be read, or tells no number.
        """
        found = {name: took for name, path in self.files().items() if (took := told(path))}
        whole: dict[str, int | float] = {} if parameters is None else {"parameters": parameters}
        at = None if self.checkpoint is None else _trained_at(self.checkpoint)
        if at is not None and at != self.sigma:
            whole["sigma"] = at
        return found | ({self.key: found.get(self.key, {}) | whole} if whole else {})

    def build(self) -> Classifier:
        """Return its classifier, on the CPU.

        Raises:
            UsageError, CheckpointError: an option or the checkpoint does not fit.
        """
        return opened(self.method, lambda: registry.load(self.method).build(self.config, self.checkpoint))

    def parameters(self) -> int:
        """Return the number of parameters of the whole method, 0 where it is no torch module."""
        return parameter_count(registry.load(self.method).build(self.config, None)) or 0


def parameter_count(built: object) -> int | None:
    """Return the number of parameters of what was built, None where it is no torch module."""
    return sum(value.numel() for value in built.parameters()) if isinstance(built, nn.Module) else None


def enter(config: RunConfig, task: Task, method: str, sigma: float, note: Callable[[str], None]) -> Entrant:
    """Return a method of a run at one of its sigmas; its checkpoint is in the zoo, or the file that its options name.

    Args:
        config: of the run.
        task: of its data set.
        note: takes a sentence for the user where the checkpoint was trained at another sigma.

    Raises:
        CheckpointError: it was trained with other values of the options that are given, or is another method's.
    """
    options = config.options.get(method, {})
    entrant = configured(task, method, sigma, options)
    entrant = replace(entrant, checkpoint=_checkpoint(config, entrant, note))
    return replace(entrant, training_command=partial(_training_command, config, entrant))


_OF_TRAINING = ("data_dir", "download", "image_size", "geometry", "seed", "zoo")
"""Fields of a configuration, beside data set and options, that a training run has as well."""


def _training_command(config: RunConfig, entrant: Entrant) -> str:
    """Return the `bench train` that makes the checkpoint which an entrant of a configuration lacks."""
    method, known = entrant.method, {one.name for one in list_presets()}
    sigma = entrant.sigma
    words = ["bench", "train", method, "--dataset", config.dataset, "--sigma", shortest(sigma)]
    preset = config.dataset  # which `bench train` takes by itself
    if config.preset in known and load_preset(config.preset).dataset == config.dataset:
        preset = config.preset
    if preset != config.dataset:
        words += ["--preset", preset]
    base = load_preset(preset) if preset in known else RunConfig()
    for name in _OF_TRAINING:
        if (value := getattr(config, name)) != getattr(base, name):
            flag = f"--{name.replace('_', '-')}"
            words += [flag] if value is True else [flag, str(value)]
    usual = {name: _text(value) for name, value in base.options.get(method, {}).items()}
    asked = {name: _text(value) for name, value in entrant.options.items()}
    for name, text in (_own_defaults(entrant.config, usual.keys() - asked.keys()) | asked).items():
        if usual.get(name) != text:
            words += ["--set", f"{method}.{name}={text}"]
    return shlex.join(words)


def _own_defaults(config: Any, names: Collection[str]) -> dict[str, str]:
    """Return what options are by themselves, which a preset has and a configuration leaves out."""
    known = {one.name: one.default for one in fields(config)} if is_dataclass(config) else {}
    return {name: _text(known[name]) for name in sorted(names) if known.get(name, MISSING) is not MISSING}


def _text(value: Any) -> str:
    """Return an option's value as the command line takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(getattr(value, "name", value))


def configured(
    task: Task, method: str, sigma: float, options: Mapping[str, Any], checkpoint: Path | None = None
) -> Entrant:
    """Return a method at a sigma with a given checkpoint; with None, its weights are random.

    Raises:
        UsageError: an option does not fit.
    """
    config = registry.configure(method, task, sigma, options, trains=False)
    return Entrant(method=method, sigma=sigma, options=options, config=config, checkpoint=checkpoint)


def _checkpoint(config: RunConfig, entrant: Entrant, note: Callable[[str], None]) -> Path | None:
    name = entrant.file_name
    if (file := registry.checkpoint_of(entrant.config, entrant.options)) is not None:
        _check_declared(file, entrant, note)
        return file
    path = None if name is None else zoo.find(config.zoo, config.dataset, name)
    if path is not None:
        trained = trained_options(entrant.config)
        _check_declared(path, entrant, note)
        given = {option: trained[option] for option in entrant.options if option in trained}
        check_trained_as(path, given, entrant.method)
        unused = registry.COUNTED if trained.get("epochs") else ()  # steps, where the recipe counts epochs
        left = {name: value for name, value in trained.items() if name not in given and name not in unused}
        if others := _other_options(path, left):
            note(
                f"{path.name} was trained by other options than `bench train {entrant.method}` has: {others}."
            )
    return path


def _other_options(path: Path, expected: Mapping[str, Any]) -> str:
    """Return in words in which options a checkpoint's training differs from what is expected, "" for none."""
    said = load_metadata(path).get("training", {}).get("options", {})
    found = [
        f"{name} {said[name]}, not {value}"
        for name, value in expected.items()
        if name not in LIMITS and said.get(name, value) != value
    ]
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def _trained_at(path: Path) -> float | None:
    """Return the noise level of training in a checkpoint's metadata; None where there is none.

    Raises:
        CheckpointError: it is no number.
    """
    if path.suffix != ".safetensors":
        return None
    sigma = load_metadata(path).get("config", {}).get("sigma")
    if sigma is not None and (isinstance(sigma, bool) or not isinstance(sigma, int | float)):
        raise CheckpointError(f"{path} says sigma {shown(sigma)}, expected a number: import it anew")
    return sigma


def _check_declared(path: Path, entrant: Entrant, note: Callable[[str], None]) -> None:
    """Refuse a file that says it is another method's; note one that says another sigma.

    A file of a zoo may be another method's, which its name then begins with.
    """
    if path.suffix != ".safetensors":
        return
    method, sigma = load_metadata(path).get("config", {}).get("method"), _trained_at(path)
    is_of_zoo = path.name == entrant.file_name and path.name.startswith(str(method))
    if method not in (None, entrant.method) and not is_of_zoo:
        made_by = clipped(str(method))
        raise CheckpointError(
            f"{path} was made by {made_by}: give it as {made_by}.checkpoint, not {entrant.method}'s"
        )
    if sigma not in (None, entrant.sigma):
        note(f"{path} was trained at sigma {sigma:g} and is used at {entrant.sigma:g}.")
