"""Options that commands share, and the configuration they resolve to."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from bench.commands.terminal.help import completes, dataset_names, method_names
from bench.commands.terminal.kinds import Real, Whole
from bench.config.levels import noise_levels
from bench.config.names import DATASETS, is_plug_in
from bench.device.host import available_memory, cores
from bench.errors import UnpublishedError, UsageError, plain

if TYPE_CHECKING:
    from bench.config.run import RunConfig
    from bench.runs.engines.base import Engine

IMAGENET_DIR = "IMAGENET_DIR"
"""The environment variable that names ImageNet's folder where --data-dir is not given."""


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def shared_options(*options: Decorator) -> Decorator:
    """Return a decorator that gives a command these options, in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _choice(name: str, values: str, text: str, **settings: Any) -> Decorator:
    """Return an option whose values "a|b|c" are shown and completed; the configuration checks them."""
    return click.option(name, metavar=values, help=text, shell_complete=completes(values), **settings)


def _folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="dir")]


METHODS_OPTION = click.option(
    "--methods",
    metavar="A,B,...",
    help="Methods to compare: names of `bench list methods`, 'all', or MODULE:FUNCTION for a model of your own.",
    shell_complete=completes(method_names),
)

QUIET_OPTION = click.option(
    "-q", "--quiet", "is_quiet", is_flag=True, help="Print results only: no progress, no notes."
)


DATA_OPTIONS = shared_options(
    click.option(
        "--dataset",
        metavar="NAME",
        help=f"Data set: {', '.join(DATASETS)}.",
        shell_complete=completes(dataset_names),
    ),
    click.option(
        "--data-dir",
        metavar="DIR",
        help="Folder of the data set, or hf:OWNER/NAME (Hugging Face hub). For ImageNet IMAGENET_DIR may name it.",
        shell_complete=_folders,
    ),
    click.option("--download", is_flag=True, default=None, help="Download a missing data set."),
    click.option(
        "--image-size",
        metavar="PIXELS",
        help="Side of the images of 'imagenet' (default: 224) or 'folder' (default: their own size).",
    ),
    _choice("--geometry", "resize-256|short-side", "How ImageNet's images are cropped to a square."),
    click.option("--seed", metavar="INT", help="Seed of all noise and of training."),
    click.option("--device", metavar="auto|cpu|cuda[:N]|mps", help="Compute device."),
    click.option(
        "--zoo",
        metavar="DIR",
        help="Folder of checkpoints, DIR/<dataset>/<file>. Default: ./zoo, then the checkpoints of the package.",
        shell_complete=_folders,
    ),
    click.option(
        "--backbone",
        metavar="NAME",
        help="Network of every method but rrcm: resnet, lenet, vit, cifar_resnet20 (or another depth) or of timm.",
    ),
    click.option(
        "--set",
        "changes",
        metavar="METHOD.OPTION=VALUE",
        multiple=True,
        help="Option of a method; repeatable. `bench list options METHOD` lists them.",
    ),
)

PROTOCOL_OPTIONS = shared_options(
    click.option("--n", "--N", "n", metavar="INT", help="Samples that estimate the class probability."),
    click.option("--n0", "--N0", "n0", metavar="INT", help="Samples that select the class."),
    click.option("--alpha", metavar="FLOAT", help="Failure probability of each certificate, at most."),
    _choice(
        "--estimation",
        "fixed|skip-wrong|sequential",
        "How samples are spent. sequential stops early and certifies the table's radii only: accuracy at other radii "
        "and ACR become lower bounds.",
    ),
    _choice("--bound", "clopper-pearson|randomised", "Lower confidence bound of the class probability."),
    click.option(
        "--batch-size", "--batch", "--batch_size", metavar="auto|INT", help="Samples per call of the model."
    ),
    _choice("--precision", "float32|tf32|bfloat16", "Arithmetic of the networks."),
    _choice("--compile", "none|default|cuda-graphs", "Run networks under torch.compile."),
)


ALLOW_OPTION = _choice("--allow", "unfinished", "Certify checkpoints whose training was stopped early.")


def say(text: object, *, err: bool = False) -> None:
    """Print a line in which nothing is left that a terminal would obey, whatever files it was made from."""
    click.echo(plain(str(text)), err=err)


ENGINE_OPTIONS = shared_options(
    click.option(
        "--engine",
        type=click.Choice(["auto", "local", "processes", "ray"]),
        default="auto",
        show_default=True,
        help="Compute in this process, in several processes or on a Ray cluster; auto: in several where that pays.",
    ),
    click.option(
        "--workers",
        type=Whole(1),
        metavar="INT",
        help="Number of processes (default: one per core or GPU) or Ray workers (default: as many as fit now).",
    ),
    click.option("--address", metavar="auto|HOST:PORT", help="Running Ray cluster. Default: start one here."),
    click.option("--cpus-per-worker", type=Real(0), help="CPUs per Ray worker. Default: 1."),
    click.option("--gpus-per-worker", type=Real(0), help="GPUs per Ray worker. Default: 1 on a GPU, else 0."),
)


ENGINE_NAMES = ("engine", "workers", "address", "cpus_per_worker", "gpus_per_worker")
"""Parameters of a command that ENGINE_OPTIONS adds."""


def check_engine(
    config: RunConfig,
    *,
    engine: str,
    workers: int | None,
    address: str | None,
    cpus_per_worker: float | None,
    gpus_per_worker: float | None,
) -> None:
    """Return nothing where ENGINE_OPTIONS fit together.

    Raises:
        UsageError: options of another engine, or workers that take nothing.
    """
    if workers is not None and engine == "local":
        raise UsageError(f"--workers is {workers}, but --engine is local: only processes and ray take it")
    if address is not None and engine != "ray":
        raise UsageError(f"--address is {address}, but --engine is {engine}: only ray takes it")
    for option, value in (("cpus", cpus_per_worker), ("gpus", gpus_per_worker)):
        if value is not None and engine != "ray":
            raise UsageError(
                f"--{option}-per-worker is {value:g}, but --engine is {engine}: only ray takes it"
            )
    if engine == "ray" and ":" in config.device:
        raise UsageError(f"--device is {config.device}, but Ray gives each worker its GPUs: --device cuda")
    if engine == "ray" and cpus_per_worker == gpus_per_worker == 0:
        raise UsageError("--cpus-per-worker and --gpus-per-worker are both 0, expected one of them above 0")


def make_engine(config: RunConfig, **options: Any) -> Engine:
    """Return the engine that ENGINE_OPTIONS name.

    Args:
        options: of the names ENGINE_NAMES; see `check_engine`.

    Raises:
        UsageError: as `check_engine`, also for what a worker takes by default.
    """
    from bench.runs.engines.base import LocalEngine

    check_engine(config, **options)
    engine, workers, own = options.pop("engine"), options["workers"], cores()
    if engine == "auto" and workers is None:
        return _automatic(config, own)
    if engine == "local":
        return LocalEngine()
    if engine in ("auto", "processes"):
        from bench.runs.engines.processes import ProcessEngine

        gpus = _gpus(config)
        count = workers or len(gpus) or own
        return ProcessEngine(workers=count, threads=max(1, own // count), gpus=gpus)
    from bench.device.hardware import resolve_device
    from bench.runs.engines.ray import RayEngine

    if options["cpus_per_worker"] is None:
        options["cpus_per_worker"] = 1.0
    if options["gpus_per_worker"] is None:
        options["gpus_per_worker"] = 1.0 if resolve_device(config.device).type == "cuda" else 0.0
        check_engine(config, engine=engine, **options)
    return RayEngine(**options)


LONG_RUN, WORKER_BYTES = 2 * 10**5, 1.2 * 2**30
"""Samples from which a run pays for the start of processes, and the memory that each may take."""


def _automatic(config: RunConfig, processors: int) -> Engine:
    """Return one worker for each GPU where there are several, or for each core of a long run, as far as memory goes.

    A core to itself, without threads, makes the same records in less time than all cores together.
    """
    from bench.device.hardware import resolve_device
    from bench.runs.engines.base import LocalEngine
    from bench.runs.engines.processes import ProcessEngine

    kind = resolve_device(config.device).type
    gpus = _gpus(config) if kind == "cuda" else ()
    if len(gpus) > 1:
        return ProcessEngine(workers=len(gpus), threads=max(1, processors // len(gpus)), gpus=gpus)
    certificates = len(config.methods) * len(config.sigmas) * (config.limit or 500)
    workers = min(processors, int(available_memory() // WORKER_BYTES))
    if kind != "cpu" or workers < 2 or certificates * (config.n0 + config.n) < LONG_RUN:
        return LocalEngine()
    return ProcessEngine(workers=workers, threads=1)


def _gpus(config: RunConfig) -> tuple[str, ...]:
    """Return the names of the GPUs that compute, as CUDA_VISIBLE_DEVICES has them: the one that is chosen, or all."""
    from bench.device.hardware import resolve_device, visible_gpus

    device = resolve_device(config.device)
    if device.type != "cuda":
        return ()
    names = visible_gpus()
    return names if device.index is None else (names[device.index],)


def command_line() -> str:
    """Return the command as the user typed it."""
    return shlex.join(["bench", *sys.argv[1:]])


def preset_of(dataset: str | None) -> str | None:
    """Return the preset that holds the sizes of a data set's networks: the one of its name, or None."""
    from bench.config.run import list_presets

    name = dataset or "mnist5k"
    return name if name in {preset.name for preset in list_presets()} else None


