"""Denoisers and classifiers that other programs trained, by path or name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from baselines.networks.backbones import load_published, own_backbone
from baselines.networks.consistency_map import ConsistencyModel
from baselines.networks.diffusion import DiffusionDenoiser, Prediction
from baselines.networks.resnet import Normalize
from baselines.parts import openai_unet, own
from baselines.parts.names import HUB, TRANSFORMERS, is_function
from baselines.parts.openai_flags import LABELS, PRESETS, check_flags, complete_flags, parse_flags
from baselines.parts.readings import Reading
from bench.errors import CheckpointError, UsageError
from bench.smoothing.classifiers import open_module, open_part as open_part_of
from bench.training.checkpoints import first_line, load_metadata, load_state, load_weights
from bench.training.released import Fed, Part
from bench.types import Backbone, Checkpoint, Task

if TYPE_CHECKING:
    from diffusers import UNet2DModel

    from baselines.parts.options import Config

Model = TypeVar("Model", bound=nn.Module)

CONSISTENCY_SCHEDULER = "CMStochasticIterativeScheduler"
"""diffusers' name of the scheduler of a consistency model."""


def load_denoiser(source: str, flags: str, task: Task) -> DiffusionDenoiser | own.GivenDenoiser:
    """Return a denoiser of the task's images, on the CPU in eval mode.

    Args:
        source: a file of a released program, a folder of a diffusers pipeline, "hub:owner/name", or "module:function"
            of the user's own, which returns any denoiser that meets `bench.types.Denoiser`.
        flags: of the released program; "" takes the file's own ("config" in its metadata) or those of its name.

    Raises:
        CheckpointError: the file is missing, unreadable, or of another model.
        UsageError: flags that are unknown, missing or beyond UNet2DModel; images of another shape.
    """
    if (ours := _ours(source, task, DiffusionDenoiser)) is not None:
        return ours
    folder = _folder(source)
    denoiser = from_released(folder, flags) if not folder.is_dir() else from_pipeline(folder)
    _check_images(source, denoiser.unet.config, task)
    return denoiser.eval()


def _ours(source: str, task: Task, kind: type[Model]) -> Model | own.GivenDenoiser | None:
    """Return what a function of the user's or a file of `bench train` gives; None for any other source."""
    if is_function(source):
        made = open_part_of(source)
        return made if isinstance(made, kind) else own.given_denoiser(source, made)
    path = Path(source)
    config = load_metadata(path).get("config", {}) if source.endswith(own.SUFFIX) else {}
    if "method" not in config:
        return None
    denoiser = own.load_denoiser(load_state(path)[0], config, task, path)
    if isinstance(denoiser, kind):
        return denoiser
    raise UsageError(f"{path} is a denoiser of {config['method']}; name another, or that method")


def _folder(source: str) -> Path:
    """Return the path of a source, which is fetched where its name is one on the hub."""
    return _fetched(source.removeprefix(HUB)) if source.startswith(HUB) else Path(source)


def _fetched(name: str) -> Path:
    from diffusers import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(name, use_safetensors=True))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{HUB}{name} cannot be fetched: {first_line(error)}") from error


def _check_images(source: str, config: Any, task: Task) -> None:
    """Return nothing where a U-Net takes the task's images: its channels, and a side that its halvings divide.

    The side need not be the one it was trained at: every layer works at any, and attention stays at its halvings.
    """
    divisor = 2 ** (len(config.block_out_channels) - 1)
    if config.in_channels != task.channels or task.image_size % divisor:
        raise UsageError(
            f"{source} denoises images of {config.in_channels} channels and a side that {divisor} divides, but the "
            f"data set has {task.channels}x{task.image_size}x{task.image_size}; name a denoiser of that shape"
        )


def from_released(source: Path | Checkpoint, flags: str = "") -> DiffusionDenoiser:
    """Return the denoiser of a released program's file; see `load_denoiser`."""
    tensors, metadata = load_state(source)
    path = source.source if isinstance(source, Checkpoint) else source
    if LABELS in tensors:
        openai_unet.refuse_conditional(path)
    given = parse_flags(flags) or check_flags(metadata.get("config") or PRESETS.get(path.stem, {}))
    return openai_unet.denoiser(tensors, complete_flags(given, tensors, path), path)


