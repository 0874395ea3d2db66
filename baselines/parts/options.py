"""The options of a purifier: which denoiser and classifier, ours or others', and how our own are trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from torch import nn

from baselines.networks.resnet import RESNET
from bench.errors import UsageError
from bench.training.recipes import IN_USE, Recipe
from bench.types import Backbone, Task


@dataclass(frozen=True, kw_only=True)
class Config(Recipe):
    """Options of both parts; the recipe is the denoiser's.

    Attributes:
        backbone: the classifier of clean images.
        channels: channels of the U-Net at each resolution.
        patch: side of the squares of pixels folded into channels before the U-Net.
        classifier_max_steps: steps of the classifier's training, which shares the other options of the recipe.
        finetune: whether the classifier, ours or another's, is trained further on denoised noisy images of this sigma;
            there is a checkpoint for each sigma then.
        finetune_max_steps: steps of that training, which shares the other options of the recipe.
        denoiser: "" is our own small one; else another's, see the method.
        classifier: "" is `backbone`; else timm's name of a classifier of clean images, with its own input size,
            "transformers:" and a folder or hub name, a safetensors file of ours, whose network takes the place of
            `backbone`, or "module:function" of the user's own.
        classifier_checkpoint: that classifier's weights; "" takes those that timm publishes.
    """

    task: Task
    sigma: float = field(metadata=IN_USE)
    backbone: Backbone = RESNET
    channels: tuple[int, ...] = (32, 64)
    patch: int = 2
    max_steps: int = 3000
    ema_decay: float = 0.999
    classifier_max_steps: int = 1000
    finetune: bool = False
    finetune_max_steps: int = 500
    denoiser: str = field(default="", metadata=IN_USE)
    classifier: str = field(default="", metadata=IN_USE)
    classifier_checkpoint: str = field(default="", metadata=IN_USE)

    def __post_init__(self) -> None:
        check_pairs(self, ("classifier_checkpoint", "classifier"))

    def of_own_parts(self) -> Self:
        """Return the same with both parts our own."""
        return replace(self, denoiser="", classifier="", classifier_checkpoint="")

    def own_denoiser(self) -> nn.Module:
        """Return our small denoiser of these sizes with random weights."""
        raise NotImplementedError


def check_pairs(config: Recipe, *pairs: tuple[str, str]) -> None:
    """Return nothing where each option that is given comes with the other that it needs.

    Args:
        pairs: (option, the option it needs), both "" where not given.

    Raises:
        UsageError: an option without the other.
    """
    for option, needed in pairs:
        if getattr(config, option) and not getattr(config, needed):
            raise UsageError(f"{option} is given without {needed}; name that too, or leave both out")
