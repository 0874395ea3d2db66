"""What methods tell of checkpoints: released forms, parts of a method, and how networks are fed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from bench.errors import CheckpointError
from bench.training.checkpoints import load_checkpoint, load_metadata, load_torch_file, without_prefix
from bench.types import Checkpoint


@dataclass(frozen=True, kw_only=True)
class ReleasedFile:
    """A file that another program wrote, read without running code.

    Attributes:
        content: tensors and plain values, as the program saved them.
        tensors: those of its state dict by name, {} where it holds none.
        said: what the user says of it where tensors do not: "sigma", "num_heads", "layernorm", "flags", or less.
    """

    path: Path
    content: Any
    tensors: Mapping[str, Tensor]
    said: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Released:
    """A form in which others publish a method's checkpoints.

    Attributes:
        what: its files in words, "a residual network with its `arch`".
        recognises: whether a file is of this form, whatever else is wrong with it.
        read: the file in our form, every name and shape checked.
        files: network of a released folder -> its file there, the default first.
    """

    what: str
    recognises: Callable[[ReleasedFile], bool]
    read: Callable[[ReleasedFile], Checkpoint]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fed:
    """What a layer makes of noisy pixels before the network sees them, and what it is told; None: nothing.

    Attributes:
        normalisation: (mean, deviation) per channel in pixel units, subtracted and divided by.
        size: (height, width) that images are resized to.
        time: in words, the time that stands for sigma.
        other_times: reading in words -> sigma -> the sigma that a wrong reading of the time amounts to.
    """

    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    size: tuple[int, int] | None = None
    time: str | None = None
    other_times: Mapping[str, Callable[[float], float]] | None = None


class DenoiserReading(Protocol):
    """A way to use a denoiser, and the other ways that may turn out to be right."""

    @property
    def denoiser(self) -> nn.Module:
        """The network."""
        ...

    def __call__(self, x_noisy: Tensor, sigma: float) -> Tensor:
        """Return denoised pixels (B,C,H,W) for noisy ones; ValueError where its schedule ends below sigma."""
        ...

    def alternatives(self) -> Mapping[str, Mapping[str, DenoiserReading]]:
        """Return question -> reading -> use, each different in one thing; the first of each question is this one."""
        ...

    def description(self) -> str:
        """Return in words what the denoiser is and which time stands for sigma."""
        ...

    def time_rule(self) -> str:
        """Return in words which time, or time step, stands for sigma."""
        ...


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a method, without the rest that classifies.

    Attributes:
        told: (what, what the file tells) in reading order, of a part that cannot be tried.
        denoiser: the part that can.
        made_by: the program whose form it has, in words; "": as the file itself tells.
    """

    told: tuple[tuple[str, str], ...] = ()
    denoiser: DenoiserReading | None = None
    made_by: str = ""


def says_arch(path: Path) -> bool:
    """Return whether a checkpoint file says which network it holds; see `load_with_arch`.

    Raises:
        CheckpointError: the file is missing or damaged, or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        return isinstance(load_metadata(path).get("config", {}).get("backbone"), str)
    content = load_torch_file(path)
    return isinstance(content, dict) and "arch" in content


def load_with_arch(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the name of the network that a checkpoint file holds, and its state dict.

    Args:
        path: our safetensors file with its backbone, or a released `{arch, state_dict}`.

    Raises:
        CheckpointError: the file is missing, damaged, holds more than tensors, or does not say its network.
    """
    if path.suffix != ".safetensors":
        return arch_and_state(load_torch_file(path), path)
    tensors, metadata = load_checkpoint(path)
    arch = metadata.get("config", {}).get("backbone")
    if not isinstance(arch, str):
        raise CheckpointError(
            f"{path} says no backbone, expected a file of `bench train` or `bench import-checkpoint`; import the "
            "released file anew, or give it itself."
        )
    return arch, tensors


def arch_and_state(content: Any, source: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the parts of `{arch, state_dict}`, the form of arXiv 1902.02918's checkpoints, without "module." in names.

    Raises:
        CheckpointError: it has no such parts, or its state dict holds anything but tensors by name.
    """
    state = content.get("state_dict") if isinstance(content, dict) else None
    if (
        not isinstance(state, dict)
        or "arch" not in content
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    ):
        raise CheckpointError(
            f"{source} holds no arch and state_dict, expected a released checkpoint of both; name another file, or its "
            "network with --backbone, such as cifar_resnet20a."
        )
    names = {name: re.sub(r"(^|(?<=^1\.))module\.", "", name) for name in state}
    return str(content["arch"]), without_prefix(names, state, source)