def from_pipeline(folder: Path) -> DiffusionDenoiser:
    """Return the denoiser of a diffusers pipeline: its unet/, and the betas and prediction type of its scheduler/.

    Raises:
        CheckpointError: a part is missing, unreadable or not strictly loadable; pickled weights are never read.
        UsageError: a scheduler without betas (not a diffusion of fixed steps), or an unknown prediction type.
    """
    unet, scheduler = _read_pipeline(folder)
    if _is_consistency(scheduler):
        raise UsageError(
            f"{folder} is a consistency model, which has no betas; it is a denoiser of consistency-model, not of dds"
        )
    return _diffusion(unet, scheduler, folder)


def open_pipeline(folder: Path, task: Task) -> DiffusionDenoiser | ConsistencyModel:
    """Return the denoiser of a diffusers pipeline, a diffusion or a consistency model as its scheduler says.

    Raises:
        CheckpointError, UsageError: as in `from_pipeline` and `load_consistency_model`.
    """
    unet, scheduler = _read_pipeline(folder)
    is_consistency = _is_consistency(scheduler)
    denoiser = _consistency(unet, scheduler) if is_consistency else _diffusion(unet, scheduler, folder)
    _check_images(str(folder), unet.config, task)
    return denoiser.eval()


def open_part(source: Path | Checkpoint, task: Task, said: Mapping[str, Any]) -> Part | None:
    """Return the denoiser of a diffusers pipeline's folder, or of a released program's file; None for anything else.

    Args:
        said: "flags" of the program, as in `load_denoiser`.

    Raises:
        CheckpointError, UsageError: as in `open_pipeline` and `load_denoiser`.
    """
    if isinstance(source, Path):
        if not ((source / "model_index.json").is_file() or (source / "unet").is_dir()):
            return None
        return Part(denoiser=Reading(denoiser=open_pipeline(source, task)), made_by="a diffusers pipeline")
    if "num_res_blocks" not in source.config:
        return None
    denoiser = from_released(source, str(said.get("flags") or ""))
    _check_images(str(source), denoiser.unet.config, task)
    return Part(denoiser=Reading(denoiser=denoiser.eval()))


def _is_consistency(scheduler: dict[str, Any]) -> bool:
    return scheduler.get("_class_name") == CONSISTENCY_SCHEDULER


def _diffusion(unet: UNet2DModel, scheduler: dict[str, Any], folder: Path) -> DiffusionDenoiser:
    alphas_cumprod, prediction = _schedule(scheduler, folder)
    return DiffusionDenoiser(unet, alphas_cumprod, prediction=prediction)


def _consistency(unet: UNet2DModel, scheduler: dict[str, Any]) -> ConsistencyModel:
    names = ("sigma_data", "sigma_min", "sigma_max")
    return ConsistencyModel(unet, **{name: scheduler[name] for name in names if name in scheduler})


def load_consistency_model(source: str, task: Task) -> ConsistencyModel | own.GivenDenoiser:
    """Return a consistency model of the task's images, on the CPU in eval mode.

    Args:
        source: a folder of a diffusers ConsistencyModelPipeline, "hub:owner/name", or "module:function" of the user's
            own, which returns any denoiser that meets `bench.types.Denoiser`.

    Raises:
        CheckpointError: a part is missing, unreadable or not strictly loadable, or source is no folder.
        UsageError: a class-conditional model, a pipeline of another kind, images of another shape.
    """
    if (ours := _ours(source, task, ConsistencyModel)) is not None:
        return ours
    folder = _folder(source)
    if not folder.is_dir():
        if folder.is_file() and LABELS in load_state(folder)[0]:
            openai_unet.refuse_conditional(folder)
        raise CheckpointError(
            f"{source} is no folder, expected one of a diffusers ConsistencyModelPipeline, {HUB}owner/name, or a file "
            "of `bench train consistency-model`"
        )
    unet, scheduler = _read_pipeline(folder)
    if not _is_consistency(scheduler):
        raise UsageError(
            f"{folder}/scheduler is {scheduler.get('_class_name')}, expected the {CONSISTENCY_SCHEDULER} of a "
            "consistency model; a diffusion model is a denoiser of dds"
        )
    _check_images(source, unet.config, task)
    return _consistency(unet, scheduler).eval()


