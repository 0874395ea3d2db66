"""Method and backbone names -> modules, imported only when asked for; third parties add theirs as entry points.

The one file that names baselines and rrcm.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from bench.config.names import is_plug_in, nearest_hint
from bench.config.overrides import override
from bench.errors import UsageError
from bench.types import Architecture, Backbone, Chains, MethodModule, Network, Task

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINT_GROUP = "bench.methods"
"""Group of the entry points, method name -> module, through which a package adds methods."""

COUNTED = ("max_steps", "evaluate_every", "patience")
"""Options of training that a recipe of epochs sets itself."""

_BUILT_IN = {
    "rrcm": (
        "rrcm.model",
        "rRCM (arXiv 2501.13094): a pre-trained encoder told the noise level, one forward pass",
    ),
    "gaussian": (
        "baselines.gaussian",
        "Gaussian augmentation (arXiv 1902.02918): cross entropy on noisy images",
    ),
    "consistency": (
        "baselines.consistency",
        "consistency regularisation (arXiv 2006.04062): noisy copies must agree",
    ),
    "dds": ("baselines.dds", "diffusion denoised smoothing (arXiv 2206.10550): denoise once, then classify"),
    "densepure": (
        "baselines.densepure",
        "DensePure (arXiv 2211.00322): several reverse chains, each classified, and a majority vote",
    ),
    "consistency-model": (
        "baselines.consistency_model",
        "consistency-model purification (arXiv 2303.01469): one call of a consistency model, then classify",
    ),
    "smoothadv": (
        "baselines.smoothadv",
        "SmoothAdv (arXiv 1906.04584): training on attacks of the smoothed classifier",
    ),
    "macer": ("baselines.macer", "MACER (arXiv 2001.02378): training for a large certified radius"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """A method's name, the module that holds it, and one line about it."""

    name: str
    module: str
    summary: str


def methods() -> dict[str, MethodEntry]:
    """Return the known methods by name, ours first, without importing any.

    Raises:
        UsageError: a package adds a method under a name that is taken.
    """
    known = {name: MethodEntry(name=name, module=m, summary=text) for name, (m, text) in _BUILT_IN.items()}
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        if point.name in known and known[point.name].module != point.value:
            raise UsageError(
                f"method {point.name!r} is {known[point.name].module} and also {point.value}; "
                "uninstall one, or rename its entry point"
            )
        known[point.name] = MethodEntry(name=point.name, module=point.value, summary=f"from {point.value}")
    return known


def load(name: str) -> MethodModule:
    """Return a method's module, or what stands for one where the name is "module:function".

    See `bench.smoothing.classifiers`.

    Raises:
        UsageError: an unknown name (the nearest is named), or a module that cannot be imported or lacks a part.
    """
    if is_plug_in(name):
        from bench.smoothing.classifiers import plug_in

        stands_in: Any = plug_in(name)
        return stands_in
    known = methods()
    if name not in known:
        raise UsageError(f"unknown method {name!r}; {nearest_hint(name, known)}")
    try:
        module: Any = importlib.import_module(known[name].module)
    except ImportError as error:
        raise UsageError(f"method {name!r} cannot be imported from {known[name].module}: {error}") from error
    for part in ("Config", "build"):
        if not hasattr(module, part):
            raise UsageError(f"method {name!r}: {known[name].module} offers no {part}; add it to that file")
    return module


def configure(name: str, task: Task, sigma: float, options: Mapping[str, Any], *, trains: bool = True) -> Any:
    """Return the method's Config for a task and sigma, with its own options changed.

    Args:
        options: option -> value, text or typed; `backbone` is a name.
        trains: False where a checkpoint is there: a recipe that is not published at this sigma is left out then.

    Raises:
        UsageError: an unknown method, option or backbone, a value of a wrong type, a recipe that the method
            has not, or steps beside epochs.
    """
    try:
        return _configured(name, task, sigma, options)
    except UsageError:
        if trains:
            raise
    left_out = getattr(load(name), "TRAINING_NAMES", ())
    return _configured(name, task, sigma, {key: options[key] for key in options if key not in left_out})


