"""One run's configuration: its fields and defaults, presets (TOML), checks, JSON form and the run's name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from bench.config.levels import alike, check_alpha, check_size, noise_levels
from bench.config.names import (
    DATASETS,
    IMAGENET_RESIZE,
    Allowance,
    Geometry,
    is_plug_in,
    method_hint,
    nearest_hint,
    resolve_subset,
)
from bench.config.overrides import override
from bench.config.radii import chosen_radii, reached
from bench.config.texts import read_text
from bench.errors import UsageError, clipped, shown
from bench.types import LARGEST_RADIUS, LEAST_RADIUS, Compilation, Precision, Protocol, RunEstimation

ALL_METHODS = "all"
"""Stands in `methods` for every known method."""

PRESET_TEXTS = ("description", "cost", "expected")
"""Keys of a preset that inform its reader and change nothing."""

MOST_COUNT = 2**40
"""Samples, images or repetitions, at most: more than any machine computes."""

MOST_PRESET = 2**20
"""Bytes of a preset's file, at most."""

DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,3})?")
"""What names a device."""

NOT_IN_RUN_NAME = ("preset", "out", "download", "allow", "radii", "cost_repetitions")
"""Fields that change no record: the run's name does not depend on them."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(Protocol):
    """Everything a run depends on: the protocol, and on what it is run; these two are the place for defaults.

    Attributes:
        preset: name of the preset it came from; begins the run's name.
        dataset: a name in DATASETS.
        data_dir: folder of the data; None where the data set needs none, or lies in ./data.
        download: fetch a missing torchvision data set.
        image_size: side in pixels of the images of data set `folder`, and of `imagenet`'s centre crop; None: 224 of
            `imagenet`, and of `folder` the images' own.
        geometry: how `imagenet`'s images become square; see `bench.config.names.Geometry`.
        methods: names in the registry, or "all".
        sigmas: noise levels in pixel units, each > 0.
        limit: images to certify, counted along the subset; None: all of it.
        skip: images of the subset to leave out at its start.
        subset: "auto", "standard", "balanced" or "file:PATH".
        device: "cpu", "cuda" (the first GPU that is visible), "cuda:1" and so on, or "mps"; "auto" takes an accelerator
            where there is one.
        batch_size: noisy samples per call of a classifier; "auto" lets the run choose.
        precision: of the network's arithmetic; tf32 needs a CUDA device.
        compile: whether networks run under torch.compile.
        out: the run's folder; None: named after the run.
        zoo: folder of trained checkpoints; None: those of `bench.methods.zoo.search_path`.
        allow: what is refused otherwise; see `bench.types.Allowance`.
        cost_repetitions: repetitions of the cost measurement; 0 leaves it out.
        options: method -> its own options -> value; raw, checked by the registry against the method's Config.
    """

    estimation: RunEstimation = "fixed"
    preset: str = "mnist5k"
    dataset: str = "mnist5k"
    data_dir: Path | None = None
    download: bool = False
    image_size: int | None = None
    geometry: Geometry = "resize-256"
    methods: tuple[str, ...] = (ALL_METHODS,)
    sigmas: tuple[float, ...] = (0.25, 0.5, 1.0)
    limit: int | None = None
    skip: int = 0
    subset: str = "auto"
    device: str = "auto"
    batch_size: int | Literal["auto"] = "auto"
    precision: Precision = "float32"
    compile: Compilation = "none"
    out: Path | None = None
    zoo: Path | None = None
    allow: tuple[Allowance, ...] = ()
    cost_repetitions: int = 10
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PresetSummary:
    """A preset's name and what its file says about it: what it is, what it costs, what to expect."""

    name: str
    description: str
    cost: str
    expected: str