def _read_pipeline(folder: Path) -> tuple[UNet2DModel, dict[str, Any]]:
    """Return a pipeline's U-Net and its scheduler's configuration; no weights are pickled, none is left over."""
    from diffusers import DDPMScheduler, UNet2DModel

    try:
        scheduler = DDPMScheduler.load_config(folder, subfolder="scheduler", local_files_only=True)
        unet, loaded = UNet2DModel.from_pretrained(
            folder,
            subfolder="unet",
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} is no readable diffusers pipeline: {first_line(error)}") from error
    if wrong := [f"{kind} {names}" for kind, names in loaded.items() if names]:
        raise CheckpointError(f"{folder}/unet holds other weights than its config says: {'; '.join(wrong)}")
    if unet.config.num_class_embeds is not None or unet.config.class_embed_type is not None:
        raise UsageError(f"{folder}/unet must be told a class, which a denoiser does not know")
    return unet, scheduler


def _schedule(scheduler: dict[str, Any], folder: Path) -> tuple[Tensor, Prediction]:
    if "beta_schedule" not in scheduler and "trained_betas" not in scheduler:
        raise UsageError(
            f"{folder}/scheduler is {scheduler.get('_class_name')}, which has no betas; expected a scheduler of a "
            "diffusion model with fixed steps (DDPM, DDIM, PNDM, ...)"
        )
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in get_args(Prediction):
        raise UsageError(
            f"{folder}/scheduler has prediction_type {prediction!r}, expected {', '.join(get_args(Prediction))}"
        )
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(scheduler).alphas_cumprod.double(), prediction


class Resize(nn.Module):
    """Brings images to a size (bicubic, antialiased), and leaves those of that size as they are."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return images (B,C,*size) for x (B,C,H,W)."""
        if tuple(x.shape[2:]) == self.size:
            return x
        return F.interpolate(x, self.size, mode="bicubic", antialias=True, align_corners=False)

    def fed(self) -> Fed:
        """Return the size that the network behind it sees."""
        return Fed(size=self.size)


