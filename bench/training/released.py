"""What methods tell of checkpoints: released forms, parts of a method, and how networks are fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

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
