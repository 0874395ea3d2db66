"""Named presets of rRCM (arXiv 2501.13094): encoder sizes, fine-tuning recipes, pre-training recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Literal

from baselines.consistency import agreement_weight
from bench.errors import UnpublishedError
from bench.training.architectures import RecipeTable
from bench.training.loop import FORWARDS_WITH_GRADIENT
from bench.types import Task
from rrcm import finetune, pretrain

EncoderName = Literal["rrcm-mnist", "rrcm-b-cifar10", "rrcm-s-imagenet", "rrcm-b-imagenet"]
RecipeName = Literal["small", "cifar10", "imagenet"]
PretrainingName = Literal["small", "rrcm-b-cifar10", "rrcm-s-imagenet", "rrcm-b-imagenet"]


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """Options that describe the network; the image's shape comes from the task.

    Attributes:
        layernorm: whether the classifier reads h after the last LayerNorm.
        moco_initialization, stop_grad_conv1: how weights start, and whether pre-training leaves the patch projection
            there; see `rrcm.encoder.EncoderConfig`.

    The defaults are `rrcm-mnist`, for grey images of 28x28.
    """

    patch_size: int = 7
    embed_dim: int = 128
    depth: int = 4
    num_heads: int = 4
    hidden_dim: int = 512
    output_dim: int = 128
    layernorm: bool = True
    moco_initialization: bool = False
    stop_grad_conv1: bool = False


@dataclass(frozen=True, kw_only=True)
class NamedEncoder:
    """The options of a published size, and the data set it was made for."""

    options: EncoderOptions
    task: Task


_IMAGENET = Task(dataset="imagenet", channels=3, image_size=224, num_classes=1000)
_S_IMAGENET = EncoderOptions(
    patch_size=16,
    embed_dim=512,
    depth=6,
    num_heads=8,
    hidden_dim=2048,
    output_dim=256,
    moco_initialization=True,
    stop_grad_conv1=True,
)

ENCODERS: Mapping[EncoderName, NamedEncoder] = MappingProxyType(
    {
        "rrcm-mnist": NamedEncoder(
            options=EncoderOptions(),
            task=Task(dataset="mnist5k", channels=1, image_size=28, num_classes=10),
        ),
        "rrcm-b-cifar10": NamedEncoder(
            options=EncoderOptions(
                patch_size=4,
                embed_dim=768,
                depth=12,
                num_heads=12,
                hidden_dim=2048,
                output_dim=256,
                layernorm=False,
            ),
            task=Task(dataset="cifar10", channels=3, image_size=32, num_classes=10),
        ),
        "rrcm-s-imagenet": NamedEncoder(options=_S_IMAGENET, task=_IMAGENET),
        "rrcm-b-imagenet": NamedEncoder(
            options=replace(_S_IMAGENET, embed_dim=768, depth=12, num_heads=12, hidden_dim=4096),
            task=_IMAGENET,
        ),
    }
)
"""Sizes of the paper's encoders and of the small one, by name."""

_FINETUNING = finetune.Recipe(
    batch_size=1024,
    learning_rate=2e-4,
    scale_rate=True,
    weight_decay=0.0,
    schedule="cosine",
    ema_decay=0.0,
    clip=0.0,
    epochs=100,
    warmup_epochs=10,
    layer_decay=0.75,
    copies=2,
    weight=10.0,
    entropy_weight=0.5,
    augmentation="none",
)
_FINETUNING_IMAGENET = replace(_FINETUNING, warmup_epochs=5, layer_decay=0.65, mixup=0.8, cutmix=1.0)

FINETUNING: Mapping[tuple[RecipeName, float], finetune.Recipe] = MappingProxyType(
    {
        ("cifar10", 0.25): _FINETUNING,
        ("cifar10", 0.5): replace(_FINETUNING, weight=20.0),
        ("cifar10", 1.0): replace(_FINETUNING, weight=20.0, layer_decay=0.65),
        ("imagenet", 0.25): replace(
            _FINETUNING_IMAGENET, epochs=150, augmentation="timm", label_smoothing=0.1
        ),
        ("imagenet", 0.5): replace(
            _FINETUNING_IMAGENET,
            epochs=50,
            cosine_epochs=150,
            batch_size=2048,
            weight=20.0,
            augmentation="crop-flip",
        ),
        ("imagenet", 1.0): replace(
            _FINETUNING_IMAGENET,
            epochs=150,
            batch_size=256,
            learning_rate=1e-4,
            weight=20.0,
            augmentation="flip",
        ),
    }
)
"""The paper's recipes of fine-tuning, by data set and sigma.

Deviation: the released program keeps the checkpoint that is best on the test set; here held-out training images decide.
"""

_PRETRAINING = pretrain.Recipe(
    max_steps=600_000,
    batch_size=4096,
    learning_rate=1e-4,
    weight_decay=0.01,
    warmup_steps=10_000,
    clip_from=10_000,
    target_start=0.99,
    target_end=0.9999,
    sharpness=10.0,
    precision="bfloat16",
    evaluate_every=1000,
    ema_warmup=False,
    views="moco",
)

