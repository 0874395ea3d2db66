"""What a checkpoint declares of itself, and the network it holds, ready for trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.checks.doctor.scalings import Scaling, from_mean_and_deviation, named
from bench.config.code import check_typed, named_code
from bench.config.names import is_plug_in, nearest_hint
from bench.config.overrides import user_path
from bench.errors import CheckpointError, UsageError, clipped, shown
from bench.methods import importing, registry
from bench.smoothing.api import explained
from bench.smoothing.classifiers import PixelsAlone, check_shape, from_module, opened
from bench.training.checkpoints import load_checkpoint
from bench.training.released import DenoiserReading, Fed
from bench.types import Checkpoint, Classifier, Task

NOT_TOLD = "not told"

SIGMA_MOST = 1e6
"""A noise level that no network is trained at: a number in a file from there on is no noise level."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user says of a checkpoint.

    Attributes:
        task: the data set's images and classes.
        method: how to read the file; None: as its configuration says.
        sigma: the noise level it is declared for; None: as its configuration says.
        options: method -> its options, as for `bench run`.
        said: what tensors do not tell, as in `importing.read`.
    """

    task: Task
    method: str | None = None
    sigma: float | None = None
    options: Mapping[str, Mapping[str, Any]]
    said: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A checkpoint on trial.

    Attributes:
        metadata: (what, what the file or its configuration tells), in reading order.
        classifier: of noisy pixels; None where there is none to try.
        network: the modules behind the classifier, if they are known.
        scaling: what the network is declared to see of pixels.
        sigma: the declared noise level in pixel units, 0 of clean images; None where nothing tells it.
        is_told_sigma: the classifier's logits depend on the sigma it is told.
        denoiser: how it is used; None where there is none to try.
    """

    metadata: tuple[tuple[str, str], ...]
    scaling: Scaling
    classifier: Classifier | None = None
    network: nn.Module | None = None
    sigma: float | None = None
    is_told_sigma: bool = False
    denoiser: DenoiserReading | None = None


def open_checkpoint(source: str, request: Request) -> Subject:
    """Return the checkpoint with its metadata, its networks on the CPU in eval mode.

    Args:
        source: a file, a released folder, a folder of a diffusers pipeline, or "module:function", whose
            function returns a classifier: a module of noisy pixels, or a callable of (x_noisy, sigma, keys).

    Raises:
        CheckpointError: the file is missing, damaged, holds more than tensors, or does not fit the data set.
        UsageError: nothing tells what made the file, the file alone names code, or a plug-in that cannot be imported.
    """
    try:
        path = user_path(source)
    except ValueError as error:
        raise UsageError(f"--checkpoint: {error}") from error
    if is_plug_in(source) and not path.exists():
        return _plug_in(source, request)
    if path.is_dir() and (subject := _part(path, request, NOT_TOLD)) is not None:
        return subject
    file = _read(path, request)
    program = file.description[0] if file.description else str(file.training.get("command") or NOT_TOLD)
    return _part(file, request, program) or _method(file, request, program)


def _read(path: Path, request: Request) -> Checkpoint:
    """Return a file of ours as it is, or a released one in our form."""
    if path.suffix != ".safetensors":
        return importing.read(path, method=request.method, said={**request.said, "sigma": request.sigma})
    tensors, metadata = load_checkpoint(path)
    return Checkpoint(
        source=path,
        tensors=tensors,
        config=metadata.get("config", {}),
        training=metadata.get("training", {}),
    )


def _part(source: Path | Checkpoint, request: Request, program: str) -> Subject | None:
    """Return the part of a method that a folder or file holds, None where it holds none alone."""
    parts = (opened(source, request.task, request.said) for _, opened in registry.offers("open_part"))
    if (part := next((part for part in parts if part is not None), None)) is None:
        return None
    rows, scaling = part.told, named((2.0,), (-1.0,))
    if (denoiser := part.denoiser) is not None:
        rows += (
            ("denoiser", denoiser.description()),
            ("parameters", _count(denoiser.denoiser)),
            ("input", f"{scaling.name}, noise of 2 sigma"),
            ("time", denoiser.time_rule()),
        )
    return Subject(metadata=(("made by", part.made_by or program), *rows), scaling=scaling, denoiser=denoiser)


def _method(file: Checkpoint, request: Request, program: str) -> Subject:
    """Return the classifier that a method makes of a file."""
    config = file.config
    method = request.method or config.get("method")
    if method is None:
        raise UsageError(
            f"{file} does not say which method made it: give --method, or bring the released file itself"
        )
    _check_method(file, method, request)
    sigma = _sigma(file) if request.sigma is None else request.sigma
    is_released = bool(file.description)
    configured = _configured(method, config, sigma or 0.5, request)
    built: Any = opened(
        method, lambda: registry.load(method).build(configured, file if is_released else file.source)
    )
    if not isinstance(built, nn.Module):
        return _classifier(built, None, sigma, request, [("made by", program), ("method", method)])
    rows = [("made by", program), ("method", _with_backbone(method, config)), *_trained(file.training)]
    if (parts := getattr(built, "purifier_parts", None)) is None:
        return _classifier(built, built, sigma, request, rows)
    denoiser, classifier = parts()
    subject = _classifier(from_module(classifier), classifier, 0.0, request, rows)
    metadata = (*subject.metadata, ("denoiser", denoiser.description()))
    return replace(subject, denoiser=denoiser, metadata=metadata)