class ResizedClassifier(nn.Module):
    """Resizes clean pixels (bicubic, antialiased) to a classifier's own input, normalises, classifies."""

    def __init__(
        self, network: nn.Module, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.network, self.resize, self.normalize = network, Resize(size), Normalize(mean, std)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B,K) for pixels x (B,C,H,W) in [0,1]."""
        return self.network(self.normalize(self.resize(x)))

    def stages(self) -> dict[str, nn.Module]:
        """Return the modules whose time is told apart, by name."""
        return {"resize": self.resize, "classifier": self.network}


def classifier_of(config: Config) -> nn.Module:
    """Return the classifier that is not the method's own: a file of ours, or as `load_classifier`.

    Raises:
        CheckpointError, UsageError: as in `load_classifier`.
    """
    if config.classifier.endswith(own.SUFFIX):
        return own.load_classifier(Path(config.classifier), config.backbone, config.task, config.sigma)
    return load_classifier(config.classifier, config.classifier_checkpoint, config.task)


def load_classifier(name: str, checkpoint: str, task: Task) -> nn.Module:
    """Return a classifier of clean pixels (B,C,H,W) in [0,1].

    Args:
        name: timm's name of the model, or "transformers:" and a folder or hub name, with the input size, mean and
            deviation that the library states; a network of ours, such as "cifar_resnet56a", for a state dict that is
            published; or "module:function" of the user's own, which returns a torch module.
        checkpoint: a state dict in a .pt or .safetensors file; "" takes the weights that timm publishes. Any other
            classifier brings its own.

    Raises:
        UsageError: an unknown name, another number of classes or channels than the task's, or transformers missing.
        CheckpointError: the file or folder is unreadable or holds another model.
    """
    if name.startswith(TRANSFORMERS) or is_function(name):
        if checkpoint:
            raise UsageError(f"classifier {name} brings its own weights; leave classifier_checkpoint out")
        return open_module(name) if is_function(name) else _from_transformers(name, task)
    if (ours := own_backbone(name)) is not None:
        return _published(ours, checkpoint, task)
    import timm

    sizes = {"num_classes": task.num_classes} if checkpoint else {}
    try:
        network = timm.create_model(name, pretrained=not checkpoint, **sizes)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"classifier {name!r} is not known to timm ({first_line(error)}): give timm's name, {TRANSFORMERS}NAME, or "
            "hf-hub:NAME; a file of weights is its classifier_checkpoint"
        ) from error
    if checkpoint:
        tensors, _ = load_state(Path(checkpoint))
        load_weights(network, tensors, Path(checkpoint))
    channels = timm.data.resolve_model_data_config(network)["input_size"][0]
    _check_classes(name, (network.num_classes, channels), task)
    return resized(network)


def _published(backbone: Backbone, checkpoint: str, task: Task) -> nn.Module:
    """Return a network of ours, normalisation included, with the weights of a published state dict."""
    if not checkpoint:
        raise UsageError(
            f"classifier {backbone.name} has no weights of its own: give their file as classifier_checkpoint"
        )
    network = backbone.make(task, 0.0)
    load_published(network, Path(checkpoint), backbone.name)
    return network


def _check_classes(name: str, found: tuple[int, int], task: Task) -> None:
    """Return nothing where `found`, a classifier's classes and channels, are the task's."""
    if found != (task.num_classes, task.channels):
        raise UsageError(
            f"classifier {name!r} has {found[0]} classes and {found[1]} channels, but the data set has "
            f"{task.num_classes} and {task.channels}; name another, or its fine-tuned classifier_checkpoint"
        )


class Logits(nn.Module):
    """A network of the transformers library, whose output has `logits`, as one that returns them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B,K) for normalised images (B,C,H,W)."""
        return self.network(x).logits


def _from_transformers(name: str, task: Task) -> ResizedClassifier:
    """Return an image classifier of transformers; no pickled weights are read and no code of its folder is run."""
    try:
        from transformers import AutoImageProcessor, AutoModelForImageClassification
    except ImportError as error:
        raise UsageError(
            f"classifier {name} needs the transformers library: pip install 'rrcm-bench[transformers]'"
        ) from error
    source = name.removeprefix(TRANSFORMERS)
    try:
        network = AutoModelForImageClassification.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False
        )
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name} cannot be read: {first_line(error)}") from error
    _check_classes(name, (network.config.num_labels, getattr(network.config, "num_channels", 3)), task)
    mean, std = (0.0,) * task.channels, (1.0,) * task.channels
    if processor.do_normalize:
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    return ResizedClassifier(Logits(network), _input_size(processor), mean, std)


def _input_size(processor: Any) -> tuple[int, int]:
    """Return height and width of what the network sees: of the crop where the processor crops, else of its resizing."""
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    sides: dict[str, int] = dict(size)
    if "shortest_edge" in sides:
        return sides["shortest_edge"], sides["shortest_edge"]
    return sides["height"], sides["width"]


def resized(network: nn.Module, size: int | None = None) -> ResizedClassifier:
    """Return timm's network behind the mean, deviation and input size of timm's data config, or of `size`."""
    import timm

    plain = getattr(
        network, "_orig_mod", network
    )  # timm asks for the truth of a network, which a compiled one refuses
    data = timm.data.resolve_model_data_config(plain)
    shape = tuple(data["input_size"][1:]) if size is None else (size, size)
    return ResizedClassifier(network, shape, data["mean"], data["std"])