def _configured(name: str, task: Task, sigma: float, options: Mapping[str, Any]) -> Any:
    module: Any = load(name)
    config = module.Config(task=task, sigma=sigma)
    changes, where = dict(options), f"method {name}"
    if hasattr(module, "expand"):
        named = {key: value for key, value in changes.items() if key in module.NAMED_OPTIONS}
        config = module.expand(override(config, named, where=where))
    if "backbone" in changes:
        if not has_backbone(name):
            raise UsageError(f"method {name!r} has a network of its own; leave --backbone out for it")
        config = dataclasses.replace(config, backbone=backbone(str(changes.pop("backbone"))))
    config = override(config, changes, where=where)
    if hasattr(module, "backbone_of") and (own := module.backbone_of(config)) is not None:
        config = dataclasses.replace(config, backbone=backbone(own))
    counted = [option for option in COUNTED if option in changes]
    if counted and getattr(config, "epochs", 0) > 0:
        raise UsageError(
            f"{name}.{counted[0]} is given, but the recipe counts {config.epochs} epochs: set {name}.epochs instead, "
            f"or {name}.epochs=0 to count steps"
        )
    return config


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Return nothing for options that `configure` takes, whatever the data set.

    Raises:
        UsageError: as in `configure`.
    """
    configure(name, Task(dataset="", channels=1, image_size=28, num_classes=10), 0.5, options)


def stands_for(name: str, option: str) -> Collection[str]:
    """Return the options that a method's option stands for; none for one that stands for itself alone.

    Raises:
        UsageError: as in `load`.
    """
    return getattr(load(name), "NAMED_OPTIONS", {}).get(option, ())


def has_backbone(name: str) -> bool:
    """Return whether the method's network can be chosen."""
    return "backbone" in {field.name for field in dataclasses.fields(load(name).Config)}


def backbone(name: str) -> Backbone:
    """Return a network by name.

    "resnet" is a ResNet-14 of the CIFAR form, "cifar_resnet110" and so on are others of that form, "lenet" is for
    28x28 images, "vit" is rRCM's encoder at a fixed sigma, and any other name is timm's.

    Raises:
        UsageError: neither of these; the nearest name is given.
    """
    resnet = importlib.import_module("baselines.networks.resnet")
    if name == "resnet":
        return resnet.RESNET
    if name.startswith("cifar_resnet") and name.removeprefix("cifar_resnet").isdecimal():
        return resnet.backbone(name, int(name.removeprefix("cifar_resnet")))
    if name == "lenet":
        return importlib.import_module("baselines.networks.lenet").LENET
    if name == "vit":
        return Backbone(name=name, make=importlib.import_module("rrcm.model").make_backbone)
    timm = importlib.import_module("timm")
    known = ["resnet", "cifar_resnet110", "lenet", "vit", *timm.list_models()]
    if name not in known:
        raise UsageError(f"unknown backbone {name!r}; {nearest_hint(name, known)}")
    return Backbone(name=name, make=lambda task, sigma: _timm_model(name, task))


def networks() -> Iterator[Network]:
    """Yield our own networks on the meta device: rRCM's by name, then the baselines'."""
    for module in ("rrcm.model", "baselines.counted"):
        yield from importlib.import_module(module).networks()


def architectures(family: str, chains: Chains) -> dict[str, Architecture]:
    """Return the methods of a family, "imagenet" or "cifar10" or one of these with "-reduced" behind it, by name."""
    return {
        one.name: one
        for module in ("rrcm.architectures", "baselines.sizes")
        for one in importlib.import_module(module).architectures(family, chains)
    }


def architecture(name: str, task: Task, sigma: float, options: Mapping[str, Any]) -> Architecture:
    """Return a method with the given options, and random weights, as something to measure.

    Raises:
        UsageError: as in `configure`.
    """
    config, module = configure(name, task, sigma, options, trains=False), load(name)
    torch = importlib.import_module("torch")

    def on_cpu() -> Any:
        with torch.device("cpu"):  # whatever device is asked for: not every module can be made elsewhere
            return module.build(config, None)

    return Architecture(name=name, task=task, build=lambda make: make(name, on_cpu), batch_size=128)


def recipe_tables() -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Return (headers, rows) of the published recipes that options can name: rRCM's, then the baselines'."""
    modules = ("rrcm.presets", "baselines.noisy.recipes")
    return [table for name in modules for table in importlib.import_module(name).recipe_tables()]


def released() -> Any:
    """Return the module that recognises and checks released checkpoints of rRCM."""
    return importlib.import_module("rrcm.checkpoints")


def released_unets() -> Any:
    """Return the module that recognises and checks U-Nets of the released diffusion programs."""
    return importlib.import_module("baselines.parts.openai_import")


def readings() -> Any:
    """Return the module that knows how the baselines' networks are fed, and other ways to feed them."""
    return importlib.import_module("baselines.readings")


def diffusion() -> Any:
    """Return the module that loads denoisers of other programs."""
    return importlib.import_module("baselines.parts.external")


def is_rrcm(network: nn.Module) -> bool:
    """Return whether rRCM's classifier is in the network: fed [-1,1], and told the time of sigma."""
    kind = importlib.import_module("rrcm.heads").Classifier
    return any(isinstance(module, kind) for module in network.modules())


def _timm_model(name: str, task: Task) -> nn.Module:
    """Return pixels -> normalised -> timm's model with random weights, for the task's shape."""
    timm = importlib.import_module("timm")
    resnet = importlib.import_module("baselines.networks.resnet")
    sizes = {"in_chans": task.channels, "num_classes": task.num_classes}
    try:
        model = timm.create_model(name, **sizes, img_size=task.image_size)
    except TypeError:  # convolutional networks take images of any size, and no img_size
        model = timm.create_model(name, **sizes)
    return resnet.normalised(model, task)
