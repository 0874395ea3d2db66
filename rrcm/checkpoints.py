"""Released checkpoints of rRCM: pre-training folders and fine-tuned dictionaries, recognised, measured and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import CheckpointError, UsageError
from bench.training.checkpoints import check_weights, shapes_of
from bench.training.released import Part, Released, ReleasedFile
from bench.types import Checkpoint, Task
from rrcm.encoder import Encoder, EncoderConfig
from rrcm.heads import Classifier
from rrcm.presets import ENCODERS, NamedEncoder
from rrcm.pretrain import CHECKPOINT_NAME

FILES: Mapping[str, str] = {"ema": "nnet_ema.pth", "online": "nnet.pth", "target": "target_model.pth"}
"""Which network of a released pre-training folder `<step>.ckpt` -> its file."""

PROJECTOR = "projection_head."
HEAD = "linear_head."


def _recognises(file: ReleasedFile) -> bool:
    return _is_ours(file.tensors)


def _is_ours(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the names are those of rRCM, whatever else is wrong with them."""
    return any(_plain(name).startswith(("base_model.", HEAD, PROJECTOR)) for name in tensors)


def _read(file: ReleasedFile) -> Checkpoint:
    """Return a released encoder or classifier in our form, every name and shape checked.

    Of what the user says, sigma is the noise level in pixel units that a classifier was fine-tuned at; num_heads and
    layernorm, where not said, are those of the named encoder that the sizes agree with.

    Raises:
        CheckpointError: names or shapes are not those of rRCM.
        UsageError: the number of heads, or whether the last LayerNorm is used, can only come from the user.
    """
    plain = {_plain(name): value for name, value in file.tensors.items()}
    if len(plain) < len(file.tensors):
        raise CheckpointError(f"{file.path} holds names twice, with and without the prefix module.")
    if any(name.startswith(("base_model.", HEAD)) for name in plain):
        return _classifier(plain, file)
    return _encoder(plain, file)


RELEASED = Released(what="a checkpoint of rRCM", recognises=_recognises, read=_read, files=FILES)
"""The form of the files that the program of arXiv 2501.13094 writes."""


def open_part(source: Path | Checkpoint, task: Task, said: Mapping[str, Any]) -> Part | None:
    """Return what a pre-trained encoder without a head tells; None for anything else."""
    if isinstance(source, Path) or not _is_ours(source.tensors) or f"{HEAD}weight" in source.tensors:
        return None
    sizes = ", ".join(f"{name} {value}" for name, value in source.config.items() if name != "method")
    return Part(
        told=(
            ("method", "rrcm, a pre-trained encoder without a head: nothing to classify with"),
            ("sizes", sizes),
            ("parameters", f"{sum(value.numel() for value in source.tensors.values()):,}"),
            ("input", "[-1,1]"),
        )
    )


def _encoder(tensors: dict[str, Tensor], file: ReleasedFile) -> Checkpoint:
    source = file.path
    config, preset_name = infer_config(tensors, file.said.get("num_heads"), source)
    with torch.device("meta"):
        expected = Encoder(config).state_dict()
    check_weights(shapes_of(expected), tensors, source)
    return Checkpoint(
        source=source,
        description=(
            f"rRCM encoder with its projector, pre-trained: {_sizes(config, preset_name)}",
            _parameters(tensors),
            _options(config, preset_name, None),
        ),
        tensors=tensors,
        config={"method": "rrcm", **asdict(config)},
        file_name=CHECKPOINT_NAME,
    )


def _classifier(tensors: dict[str, Tensor], file: ReleasedFile) -> Checkpoint:
    source, sigma = file.path, file.said.get("sigma")
    prefix = "base_model."
    encoder = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
    config, preset_name = infer_config(encoder, file.said.get("num_heads"), source)
    layernorm = _layernorm(file.said.get("layernorm"), preset_name, source)
    heads = [tensors[name] for name in (f"{HEAD}weight", f"{HEAD}bias") if name in tensors]
    num_classes = next((len(head) for head in heads if head.dim() > 0 and len(head) > 0), 1)
    with torch.device("meta"):
        network = Encoder(config)
        projector = network.projection_head.state_dict(prefix=prefix + PROJECTOR)
        expected = Classifier(network, num_classes, layernorm=layernorm).state_dict()
    has_projector = any(name.startswith(prefix + PROJECTOR) for name in tensors)
    check_weights(shapes_of({**expected, **(projector if has_projector else {})}), tensors, source)
    said = "after" if layernorm else "before"
    at = "a sigma that is not given" if sigma is None else f"sigma {sigma:g}"
    return Checkpoint(
        source=source,
        description=(
            f"rRCM classifier of {num_classes} classes, fine-tuned at {at}: {_sizes(config, preset_name)}, "
            f"its head {said} the last LayerNorm",
            _parameters(tensors) + ("; the projector is left out" if has_projector else ""),
            _options(config, preset_name, layernorm),
        ),
        tensors={name: tensors[name] for name in expected},
        config={"method": "rrcm", "sigma": sigma, "layernorm": layernorm, **asdict(config)},
        file_name=None if sigma is None else f"rrcm_sigma_{sigma:g}.safetensors",
    )


