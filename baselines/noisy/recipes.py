"""Published recipes of the classifiers trained on noisy images, by method, data set and sigma.

Deviation: a tenth of the training images, at most 1,000, is held out, and the epoch kept is the one that is best on
them, where the programs keep the last; `bench train --held-out 0` does as they do. The crops of ImageNet are taken from
the data set's own square image, not from the uncropped photograph; an epoch leaves out what fills no last batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from baselines.noisy.classifier import AnyConfig, Config, Recipe
from bench.errors import UnpublishedError
from bench.training.architectures import RecipeTable


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published recipe.

    Attributes:
        backbone: the network it is published for, as `--backbone` names it.
        options: the method's own options; those that count steps count epochs.
    """

    backbone: str
    recipe: Recipe
    options: Mapping[str, float] = field(default_factory=dict)


_SGD = Recipe(
    optimizer="sgd",
    learning_rate=0.1,
    weight_decay=1e-4,
    batch_size=400,
    warmup_steps=0,
    schedule="drops",
    epochs=90,
    drop_epochs=30,
    ema_decay=0.0,
    clip=0.0,
)
_SGD_IMAGENET = replace(_SGD, augmentation="resized-crop")
_SGD_MNIST = replace(_SGD, learning_rate=0.01, batch_size=256, augmentation="none")
_SGD_CONSISTENCY = replace(_SGD, batch_size=256, epochs=150, drop_epochs=50)

_CIFAR10, _IMAGENET, _MNIST = (
    Published(backbone=backbone, recipe=recipe)
    for backbone, recipe in (("cifar_resnet110", _SGD), ("resnet50", _SGD_IMAGENET), ("lenet", _SGD_MNIST))
)
_CONSISTENCY = replace(_CIFAR10, recipe=_SGD_CONSISTENCY)
_HALF_IMAGENET = replace(_IMAGENET, recipe=replace(_SGD_IMAGENET, batch_size=200))


