"""What a checkpoint declares of itself, and the network it holds, ready for trials.

Released files are imported into a temporary folder first: strictly, tensors only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.checks.doctor.scalings import Scaling, from_mean_and_deviation, named
from bench.config.names import is_plug_in
from bench.errors import CheckpointError, UsageError
from bench.methods import registry
from bench.methods.importing import import_checkpoint
from bench.smoothing.certifier import from_module
from bench.smoothing.classifiers import PixelsAlone, open_plug_in
from bench.training.checkpoints import load_checkpoint
from bench.types import Classifier, Task

STORED_AS = {"steps": "diffusion_steps"}
"""Options that checkpoints store under another name."""

NOT_TOLD = "not told"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user says of a checkpoint.

    Attributes:
        task: the data set's images and classes.
        method: how to read the file; None: as its configuration says.
        sigma: the noise level it is declared for; None: as its configuration says.
        options: method -> its options, as for `bench run`.
        said: what tensors do not tell, as in `import_checkpoint`.
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
        passport: (what, what the file or its configuration tells), in reading order.
        classifier: of noisy pixels; None where there is none to try.
        network: the modules behind the classifier, if they are known.
        scaling: what the network is declared to see of pixels.
        sigma: the declared noise level in pixel units, 0 of clean images; None where nothing tells it.
        is_told_sigma: the classifier's logits depend on the sigma it is told.
        denoiser: a `baselines.networks.diffusion.DiffusionDenoiser`, a
            `baselines.networks.consistency_map.ConsistencyModel`, or None.
    """

    passport: tuple[tuple[str, str], ...]
    scaling: Scaling
    classifier: Classifier | None = None
    network: nn.Module | None = None
    sigma: float | None = None
    is_told_sigma: bool = False
    denoiser: Any = None


def open_checkpoint(source: str, request: Request) -> Subject:
    """Return the checkpoint with its passport, its networks on the CPU in eval mode.

    Args:
        source: a file, a released folder of rRCM, a folder of a diffusers pipeline, or "module:function", whose
            function returns a classifier: a module of noisy pixels, or a callable of (x_noisy, sigma, keys).

    Raises:
        CheckpointError: the file is missing, damaged, holds more than tensors, or does not fit the data set.
        UsageError: nothing tells what made the file, or a plug-in that cannot be imported.
    """
    path = Path(source)
    if is_plug_in(source) and not path.exists():
        return _plug_in(source, request)
    if (path / "model_index.json").is_file() or (path / "unet").is_dir():
        return _denoiser(registry.diffusion().open_pipeline(path, request.task), "a diffusers pipeline")
    if path.suffix == ".safetensors":
        return _own_file(path, request, ())
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "imported.safetensors"
        described = import_checkpoint(
            path, converted, command="bench doctor", said={**request.said, "sigma": request.sigma}
        )
        try:
            return _own_file(converted, request, described[:-1])
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(converted), str(path))) from error


def _own_file(path: Path, request: Request, described: tuple[str, ...]) -> Subject:
    tensors, metadata = load_checkpoint(path)
    config, training = metadata.get("config", {}), metadata.get("training", {})
    program = str(training.get("command") or NOT_TOLD)
    if described:
        program = described[0]
    if "num_res_blocks" in config:
        flags = str(request.said.get("flags") or "")
        return _denoiser(registry.diffusion().load_denoiser(str(path), flags, request.task), program)
    method = request.method or config.get("method")
    if method is None:
        raise UsageError(
            f"{path} does not say which method made it: give --method, or bring the released file itself"
        )
    if config.get("method") not in (None, method):
        raise UsageError(f"{path} says that {config['method']} made it, not {method}: leave --method out")
    if method == "rrcm" and "linear_head.weight" not in tensors:
        return _encoder_alone(path, config, tensors, program)
    sigma = config.get("sigma") if request.sigma is None else request.sigma
    built = registry.load(method).build(_configured(method, config, sigma or 0.5, request), path)
    if not isinstance(built, nn.Module):
        return _classifier(built, None, sigma, request, [("made by", program), ("method", method)])
    rows = [("made by", program), ("method", _with_backbone(method, config)), *_trained(training)]
    if hasattr(built, "denoiser") and hasattr(built, "classifier"):
        return _two_parts(built, request, rows)
    return _classifier(built, built, sigma, request, rows)