def infer_config(
    tensors: Mapping[str, Tensor], num_heads: int | None, source: Path
) -> tuple[EncoderConfig, str | None]:
    """Return the encoder's sizes by the shapes of its tensors, and the name of the preset they agree with, or None.

    A file without projector gets that of the preset, or widths of D.

    Raises:
        CheckpointError: the tensors that tell the sizes are missing, or are no square grid of patches.
        UsageError: no preset agrees, and the number of heads is not given.
    """
    telling = {"patch_embed.proj.weight": 4, "pos_embed": 3}
    wrong = [name for name, axes in telling.items() if tensors.get(name, torch.empty(())).dim() != axes]
    blocks = [int(found[1]) for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))]
    if wrong or not blocks:
        lacking = [*wrong, *([] if blocks else ["blocks.0.*"])]
        raise CheckpointError(f"{source} holds another model's weights: missing {', '.join(lacking)}.")
    width, channels, patch = tensors["patch_embed.proj.weight"].shape[:3]
    patches = tensors["pos_embed"].shape[1] - 2
    if patches < 1 or math.isqrt(patches) ** 2 != patches:
        raise CheckpointError(
            f"{source}: pos_embed has {patches + 2} positions, expected 2 and a square number of patches."
        )
    shapes = (tensors.get(f"projection_head.{layer}.weight") for layer in (0, 6))
    projector = [len(weight) if weight is not None else None for weight in shapes]
    config = EncoderConfig(
        image_size=patch * math.isqrt(patches),
        patch_size=patch,
        in_channels=channels,
        embed_dim=width,
        depth=1 + max(blocks),
        num_heads=1,
        hidden_dim=projector[0] or width,
        output_dim=projector[1] or width,
    )
    agreeing = [name for name, preset in ENCODERS.items() if _agrees(preset, config, projector)]
    return _with_heads(config, agreeing[0] if agreeing else None, num_heads, source)


def _agrees(preset: NamedEncoder, config: EncoderConfig, projector: list[int | None]) -> bool:
    ours, task = preset.options, preset.task
    pairs = [(getattr(ours, name), getattr(config, name)) for name in ("patch_size", "embed_dim", "depth")]
    pairs += [(task.image_size, config.image_size), (task.channels, config.in_channels)]
    widths = zip((ours.hidden_dim, ours.output_dim), projector, strict=True)
    return all(a == b for a, b in pairs) and all(found in (None, width) for width, found in widths)


def _with_heads(
    config: EncoderConfig, preset_name: str | None, num_heads: int | None, source: Path
) -> tuple[EncoderConfig, str | None]:
    """Return the configuration with what its tensors do not tell: from the preset, the heads from the user first."""
    if preset_name is None and num_heads is None:
        raise UsageError(
            f"{source}: no named encoder has patch {config.patch_size}, width {config.embed_dim} and depth "
            f"{config.depth} on {config.in_channels}x{config.image_size}x{config.image_size} images with this "
            "projector, so that the number of attention heads is unknown: give --num-heads"
        )
    if preset_name is None:
        assert num_heads is not None
        return replace(config, num_heads=num_heads), None
    ours = ENCODERS[preset_name].options  # type: ignore[index]
    return (
        replace(
            config,
            num_heads=num_heads or ours.num_heads,
            hidden_dim=ours.hidden_dim,  # a file without projector has widths that stand for none
            output_dim=ours.output_dim,
            moco_initialization=ours.moco_initialization,
            stop_grad_conv1=ours.stop_grad_conv1,
        ),
        preset_name if num_heads in (None, ours.num_heads) else None,
    )


def _layernorm(given: bool | None, preset_name: str | None, source: Path) -> bool:
    if given is not None:
        return given
    if preset_name is None:
        raise UsageError(
            f"{source}: tensors do not tell whether the head reads h after the last LayerNorm (as on ImageNet) "
            "or before it (as on CIFAR-10): give --layernorm or --no-layernorm"
        )
    return ENCODERS[preset_name].options.layernorm  # type: ignore[index]


def _plain(name: str) -> str:
    """Return a released name without the prefixes `module.` that training on several devices leaves."""
    return re.sub(r"(^|(?<=base_model\.)|(?<=linear_head\.))module\.", "", name)


def _sizes(config: EncoderConfig, preset_name: str | None) -> str:
    side = config.image_size
    return (
        f"{preset_name or 'none of the named encoders'} (patch {config.patch_size}, width {config.embed_dim}, "
        f"depth {config.depth}, {config.num_heads} heads, projector {config.hidden_dim} and "
        f"{config.output_dim}, images {config.in_channels}x{side}x{side})"
    )


def _options(config: EncoderConfig, preset_name: str | None, layernorm: bool | None) -> str:
    """Return the options of run and train that describe this network, as a user types them."""
    values: dict[str, object] = {"encoder": preset_name}
    if preset_name is None:
        names = ("patch_size", "embed_dim", "depth", "num_heads", "hidden_dim", "output_dim")
        values = {name: getattr(config, name) for name in names}
    if layernorm is not None:
        values["layernorm"] = str(layernorm).lower()
    return "options: " + " ".join(f"--set rrcm.{name}={value}" for name, value in values.items())


def _parameters(tensors: Mapping[str, Tensor]) -> str:
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    count = {"encoder": 0, "projector": 0, "head": 0}
    for name, value in tensors.items():
        part = "projector" if PROJECTOR in name else "head" if name.startswith(HEAD) else "encoder"
        count[part] += 0 if name.endswith(buffers) else value.numel()
    return "parameters: " + ", ".join(f"{part} {number:,}" for part, number in count.items() if number)
