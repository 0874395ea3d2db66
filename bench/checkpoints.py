"""Checkpoint files: safetensors that say what they are, written at once or not at all, loaded strictly."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bench.errors import CheckpointError

NAMED = 8
"""Names at most in a message about weights that do not fit."""


def save_checkpoint(
    path: Path,
    tensors: dict[str, Tensor],
    *,
    config: dict[str, Any],
    training: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write tensors with their configuration and provenance as one safetensors file, at once or not at all.

    Floating-point tensors are stored as `dtype`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {
        name: (value.to(dtype) if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in tensors.items()
    }
    content = save(plain, {"config": json.dumps(config), "training": json.dumps(training)})
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a safetensors file's tensors and its metadata (JSON values; {} where it has none).

    Raises:
        CheckpointError: the file is missing, truncated, or not a safetensors file.
    """
    if not path.is_file():
        raise CheckpointError(f"No checkpoint at {path}: train it with `bench train`, or name another --zoo.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), {key: json.loads(value) for key, value in metadata.items() if key != "format"}
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({first_line(error)}): it may be truncated; "
            "delete it to train it again, or fetch it again."
        ) from error


def load_weights(module: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Load tensors into a module strictly.

    Raises:
        CheckpointError: a name is missing or unexpected, or a shape differs; the message names them.
    """
    check_weights({name: value.shape for name, value in module.state_dict().items()}, tensors, source)
    module.load_state_dict(tensors)


def check_weights(expected: Mapping[str, torch.Size], tensors: dict[str, Tensor], source: Path) -> None:
    """Return nothing for tensors of exactly these names and shapes.

    Raises:
        CheckpointError: how many names are missing, unexpected or of another shape, and the first NAMED of them.
    """
    missing = [f"missing {name}" for name in expected if name not in tensors]
    unexpected = [f"unexpected {name}" for name in tensors if name not in expected]
    misshapen = [
        f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if problems := [*missing, *unexpected, *misshapen]:
        counts = f"{len(missing)} missing, {len(unexpected)} unexpected, {len(misshapen)} of another shape"
        more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise CheckpointError(
            f"{source} holds another model's weights ({counts}): {'; '.join(problems[:NAMED])}{more}."
        )


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state dict and the metadata of a file that another program wrote, on the CPU.

    A name ending in .safetensors is read as that, any other as torch's format, tensors only: code in the file
    never runs. A state dict may stand below "state_dict" in a larger dict, with "module." before every name.

    Raises:
        CheckpointError: the file is missing, not of that format, or holds anything but tensors by name.
    """
    if not path.is_file():
        raise CheckpointError(f"No checkpoint at {path}: name a file that is there.")
    if path.suffix == ".safetensors":
        return load_checkpoint(path)
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # an odd pickle protocol, before what follows is refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler makes of bytes that are no checkpoint
        raise CheckpointError(
            f"{path} is not a readable file of tensors ({type(error).__name__}): it may be truncated, a web page, "
            "or hold code, which is never run; fetch it again from its publisher."
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict, expected tensors by name; name another file.")
    return {name.removeprefix("module."): value for name, value in state.items()}, {}


def first_line(error: BaseException) -> str:
    """Return an exception's message without its later lines, for a message of one sentence."""
    return str(error).strip().split("\n")[0] or type(error).__name__