def resolve_one(method: str, sigma: str, given: dict[str, Any]) -> RunConfig:
    """Return the validated configuration of one method at one noise level, with the options given.

    Raises:
        UsageError: several methods or noise levels, or any option that `resolve` refuses.
    """
    config = resolve(preset_of(given["dataset"]), {**given, "methods": method, "sigmas": sigma})
    for name, values in (("method", config.methods), ("sigma", config.sigmas)):
        if len(values) > 1:
            listed = ",".join(map(str, values))
            raise UsageError(f"--{name} is {listed}, expected one: repeat the command for each")
    return config


def resolve(preset: str | None, given: dict[str, Any]) -> RunConfig:
    """Return the validated configuration of a preset (None: RunConfig's defaults) and the options given.

    Raises:
        UsageError: an option or preset that is wrong, or a preset that names code which no option given names.
    """
    from bench.config.code import check_typed, named_code, typed_code
    from bench.config.methods import methods
    from bench.config.overrides import override
    from bench.config.run import RunConfig, load_preset, validate, with_radii
    from bench.methods import registry

    config = RunConfig() if preset is None else load_preset(preset)
    changes = {
        key: value for key, value in given.items() if value is not None and key not in ("changes", "backbone")
    }
    if "sigmas" in changes:
        changes["sigmas"] = noise_levels(changes["sigmas"])
    if "dataset" in changes and changes["dataset"] != config.dataset:
        config = replace(config, options={})  # a preset's options are for its own data set
    config = override(config, changes, where="options")
    typed = typed_code(changes.get("methods"), given.get("changes") or ())
    check_typed(named_code(config.methods, config.options), typed, f"preset {preset}")
    if config.dataset == "imagenet" and config.data_dir is None and os.environ.get(IMAGENET_DIR):
        config = replace(config, data_dir=Path(os.environ[IMAGENET_DIR]))
    config = validate(config, methods())
    config = config if "radii" in changes else with_radii(config, preset)
    options = _method_options(config, given.get("backbone"), given.get("changes", ()))
    config = validate(replace(config, options=options), methods())
    for name in filter(is_plug_in, config.methods):
        registry.load(name)  # a function of the user's own is found before anything else is done
    checked = {}
    for name, values in options.items():
        try:
            checked[name] = registry.checked_options(name, values, config.sigmas)
        except UnpublishedError:  # at these noise levels
            if name in config.methods:
                raise
            checked[name] = values
    return replace(config, options=checked)


