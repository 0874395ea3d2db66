"""One training run from a command's options, and the training runs that a run needs before it can certify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench.config.names import is_plug_in
from bench.config.run import RunConfig
from bench.data import subsets
from bench.data.sets import load_split
from bench.device.hardware import resolve_device
from bench.errors import UsageError
from bench.methods import registry, zoo
from bench.runs.entrant import Entrant
from bench.runs.progress import Observer
from bench.runs.workbench import Entrants, Setup, entrant
from bench.training.checkpoints import unfinished
from bench.training.loop import Progress, TrainingJob
from bench.training.recipes import trained_options

WORKSPACE = Path("results") / "training"
"""Where curves, and the state of unfinished training runs, lie below the current folder."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a training runs, whatever it trains; the fields are those of `TrainingJob`, and `held_out`.

    Attributes:
        held_out: training images that judge when training stops; None: a tenth, at most 1,000; 0: none, which keeps the
            last weights.
    """

    held_out: int | None = None
    again: bool = False
    max_seconds: float | None = None
    checkpoint_every: int | None = None
    workers: int | None = None
    stored: torch.dtype = torch.float32


def workspace(config: RunConfig) -> Path:
    """Return the folder of states, curves and figures of training runs on the configuration's data set."""
    return (WORKSPACE if config.zoo is None else config.zoo / "training") / config.dataset


def train_method(
    name: str,
    sigma: float,
    config: RunConfig,
    *,
    command: str,
    options: TrainingOptions = TrainingOptions(),
    report: Callable[[Progress], None],
) -> Path:
    """Train one method at one sigma on the configuration's data set, and return its new checkpoint.

    Raises:
        UsageError: the method cannot be trained, or its finished checkpoint is there and options.again is False.
        DataError, NumericalError, CheckpointError: as in `bench.data.sets` and `bench.training.loop`.
    """
    if is_plug_in(name):
        raise UsageError(f"{name} cannot be trained here: its function returns a finished classifier")
    module = registry.load(name)
    train = getattr(module, "train", None)
    if train is None:
        raise UsageError(f"method {name!r} offers no train(config, job): give it a checkpoint through --zoo")
    split = load_split(config, "train")
    method = registry.configure(name, split.task, sigma, config.options.get(name, {}))
    is_given = registry.checkpoint_of(method, config.options.get(name, {})) is not None
    if is_given or (checkpoint := module.checkpoint_name(method)) is None:
        raise UsageError(
            f"method {name!r} has nothing to train with these options: all its parts come from elsewhere"
        )
    folder = zoo.writable(config.zoo, config.dataset)
    if not options.again:
        _check_unfinished(zoo.find(config.zoo, config.dataset, checkpoint), folder)
    kept, held_out = subsets.training_parts(split, config.seed, options.held_out)
    running = {name: value for name, value in vars(options).items() if name != "held_out"}
    job = TrainingJob(
        split=split,
        train_indices=torch.tensor(kept),
        held_out_indices=torch.tensor(held_out, dtype=torch.long),
        folder=folder,
        shared=tuple(one / config.dataset for one in zoo.search_path(config.zoo)),
        workspace=workspace(config),
        device=resolve_device(config.device),
        seed=config.seed,
        command=command,
        options=trained_options(method),
        **running,
        report=report,
    )
    train(method, job)
    return job.folder / checkpoint


def train_missing(setup: Setup, entrants: Entrants, command: str, observer: Observer) -> Entrants:
    """Return the entrants with the checkpoint of each, those that are missing being trained.

    Raises:
        UsageError: one of those has no recipe at its sigma; nothing has been trained then.
        CheckpointError: two methods share a checkpoint, and would train it by other options.
    """
    missing = {key: one for key, one in entrants.items() if one.is_missing}
    for one in missing.values():
        registry.configure(one.method, setup.split.task, one.sigma, one.options)
    for key, one in missing.items():  # one file may serve several sigmas, and methods whose options agree
        missing[key] = found = entrant(setup, *key)
        if found.is_missing:
            missing[key] = replace(found, checkpoint=_trained(setup, one, command, observer))
    return entrants | missing


def _trained(setup: Setup, one: Entrant, command: str, observer: Observer) -> Path:
    observer.note(
        f"no {one.file_name} for {setup.config.dataset}: training {one.method} at sigma {one.sigma:g} first, into "
        f"{zoo.writable(setup.config.zoo, setup.config.dataset)}, "
        "the bar shows the time left at most (Ctrl-C keeps what is done)"
    )
    return train_method(
        one.method,
        one.sigma,
        setup.config,
        command=command,
        report=lambda progress: observer.training(one.method, one.sigma, progress),
    )


def _check_unfinished(path: Path | None, folder: Path) -> None:
    """Refuse to train what is there, in the folder that training writes to or in another that is looked into."""
    if path is None or unfinished(path) is not None:
        return
    again = (
        "--again trains it anew and replaces it"
        if path.parent == folder
        else f"--again trains another into {folder}, which takes its place for runs from this folder"
    )
    raise UsageError(f"{path} is there already: {again}, --zoo DIR trains another elsewhere")