def _configured(method: str, config: Mapping[str, Any], sigma: float, request: Request) -> Any:
    """Return the method's configuration: the user's options, then what the file itself tells."""
    known = {field.name for field in fields(registry.load(method).Config)} - {"task", "sigma"}
    stored = {STORED_AS.get(name, name): value for name, value in config.items()}
    own = {name: value for name, value in stored.items() if name in known}
    options = {**request.options.get(method, {}), **own}
    return registry.configure(method, request.task, sigma, options, trains=False)


def _with_backbone(method: str, config: Mapping[str, Any]) -> str:
    return f"{method}, {config['backbone']}" if "backbone" in config else method


def _trained(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    scores = [f"{score:.1%}" for score in training.get("held_out_scores", []) if score is not None]
    rows = [("held-out accuracy", ", ".join(scores))] if scores else []
    if "imported_from" in training:
        rows.append(("imported from", f"{training['imported_from']}, SHA-256 {training.get('sha256')}"))
    return rows


def _encoder_alone(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], program: str
) -> Subject:
    sizes = ", ".join(f"{name} {value}" for name, value in config.items() if name != "method")
    scaling = named((2.0,), (-1.0,))
    rows = (
        ("made by", program),
        ("method", "rrcm, a pre-trained encoder without a head: nothing to classify with"),
        ("sizes", sizes),
        ("parameters", f"{sum(value.numel() for value in tensors.values()):,}"),
        ("input", scaling.name),
    )
    return Subject(passport=rows, scaling=scaling)


def _two_parts(built: nn.Module, request: Request, rows: list[tuple[str, str]]) -> Subject:
    """Return a method of a denoiser and a classifier of clean images."""
    denoiser: Any = built.denoiser
    classifier = built.classifier
    assert isinstance(classifier, nn.Module)
    subject = _classifier(from_module(classifier), classifier, 0.0, request, rows)
    return replace(
        subject,
        denoiser=denoiser,
        passport=(*subject.passport, ("denoiser", registry.readings().describe(denoiser))),
    )


def _denoiser(denoiser: Any, program: str) -> Subject:
    scaling = named((2.0,), (-1.0,))
    rows = (
        ("made by", program),
        ("denoiser", registry.readings().describe(denoiser)),
        ("parameters", _count(denoiser)),
        ("input", f"{scaling.name}, noise of 2 sigma"),
        ("time", registry.readings().time_rule(denoiser)),
    )
    return Subject(passport=rows, scaling=scaling, denoiser=denoiser)


def _plug_in(source: str, request: Request) -> Subject:
    made = open_plug_in(source)
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
    told = is_told_sigma(classifier, task)
    passport = [
        *rows,
        ("parameters", NOT_TOLD if network is None else _count(network)),
        ("input", scaling.name),
        ("resize", _resize(network, task)),
        ("labels", f"{task.num_classes} classes in the order of {task.dataset}"),
        ("sigma", NOT_TOLD if sigma is None else "clean images" if sigma == 0 else f"{sigma:g}"),
        ("time", _time(network, told)),
    ]
    return Subject(
        passport=tuple(passport),
        classifier=classifier,
        network=network,
        scaling=scaling,
        sigma=sigma,
        is_told_sigma=told,
    )


def declared_scaling(network: nn.Module | None, channels: int) -> Scaling:
    """Return what a network is declared to see of pixels: its own normalisation, else the pixels as they are."""
    if network is not None:
        if registry.is_rrcm(network):
            return named((2.0,) * channels, (-1.0,) * channels)
        if (found := registry.readings().normalisation(network)) is not None:
            scaling = from_mean_and_deviation("", *found)
            return named(scaling.factor, scaling.offset)
    return named((1.0,) * channels, (0.0,) * channels)


def _resize(network: nn.Module | None, task: Task) -> str:
    size = None if network is None else registry.readings().resized_to(network)
    own = f"{task.image_size}x{task.image_size} as the data set gives them"
    return own if size is None else f"{own}, then bicubic to {size[0]}x{size[1]}"


def _time(network: nn.Module | None, told: bool) -> str:
    if not told:
        return "sigma plays no part"
    is_rrcm = network is not None and registry.is_rrcm(network)
    return "the grid time nearest to 2 sigma, of 81" if is_rrcm else "told sigma, by a rule of its own"


@torch.inference_mode()
def is_told_sigma(classifier: Classifier, task: Task) -> bool:
    """Return whether the logits of a noisy image depend on the sigma that the classifier is told."""
    shape = (2, task.channels, task.image_size, task.image_size)
    x_noisy = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    keys = torch.arange(2)
    at_one, at_another = classifier(x_noisy, 0.25, keys), classifier(x_noisy, 0.5, keys)
    return not torch.equal(at_one.nan_to_num(), at_another.nan_to_num())


def _count(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()):,}"
