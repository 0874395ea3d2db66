"""Methods and networks at named sizes: what a method's hooks offer to be counted, listed and measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.types import Task

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network by name for counting: its parts on the meta device, which hold shapes and no values.

    Attributes:
        task: the data it is made for.
        body: everything below the head; projector: what serves pre-training only; head: what gives the logits.
        forward: what is computed for one image, from (1,C,H,W) on the meta device.
    """

    name: str
    task: Task
    body: nn.Module
    forward: Callable[[Tensor], Tensor]
    projector: nn.Module | None = None
    head: nn.Module | None = None


Make = Callable[[str, "Callable[[], nn.Module]"], "nn.Module"]
"""(name, function) -> the network that the function makes, on the device that is asked for; one per name."""


@dataclass(frozen=True, kw_only=True)
class Chains:
    """How long the iterated purifiers of a cost measurement are.

    Attributes:
        steps: network calls of a reverse chain, >= 1.
        votes: chains of one sample whose predictions are put to the vote, >= 1.
    """

    steps: int = 10
    votes: int = 10


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A method at a given size, with random weights, for measuring what it costs.

    Attributes:
        task: the images it is given; at the same data set, methods may take other sizes.
        build: makes the classifier, its large networks by the function it is given, so that methods share them.
        calls: network calls of its denoiser for one sample; 1 for methods without one.
        batch_size: samples per call that its program uses, for the comparison as published.
        published: its method's name among the published numbers, "" where none is of this size.
        source: where the size is published.
    """

    name: str
    task: Task
    build: Callable[[Make], nn.Module]
    calls: int = 1
    batch_size: int = 1000
    published: str = ""
    source: str = ""


RecipeTable = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""(headers, rows) of published recipes, for reading."""
