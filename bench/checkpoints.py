"""Checkpoint files: safetensors that say what they are, written at once or not at all, loaded strictly."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bench.errors import CheckpointError


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
    expected = module.state_dict()
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    if problems:
        raise CheckpointError(
            f"{source} holds another model's weights: {'; '.join(problems[:8])}"
            f"{f' and {len(problems) - 8} more' if len(problems) > 8 else ''}."
        )
    module.load_state_dict(tensors)


def first_line(error: BaseException) -> str:
    """Return an exception's message without its later lines, for a message of one sentence."""
    return str(error).strip().split("\n")[0] or type(error).__name__