def _in_chunks(published: Published, options: Mapping[str, float], copies: int = 2) -> Published:
    """Return the recipe of a program that cuts each batch it loads into as many pieces as it makes noisy copies.

    The optimiser makes a step with each piece and all its copies: of as many noisy images as are loaded at once.
    """
    recipe = replace(published.recipe, batch_size=published.recipe.batch_size // copies)
    return replace(published, recipe=recipe, options=options)


_ATTACK = {"copies": 4, "epsilon": 255 / 256, "attack_steps": 10, "epsilon_warmup": 10}
_ATTACK_CIFAR10 = {"copies": 2, "epsilon": 2.0, "attack_steps": 10, "epsilon_warmup": 10}
_RADIUS = {"copies": 16, "weight": 16.0, "margin": 8.0, "beta": 16.0, "weight_from": 30}
_RADIUS_CIFAR10 = {**_RADIUS, "weight": 12.0, "weight_from": 0}
_MACER = Published(
    backbone="cifar_resnet110",
    recipe=replace(_SGD, learning_rate=0.01, weight_decay=5e-4, batch_size=64, epochs=440, drop_epochs=200),
    options=_RADIUS_CIFAR10,
)

Key = tuple[str, str, float]

RECIPES: Mapping[Key, Published] = MappingProxyType(
    {
        **{("gaussian", "cifar10", sigma): _CIFAR10 for sigma in (0.12, 0.25, 0.5, 1.0)},
        **{("gaussian", "imagenet", sigma): _IMAGENET for sigma in (0.25, 0.5, 1.0)},
        **{("gaussian", "mnist", sigma): _MNIST for sigma in (0.25, 0.5, 1.0)},
        ("consistency", "cifar10", 0.25): _in_chunks(_CONSISTENCY, {"weight": 20.0}),
        ("consistency", "cifar10", 0.5): _in_chunks(_CONSISTENCY, {"weight": 10.0}),
        ("consistency", "cifar10", 1.0): _in_chunks(_CONSISTENCY, {"weight": 10.0}),
        ("consistency", "imagenet", 0.5): _in_chunks(_HALF_IMAGENET, {"weight": 5.0}),
        ("consistency", "imagenet", 1.0): _in_chunks(_HALF_IMAGENET, {"weight": 5.0, "entropy_weight": 0.1}),
        ("consistency", "mnist", 0.25): _in_chunks(_MNIST, {"weight": 10.0}),
        ("consistency", "mnist", 0.5): _in_chunks(_MNIST, {"weight": 5.0}),
        ("consistency", "mnist", 1.0): _in_chunks(_MNIST, {"weight": 5.0}),
        **{
            ("smoothadv", "mnist", sigma): _in_chunks(_MNIST, _ATTACK, copies=4) for sigma in (0.25, 0.5, 1.0)
        },
        **{("macer", "mnist", sigma): replace(_MNIST, options=_RADIUS) for sigma in (0.25, 0.5)},
        ("macer", "mnist", 1.0): replace(_MNIST, options={**_RADIUS, "weight": 6.0}),
        ("smoothadv", "cifar10", 0.25): _in_chunks(
            _CONSISTENCY, {**_ATTACK_CIFAR10, "copies": 8, "epsilon": 255 / 256}, copies=8
        ),
        ("smoothadv", "cifar10", 0.5): _in_chunks(_CONSISTENCY, {**_ATTACK_CIFAR10, "attack_steps": 2}),
        ("smoothadv", "cifar10", 1.0): _in_chunks(_CONSISTENCY, _ATTACK_CIFAR10),
        ("macer", "cifar10", 0.25): _MACER,
        ("macer", "cifar10", 0.5): replace(_MACER, options={**_RADIUS_CIFAR10, "weight": 4.0}),
        ("macer", "cifar10", 1.0): replace(_MACER, options={**_RADIUS_CIFAR10, "weight_from": 200}),
    }
)
"""(method, data set, sigma) -> recipe: arXiv 1902.02918 and 2006.04062, with the commands and the names of the logs
that the program of the latter publishes (lambda and eta on ImageNet; SmoothAdv and MACER on MNIST). On CIFAR-10,
SmoothAdv as the program of arXiv 2106.06946 trains it, in the 256ths that its epsilon is given in; MACER as its own
program does at 0.25, and as others call that program at 0.5 and 1."""


_COPIES = MappingProxyType({"gaussian": 1, "consistency": 2})
"""Noisy copies of the methods whose recipes do not state them."""


def forwards(method: str, published: Published) -> int:
    """Return what a recipe costs, in forward passes of the network per training image over all epochs.

    A gradient costs as much as two forward passes; an attack of T steps takes T gradients of each noisy copy.
    """
    copies = published.options.get("copies", _COPIES.get(method))
    assert copies is not None
    return 3 * published.recipe.epochs * int(copies * (1 + published.options.get("attack_steps", 0)))


def named_options(config: type[Config]) -> Mapping[str, frozenset[str]]:
    """Return the option that stands for several others, `recipe` -> all options that say how `config` is trained."""
    names = {option.name for option in fields(config)}
    return MappingProxyType({"recipe": frozenset(names - {"task", "sigma", "backbone", "recipe"})})


def expand(method: str, config: AnyConfig) -> AnyConfig:
    """Return the configuration with every option that its named recipe holds set to the recipe's value.

    Raises:
        UnpublishedError: the method's recipe of that name is not published at this sigma.
    """
    if config.recipe == "small":
        return config
    published = RECIPES.get((method, config.recipe, config.sigma))
    if published is None:
        known = [f"{name} at {sigma:g}" for owner, name, sigma in RECIPES if owner == method]
        raise UnpublishedError(
            f"{method} has no published recipe {config.recipe!r} at sigma {config.sigma:g}, only "
            f"{', '.join(known)}; take recipe=small, and give its options singly"
        )
    changes: dict[str, Any] = {**asdict(published.recipe), **published.options}
    return replace(config, **changes)


def table(method: str) -> RecipeTable:
    """Return (headers, rows) of a method's published recipes, for reading."""
    rows = [
        {
            "--set": f"{method}.recipe={name}",
            "sigma": f"{sigma:g}",
            "--backbone": published.backbone,
            "epochs": str(published.recipe.epochs),
            "batch": str(published.recipe.batch_size),
            "lr": f"{published.recipe.learning_rate:g}, x0.1 every {published.recipe.drop_epochs}",
            "weight decay": f"{published.recipe.weight_decay:g}",
            "the method's own": ", ".join(f"{key} {value:g}" for key, value in published.options.items()),
            "forwards per image": f"{forwards(method, published):,}",
        }
        for (owner, name, sigma), published in RECIPES.items()
        if owner == method
    ]
    return tuple(rows[0]), [tuple(row.values()) for row in rows]
