"""A method at one sigma, as it enters a run: configured once, with the checkpoint that it certifies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from bench.config.run import RunConfig
from bench.errors import CheckpointError, clipped, shown
from bench.methods import registry, zoo
from bench.training.checkpoints import check_trained_as, load_metadata
from bench.training.recipes import trained_options
from bench.types import Classifier, Task


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A method at one sigma.

    Attributes:
        options: the method's own options, as they were given.
        config: the method's Config with these options; whatever only its training needs is left out where it fails.
        checkpoint: the file that it certifies; None where it needs none, or where it is missing.
    """

    method: str
    sigma: float
    options: Mapping[str, Any]
    config: Any
    checkpoint: Path | None

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

    def required(self) -> Entrant:
        """Return this entrant if its checkpoint is there.

        Raises:
            CheckpointError: it is not; the message says how to train it.
        """
        if self.is_missing:
            dataset = self.config.task.dataset
            raise CheckpointError(
                f"no {self.file_name} for {dataset}: train it first with "
                f"`bench train {self.method} --dataset {dataset} --sigma {self.sigma:g}`, or name its --zoo"
            )
        return self

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of all files that its classifier is built from, by `key` and "<key>/<part>".

        A part that is missing has none: opening it says what to do.

        Raises:
            CheckpointError: one of them cannot be read.
        """
        module = registry.load(self.method)
        parts = module.foreign_files(self.config) if hasattr(module, "foreign_files") else {}
        found = {} if self.checkpoint is None else {self.key: zoo.sha256(self.checkpoint)}
        return found | {
            f"{self.key}/{part}": zoo.sha256(path) for part, path in parts.items() if path.exists()
        }

    def build(self) -> Classifier:
        """Return its classifier, on the CPU.

        Raises:
            UsageError, CheckpointError: an option or the checkpoint does not fit.
        """
        return registry.load(self.method).build(self.config, self.checkpoint)

    def parameters(self) -> int:
        """Return the number of parameters of the whole method, 0 where it is no torch module."""
        built = registry.load(self.method).build(self.config, None)
        return sum(value.numel() for value in built.parameters()) if isinstance(built, nn.Module) else 0


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
    return replace(entrant, checkpoint=_checkpoint(config, entrant, note))


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
    if file := getattr(entrant.config, "checkpoint", ""):
        _check_declared(Path(file), entrant, note)
        return Path(file)
    path = None if name is None else zoo.find(config.zoo, config.dataset, name)
    if path is not None:
        trained = trained_options(entrant.config)
        given = {option: trained[option] for option in entrant.options if option in trained}
        check_trained_as(path, given, entrant.method)
    return path


def _check_declared(path: Path, entrant: Entrant, note: Callable[[str], None]) -> None:
    """Refuse a file that says it is another method's; note one that says another sigma."""
    if path.suffix != ".safetensors":
        return
    declared = load_metadata(path).get("config", {})
    method, sigma = declared.get("method"), declared.get("sigma")
    if method not in (None, entrant.method):
        made_by = clipped(str(method))
        raise CheckpointError(
            f"{path} was made by {made_by}: give it as {made_by}.checkpoint, not {entrant.method}'s"
        )
    if sigma is not None and (isinstance(sigma, bool) or not isinstance(sigma, int | float)):
        raise CheckpointError(f"{path} says sigma {shown(sigma)}, expected a number: import it anew")
    if sigma not in (None, entrant.sigma):
        note(f"{path} was trained at sigma {sigma:g} and is used at {entrant.sigma:g}.")