def load_preset(name_or_path: str) -> RunConfig:
    """Return the configuration of a preset; keys it leaves out keep RunConfig's defaults.

    Args:
        name_or_path: a name that `list_presets` gives, or a path that ends in .toml.

    Raises:
        UsageError: an unknown name, an unreadable file, or a key or value that RunConfig does not take.
    """
    table = _read_preset(_preset_file(name_or_path))
    where = f"preset {name_or_path}"
    for key in PRESET_TEXTS:
        if not isinstance(table.pop(key, ""), str):
            raise UsageError(f"{where}: {key} must be text")
    if "preset" in table:
        raise UsageError(f"{where}: unknown key 'preset'; a preset is named by its file, remove the key")
    if "sigmas" in table:
        table["sigmas"] = noise_levels(table["sigmas"])
    return override(RunConfig(preset=Path(name_or_path).stem), table, where=where)


def with_radii(config: RunConfig, preset: str | None) -> RunConfig:
    """Return the configuration with radii for its sigmas, n and alpha, for a command that names no radii.

    Those of a preset are for the preset's own sigmas, n and alpha, and stay as long as the largest can be reached.
    Sequential estimation keeps its radii: its certificates, and the run's name, rest on them.

    Args:
        config: validated.
        preset: name or path of the preset that it came from; None: none.
    """
    if config.estimation == "sequential":
        return config
    if preset is not None and "radii" in _read_preset(_preset_file(preset)):
        own = load_preset(preset)
        is_own = (own.sigmas, own.n, own.alpha) == (config.sigmas, config.n, config.alpha)
        if is_own or config.radii[-1] <= max(reached(config, sigma) for sigma in config.sigmas):
            return config
    return dataclasses.replace(config, radii=chosen_radii(config, config.sigmas))


def list_presets() -> tuple[PresetSummary, ...]:
    """Return the presets that come with the program, by name."""
    summaries = []
    for name, file in _shipped_presets().items():
        table = _read_preset(file)
        summaries.append(PresetSummary(name=name, **{key: table.get(key, "") for key in PRESET_TEXTS}))
    return tuple(summaries)


def validate(config: RunConfig, known_methods: Collection[str]) -> RunConfig:
    """Return the configuration with methods "all" and subset "auto" spelled out, every value being in range.

    Args:
        config: from a preset and overrides, or made in Python.
        known_methods: the registry's names, in its order; a name "module:function" need not be one of them.

    Raises:
        UsageError: the first field whose type or value is wrong, with what was got and what is allowed.
    """
    values = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    config = override(config, values)
    _check_numbers(config)
    if not DEVICE.fullmatch(config.device):
        raise UsageError(
            f"device is {config.device!r}, expected auto, cpu, cuda, cuda:0, cuda:1, ..., or mps"
        )
    _check_known("dataset", [config.dataset], DATASETS)
    _check_data_options(config)
    methods = tuple(known_methods) if config.methods == (ALL_METHODS,) else config.methods
    _check_list("methods", methods)
    named = [name for name in (*methods, *config.options) if not is_plug_in(name)]
    _check_known("method", named, known_methods)
    return dataclasses.replace(config, methods=methods, subset=resolve_subset(config.dataset, config.subset))


