"""Released checkpoints -> safetensors files of ours: recognised, checked name by name, described."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import CheckpointError, UsageError
from bench.methods import registry, zoo
from bench.training.checkpoints import (
    Imported,
    arch_and_state,
    check_weights,
    load_metadata,
    load_torch_file,
    save_checkpoint,
    shapes_of,
)
from bench.types import Task

NOISY = ("gaussian", "consistency", "smoothadv", "macer")
"""Methods whose networks are released as `{arch, state_dict}`; no tensor tells which of them trained one."""


def import_checkpoint(
    path: Path, out: Path, *, command: str, which: str | None = None, said: Mapping[str, Any]
) -> tuple[str, ...]:
    """Write a released checkpoint as the safetensors file `out`, and return sentences on what it is.

    Args:
        path: a file written by torch.save, or a released pre-training folder.
        command: the command line, kept in the file.
        which: network of a folder: "ema" (the default), "online" or "target".
        said: what tensors do not tell, as in `rrcm.checkpoints.Request`, "flags" of a diffusion program as on its
            command line, and "method", one of NOISY, of a residual network (the first by default); None where the
            user said nothing.

    Raises:
        CheckpointError: the file is damaged, holds more than tensors, or is of another kind or model.
        UsageError: something must be said that is not, or the other way round.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"--out is {out}, expected a name that ends in .safetensors")
    if out.exists():
        raise UsageError(f"{out} exists: give another --out")
    rrcm = registry.released()
    if (path / "model_index.json").is_file():
        raise UsageError(
            f"{path} is a diffusers pipeline: nothing to import, `--set dds.denoiser={path}` takes it as it is"
        )
    if path.suffix == ".safetensors" and load_metadata(path).get("config"):
        raise UsageError(
            f"{path} holds its configuration already: `bench doctor --checkpoint {path}` says what it is"
        )
    if path.is_dir():
        path = rrcm.file_in(path, which or "ema")
    elif which is not None:
        raise UsageError(f"--which is {which}, but {path} is not a folder: leave it out")
    content = load_torch_file(path)
    if isinstance(content, dict) and {"arch", "state_dict"} <= content.keys():
        imported = _residual_network(content, said.get("method") or NOISY[0], said.get("sigma"), path)
    elif said.get("method") is not None:
        raise UsageError(
            f"--method is {said['method']}, but {path} is no residual network with its arch: leave it out"
        )
    elif rrcm.recognises(tensors := _state_dict(content)):
        told = {name: value for name, value in said.items() if name not in ("flags", "method")}
        imported = rrcm.import_tensors(tensors, rrcm.Request(**told), path)
    elif any(name.removeprefix("module.").startswith("input_blocks.") for name in tensors):
        imported = registry.released_unets().import_tensors(tensors, said.get("flags") or "", path)
    else:
        raise CheckpointError(
            f"{path} is {_likeness(content, tensors)}, expected a checkpoint of rRCM, a residual network with its "
            "`arch`, or a U-Net of improved-diffusion or guided-diffusion."
        )
    origin = {"command": command, "imported_from": path.name, "sha256": zoo.sha256(path)}
    save_checkpoint(out, imported.tensors, config=imported.config, training=origin)
    return (*imported.description, imported.use or _how_to_use(out, imported.file_name))


def _state_dict(content: Any) -> dict[str, Tensor]:
    """Return the named tensors of a file: at the top, or below "model" or "state_dict"; {} where there are none."""
    if not isinstance(content, dict):
        return {}
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            return _state_dict(content[key])
    named = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return named if len(named) == len(content) else {}


def _residual_network(content: dict[str, Any], method: str, sigma: float | None, source: Path) -> Imported:
    """Return the import of `{arch, state_dict}`, the form of arXiv 1902.02918's checkpoints."""
    arch, plain = arch_and_state(content, source)
    weights = {name: value for name, value in plain.items() if value.dim() > 0}
    head = "1.fc2.weight" if arch == "lenet" else "1.fc.weight"
    if "1.conv1.weight" not in weights or head not in weights:
        raise CheckpointError(
            f"{source} holds {arch!r} with names such as {next(iter(plain), 'none')!r}, expected 1.conv1.weight "
            f"and {head} (normalisation, then the network)."
        )
    num_classes, channels = len(weights[head]), weights["1.conv1.weight"].shape[1]
    side = 28 if arch == "lenet" else 32 if arch.startswith("cifar_") else 224
    task = Task(dataset="", channels=channels, image_size=side, num_classes=num_classes)
    with torch.device("meta"):
        expected = registry.backbone(arch).make(task, 0.5).state_dict()
    check_weights(shapes_of(expected), plain, source)
    at = "a sigma that is not given" if sigma is None else f"sigma {sigma:g}"
    return Imported(
        description=(f"{arch} of {num_classes} classes after its normalisation, trained on noise of {at}",),
        tensors=plain,
        config={"method": method, "backbone": arch, "sigma": sigma},
        file_name=None if sigma is None else f"{method}-{arch}_sigma_{sigma:g}.safetensors",
    )


def _likeness(content: Any, tensors: Mapping[str, Tensor]) -> str:
    """Return what a file that is not imported looks like."""
    names = [name.removeprefix("module.") for name in tensors]
    if not tensors:
        keys = f" with the keys {', '.join(map(str, list(content)[:6]))}" if isinstance(content, dict) else ""
        return f"a {type(content).__name__}{keys} and no state dict"
    for start, what in (
        ("patch_embed.", "a vision transformer without rRCM's projector"),
        ("layer1.", "a residual network without its `arch`"),
    ):
        if any(name.startswith(start) for name in names):
            return f"the state dict of {what}"
    return f"a state dict of another model, with names such as {', '.join(names[:3])}"


def _how_to_use(out: Path, file_name: str | None) -> str:
    if file_name is None:
        return "give --sigma to learn the name under which a zoo expects the file"
    return f"`--zoo DIR` of run and train finds it as DIR/<data set>/{file_name}" + (
        "" if out.name == file_name else ", so rename or move it"
    )