PRETRAINING: Mapping[PretrainingName, pretrain.Recipe] = MappingProxyType(
    {
        "rrcm-b-cifar10": replace(
            _PRETRAINING,
            max_steps=300_000,
            batch_size=2048,
            weight_decay=0.0,
            ema_decay=0.9999,
            sharpness=15.0,
        ),
        "rrcm-s-imagenet": _PRETRAINING,
        "rrcm-b-imagenet": replace(
            _PRETRAINING, learning_rate=2e-4, weight_decay=0.03, warmup_steps=15_000, clip_from=15_000
        ),
    }
)
"""The paper's recipes of pre-training, by encoder.

Deviation: bfloat16, where the program has float16 with loss scaling; the first step has rate 1/warm-up, there 0; the
averaged weights are kept for fine-tuning, there any of the averaged, the online and the target network's.
"""


PretrainingKind = Literal["rrcm", "contrastive", "masked", "none"]
"""What an encoder is pre-trained by: rRCM's two terms, or a control."""

KINDS: Mapping[PretrainingKind, Mapping[str, bool | int | float]] = MappingProxyType(
    {
        "rrcm": {},
        "contrastive": {"pretrain_consistency": False},
        "masked": {"pretrain_contrastive": False, "pretrain_consistency": False, "pretrain_masked": True},
        "none": {"pretrain_steps": 0, "layer_decay": 1.0},
    }
)
"""Kind of pre-training -> the options that it stands for."""

NAMED_OPTIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "encoder": frozenset(option.name for option in fields(EncoderOptions)),
        "recipe": frozenset(option.name for option in fields(finetune.Recipe)),
        "pretrain_recipe": frozenset(
            "pretrain_steps" if option.name == "max_steps" else f"pretrain_{option.name}"
            for option in fields(pretrain.Recipe)
        ),
        "forwards": frozenset({"max_steps", "pretrain_steps"}),
        "pretraining": frozenset(option for kind in KINDS.values() for option in kind),
    }
)
"""Options that stand for several others -> those others."""

TRAINING_NAMES = ("recipe", "pretrain_recipe")
"""Those of them that say only how a network is trained."""


def finetuning(name: RecipeName, sigma: float) -> finetune.Recipe:
    """Return the recipe of fine-tuning for a sigma.

    Raises:
        UnpublishedError: the paper has none at this sigma.
    """
    if name == "small":
        return finetune.Recipe(weight=agreement_weight(sigma))
    if (name, sigma) not in FINETUNING:
        known = ", ".join(f"{known:g}" for family, known in FINETUNING if family == name)
        raise UnpublishedError(
            f"recipe {name!r} is published at sigma {known}, not at {sigma:g}; take recipe=small, and give its "
            "options singly"
        )
    return FINETUNING[name, sigma]


def pretraining(name: PretrainingName) -> pretrain.Recipe:
    """Return the recipe of pre-training of an encoder."""
    return pretrain.SMALL if name == "small" else PRETRAINING[name]


PRETRAINING_FORWARDS = 3 * FORWARDS_WITH_GRADIENT + 3
"""Cost of rRCM's pre-training on one image, in forward passes of the encoder; see `pretrain.Objective.forwards`."""


def recipe_tables() -> list[RecipeTable]:
    """Return (headers, rows) of the fine-tuning recipes, and of the pre-training recipes, for reading."""
    rows = [_row(f"{family} at {sigma:g}", recipe) for (family, sigma), recipe in FINETUNING.items()]
    others = [_pretraining_row(name, recipe) for name, recipe in PRETRAINING.items()]
    return [(tuple(table[0]), [tuple(row.values()) for row in table]) for table in (rows, others)]


def _row(name: str, recipe: finetune.Recipe) -> dict[str, str]:
    return {
        "--set rrcm.recipe": name,
        "epochs": str(recipe.epochs),
        "warm-up / cosine epochs": f"{recipe.warmup_epochs} / {recipe.cosine_epochs or recipe.epochs}",
        "batch": str(recipe.batch_size),
        "lr per 256": f"{recipe.learning_rate:g}",
        "weight decay": f"{recipe.weight_decay:g}",
        "layer decay": f"{recipe.layer_decay:g}",
        "m / lambda / eta": f"{recipe.copies} / {recipe.weight:g} / {recipe.entropy_weight:g}",
        "augmentation": recipe.augmentation,
        "mixup / cutmix / smoothing": f"{recipe.mixup:g} / {recipe.cutmix:g} / {recipe.label_smoothing:g}",
        "forwards per image": f"{FORWARDS_WITH_GRADIENT * recipe.copies * recipe.epochs:,}",
    }


def _pretraining_row(name: str, recipe: pretrain.Recipe) -> dict[str, str]:
    return {
        "--set rrcm.pretrain_recipe": name,
        "steps": str(recipe.max_steps),
        "warm-up": str(recipe.warmup_steps),
        "batch": str(recipe.batch_size),
        "lr": f"{recipe.learning_rate:g}",
        "weight decay": f"{recipe.weight_decay:g}",
        "EMA": f"{recipe.ema_decay:g}",
        "target rate": f"{recipe.target_start:g} to {recipe.target_end:g}, A {recipe.sharpness:g}",
        "clip": f"{recipe.clip:g} from step {recipe.clip_from}",
        "precision": recipe.precision,
        "forwards": f"{PRETRAINING_FORWARDS * recipe.max_steps * recipe.batch_size:.3g}",
    }