def to_json(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as JSON values (paths as text, tuples as lists); `override` reads them."""
    names = sorted(
        vars(config), key=lambda name: name in vars(config.protocol)
    )  # the protocol's behind the others
    return {name: _json_value(getattr(config, name)) for name in names}


def run_name(config: RunConfig) -> str:
    """Return "<preset>-<8 hex digits>", equal for two configurations exactly when their records are.

    The digits hash all fields but NOT_IN_RUN_NAME; radii count where sequential estimation certifies them. A
    named data set is the same wherever it lies, so that `data_dir` counts for the data set `folder` only.

    Args:
        config: a validated configuration.
    """
    identity = {key: value for key, value in to_json(config).items() if key not in NOT_IN_RUN_NAME}
    if config.dataset != "folder":
        del identity["data_dir"]
    if config.estimation == "sequential":
        identity["radii"] = list(config.radii)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{config.preset}-{digest[:8]}"


def _json_value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    return value


def _shipped_presets() -> dict[str, Traversable]:
    folder = resources.files("bench.config") / "presets"
    files = {
        file.name.removesuffix(".toml"): file for file in folder.iterdir() if file.name.endswith(".toml")
    }
    return dict(sorted(files.items()))


def _preset_file(name_or_path: str) -> Traversable:
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    shipped = _shipped_presets()
    if name_or_path not in shipped:
        raise UsageError(
            f"unknown preset {name_or_path!r}; {nearest_hint(name_or_path, shipped)} "
            "(a path must end in .toml)"
        )
    return shipped[name_or_path]


def _read_preset(file: Traversable) -> dict[str, Any]:
    try:
        text = read_text(file, MOST_PRESET) if isinstance(file, Path) else file.read_text(encoding="utf-8")
        return tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"preset {file} cannot be read ({error}); name a TOML file") from error
    except RecursionError as error:
        raise UsageError(f"preset {file} is nested too deeply; name a preset's TOML file") from error
    except ValueError as error:  # what is no TOML, and a number of more digits than Python reads
        raise UsageError(f"preset {file} is not TOML: {clipped(str(error), 200)}") from error


def _check_numbers(config: RunConfig) -> None:
    for name, least in (("n", 1), ("n0", 1), ("skip", 0), ("cost_repetitions", 0)):
        _check_range(name, getattr(config, name), least)
    for name in ("limit", "batch_size", "image_size"):
        if isinstance(value := getattr(config, name), int):
            _check_range(name, value, 1)
    check_alpha(config.alpha)
    if not 0 <= config.seed < 2**63:
        raise UsageError(f"seed is {shown(config.seed)}, expected 0 <= seed < 2**63")
    _check_list("sigmas", config.sigmas)
    if min(config.sigmas) <= 0.0:
        raise UsageError(f"sigmas holds {min(config.sigmas):g}, expected each > 0")
    check_size(max(config.sigmas))
    if twice := alike(config.sigmas):
        raise UsageError(
            f"sigmas holds {twice[0]!r} and {twice[1]!r}, which are written alike: leave one out"
        )
    _check_list("radii", config.radii)
    if config.radii[-1] > LARGEST_RADIUS:
        raise UsageError(f"radii holds {config.radii[-1]:g}, expected each at most {LARGEST_RADIUS:g}")
    if config.radii[0] < 0.0 or list(config.radii) != sorted(config.radii):
        raise UsageError(f"radii is {_join(config.radii)}, expected ascending values, each >= 0")
    if tiny := [one for one in config.radii if 0 < one < LEAST_RADIUS]:
        raise UsageError(f"radii holds {tiny[0]:g}, expected each 0, or at least {LEAST_RADIUS:g}")


def _check_data_options(config: RunConfig) -> None:
    """Refuse options that the data set would ignore: the run would not be on the data its user means."""
    if config.image_size is not None and config.dataset not in ("folder", "imagenet"):
        raise UsageError(
            f"image_size is {config.image_size}, but {config.dataset} has its own; only 'folder' and 'imagenet' take it"
        )
    if config.dataset == "imagenet" and (config.image_size or 0) > IMAGENET_RESIZE:
        raise UsageError(
            f"image_size is {config.image_size}, expected at most {IMAGENET_RESIZE}: "
            "imagenet is cropped from that short side"
        )
    if config.geometry != "resize-256" and config.dataset != "imagenet":
        raise UsageError(f"geometry is {config.geometry}, but only 'imagenet' takes it: leave it out")
    if config.data_dir is not None and config.dataset == "mnist5k":
        raise UsageError(
            f"data_dir is {config.data_dir}, but mnist5k has no folder; name a data set with --dataset"
        )


def _check_range(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"{name} is {shown(value)}, expected {name} >= {least}")
    if value > MOST_COUNT:
        raise UsageError(f"{name} is {shown(value)}, expected {name} <= {MOST_COUNT}")


def _check_list(name: str, values: Sequence[object]) -> None:
    if not values:
        raise UsageError(f"{name} is empty, expected one value or more")
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise UsageError(f"{name} holds {repeated[0]} more than once, expected different values")


def _check_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            hint = method_hint if kind == "method" else nearest_hint
            raise UsageError(f"unknown {kind} {name!r}; {hint(name, known)}")


def _join(values: Iterable[object]) -> str:
    return ",".join(map(str, values))