def _check_method(file: Checkpoint, method: Any, request: Request) -> None:
    """Refuse a file that names no method, another one than the user does, or code that the user does not name."""
    made_by = file.config.get("method")
    if request.method is None and not isinstance(method, str):
        raise UsageError(f"{file} says that {shown(method)} made it, which is no name: give --method")
    if made_by not in (None, method):
        raise UsageError(
            f"{file} says that {clipped(str(made_by))} made it, not {method}: leave --method out"
        )
    if not is_plug_in(method) and method not in registry.methods():
        hint = clipped(nearest_hint(method, registry.methods()), 200)
        raise UsageError(
            f"{file} says that {shown(method)} made it, an unknown method: give --method; {hint}"
        )
    typed = {request.method or "", *named_code((), request.options)}
    named = named_code(
        [method], {method: {name: value for name, value in file.config.items() if name != "method"}}
    )
    check_typed({name: how.replace("--methods", "--method") for name, how in named.items()}, typed, file)


def _sigma(file: Checkpoint) -> float | None:
    """Return the noise level that a file says it is for.

    Raises:
        CheckpointError: it says something that is none.
    """
    sigma = file.config.get("sigma")
    if sigma is None:
        return None
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 <= sigma < SIGMA_MOST:
        raise CheckpointError(f"{file} says sigma {shown(sigma)}, expected a number >= 0: give --sigma")
    return float(sigma)


def _configured(method: str, config: Mapping[str, Any], sigma: float, request: Request) -> Any:
    """Return the method's configuration: the user's options, then what the file itself tells."""
    module = registry.load(method)
    known = {field.name for field in fields(module.Config)} - {"task", "sigma"}
    stored_as = getattr(module, "STORED_AS", {})
    stored = {stored_as.get(name, name): value for name, value in config.items()}
    own = {name: value for name, value in stored.items() if name in known}
    options = {**request.options.get(method, {}), **own}
    return registry.configure(method, request.task, sigma, options, trains=False)


def _with_backbone(method: str, config: Mapping[str, Any]) -> str:
    return f"{method}, {config['backbone']}" if "backbone" in config else method


def _trained(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = training.get("held_out_scores")
    scores = [f"{score:.1%}" for score in told if isinstance(score, float)] if isinstance(told, list) else []
    rows = [("held-out score", ", ".join(scores))] if scores else []
    if training.get("is_complete", True) is False:
        rows.append(("training", "UNFINISHED: it was stopped before its end"))
    if "imported_from" in training:
        rows.append(("imported from", f"{training['imported_from']}, SHA-256 {training.get('sha256')}"))
    return rows


def _plug_in(source: str, request: Request) -> Subject:
    options = request.options.get(source, {})
    config = registry.configure(source, request.task, request.sigma or 0.5, options)
    made = registry.load(source).build(config, None)
    module = made.network if isinstance(made, PixelsAlone) else made
    rows = [("made by", f"plug-in {source}"), ("method", type(module).__name__)]
    return _classifier(made, module if isinstance(module, nn.Module) else None, request.sigma, request, rows)


def _classifier(
    classifier: Classifier,
    network: nn.Module | None,
    sigma: float | None,
    request: Request,
    rows: list[tuple[str, str]],
) -> Subject:
    """Return a classifier with the rows that all classifiers have."""
    task, scaling = request.task, declared_scaling(network, request.task.channels)
    told = is_told_sigma(explained(classifier, network), task)
    metadata = [
        *rows,
        ("parameters", NOT_TOLD if network is None else _count(network)),
        ("input", scaling.name),
        ("resize", _resize(network, task)),
        ("labels", f"{task.num_classes} classes in the order of {task.dataset}"),
        ("sigma", NOT_TOLD if sigma is None else "clean images" if sigma == 0 else f"{sigma:g}"),
        ("time", _time(network, told)),
    ]
    return Subject(
        metadata=tuple(metadata),
        classifier=classifier,
        network=network,
        scaling=scaling,
        sigma=sigma,
        is_told_sigma=told,
    )


def fed(network: nn.Module | None) -> Fed:
    """Return how a network is fed: what each of its layers tells first, the outer ones before those inside."""
    layers = () if network is None else network.modules()
    told: list[Fed] = [own() for layer in layers if (own := getattr(layer, "fed", None)) is not None]
    values = {
        field.name: [getattr(one, field.name) for one in told if getattr(one, field.name) is not None]
        for field in fields(Fed)
    }
    return Fed(**{name: found[0] for name, found in values.items() if found})


def declared_scaling(network: nn.Module | None, channels: int) -> Scaling:
    """Return what a network is declared to see of pixels: its own normalisation, else the pixels as they are."""
    if (found := fed(network).normalisation) is None:
        return named((1.0,) * channels, (0.0,) * channels)
    scaling = from_mean_and_deviation("", *found)
    return named(scaling.factor, scaling.offset)


def _resize(network: nn.Module | None, task: Task) -> str:
    size, own = fed(network).size, f"{task.image_size}x{task.image_size} as the data set gives them"
    return own if size is None else f"{own}, then bicubic to {size[0]}x{size[1]}"


def _time(network: nn.Module | None, told: bool) -> str:
    return fed(network).time or "told sigma, by a rule of its own" if told else "sigma plays no part"


@torch.inference_mode()
def is_told_sigma(classifier: Classifier, task: Task) -> bool:
    """Return whether the logits of a noisy image depend on the sigma that the classifier is told."""
    shape = (2, task.channels, task.image_size, task.image_size)
    x_noisy = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    keys = torch.arange(2)
    at_one, at_another = (classifier(x_noisy.clone(), sigma, keys) for sigma in (0.25, 0.5))
    for logits in (at_one, at_another):
        check_shape(logits, len(keys), task.num_classes)
    return not torch.equal(at_one.nan_to_num(), at_another.nan_to_num())


def _count(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()):,}"