def _method_options(
    config: RunConfig, backbone: str | None, changes: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return the options of each method: the preset's, then --backbone where it applies, then each --set.

    A --set that stands for several options, such as a recipe, drops the preset's own choice of these.
    """
    from bench.methods.registry import has_backbone

    options = {name: dict(values) for name, values in config.options.items()}
    if backbone is not None:
        chosen = [name for name in config.methods if has_backbone(name)]
        if not chosen:
            raise UsageError(
                f"--backbone fits none of {', '.join(config.methods)}: they have their own networks"
            )
        for name in chosen:
            options.setdefault(name, {})["backbone"] = backbone
    for method, values in given_singly(changes).items():
        options[method] = _without_replaced(method, options.get(method, {}), values) | values
    return options


def given_singly(changes: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return method -> option -> text of each METHOD.OPTION=VALUE.

    Raises:
        UsageError: one of them is not of that form.
    """
    given: dict[str, dict[str, str]] = {}
    for change in changes:
        target, equals, value = change.partition("=")
        module, colon, rest = target.rpartition(
            ":"
        )  # of "package.module:function.option" the last dot counts
        name, dot, option = rest.partition(".")
        method = f"{module}{colon}{name}"
        if not (equals and dot):
            raise UsageError(f"--set is {change!r}, expected METHOD.OPTION=VALUE, such as rrcm.depth=6")
        given.setdefault(method, {})[option] = value
    return given


def _without_replaced(method: str, chosen: dict[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Return the options chosen before, without those that an option among `given` stands for."""
    from bench.methods.registry import stands_for

    replaced = {name for option in given for name in stands_for(method, option)}
    return {name: value for name, value in chosen.items() if name not in replaced}
