"""A run's configuration: presets, ranges, JSON and the run's name."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.config.names import DATASETS
from bench.config.run import (
    RunConfig,
    list_presets,
    load_preset,
    override,
    run_name,
    to_json,
    validate,
)
from bench.errors import UsageError
from bench.methods import registry

METHODS = ("rrcm", "gaussian", "consistency", "dds")
PRESETS = (
    "cifar10",
    "cifar10-families",
    "cifar10-resnet20",
    "fashion-encoder",
    "fashion-mnist",
    "imagenet",
    "mnist5k",
    "mnist5k-full",
    "smoke",
)


def test_torch_and_numpy_stay_unloaded() -> None:
    code = "import sys, bench.config.run; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestPresets:
    def test_each_says_what_it_is_costs_and_shows(self) -> None:
        summaries = list_presets()
        assert tuple(summary.name for summary in summaries) == PRESETS
        for summary in summaries:
            assert all(dataclasses.astuple(summary)), summary.name

    @pytest.mark.parametrize("name", PRESETS)
    def test_each_is_valid_and_carries_its_name(self, name: str) -> None:
        config = validate(load_preset(name), tuple(registry.methods()))
        assert config.preset == name
        assert set(config.methods) <= set(registry.methods())

    def test_mnist5k_is_the_issue_s_main_job(self) -> None:
        config = load_preset("mnist5k")
        assert (config.dataset, config.limit, config.n0, config.n, config.alpha) == (
            "mnist5k",
            40,
            100,
            1000,
            0.001,
        )
        assert config.sigmas == (0.25, 0.5, 1.0)
        assert config.radii == (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)

    def test_full_differs_in_images_methods_and_estimation_only(self) -> None:
        full, default = load_preset("mnist5k-full"), load_preset("mnist5k")
        others = ("consistency", "smoothadv", "macer", "dds", "consistency-model", "densepure")
        methods = ("rrcm", "gaussian", *others)
        assert full == dataclasses.replace(
            default, preset="mnist5k-full", limit=500, methods=methods, estimation="sequential"
        )

    def test_published_protocols(self) -> None:
        cifar, imagenet = load_preset("cifar10"), load_preset("imagenet")
        assert (cifar.subset, cifar.n, cifar.limit, cifar.radii[-1]) == ("standard", 100_000, None, 1.5)
        assert (imagenet.subset, imagenet.n, imagenet.limit, imagenet.radii[-1]) == (
            "standard",
            10_000,
            None,
            3.0,
        )

    def test_smoke_is_tiny(self) -> None:
        config = load_preset("smoke")
        assert (config.limit, config.n) == (2, 100)

    def test_unknown_name_gives_the_nearest(self) -> None:
        with pytest.raises(
            UsageError, match=r"unknown preset 'mnist-5k'; did you mean 'mnist5k'\? \(a path must"
        ):
            load_preset("mnist-5k")


class TestPresetFile:
    def load(self, folder: Path, text: str) -> RunConfig:
        path = folder / "mine.toml"
        path.write_text(text)
        return load_preset(str(path))

    def test_is_named_by_its_file_and_keeps_defaults(self, tmp_path: Path) -> None:
        config = self.load(tmp_path, 'description = "x"\nn = 7\nout = "runs"\n[options.rrcm]\ndepth = 4\n')
        assert config == RunConfig(preset="mine", n=7, out=Path("runs"), options={"rrcm": {"depth": 4}})

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("sigma = [0.5]", "unknown key 'sigma'; did you mean 'sigmas'?"),
            ("n = 1000.0", "n is 1000.0, expected an integer"),
            ("sigmas = 0.5", "sigmas is 0.5, expected a list, each a finite number"),
            ("cost = 3", "cost must be text"),
            ('preset = "other"', "unknown key 'preset'; a preset is named by its file, remove the key"),
            ("[options]\nrrcm = 1", "options is {'rrcm': 1}, expected a table"),
        ],
    )
    def test_is_strict(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(UsageError) as caught:
            self.load(tmp_path, text)
        assert str(caught.value) == f"preset {tmp_path / 'mine.toml'}: {message}"

    def test_broken_toml_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"mine.toml is not TOML: .*line 2"):
            self.load(tmp_path, "n = 1\nn0 =\n")

    def test_unreadable_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"absent.toml cannot be read .*; name a TOML file"):
            load_preset(str(tmp_path / "absent.toml"))
        (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(UsageError, match=r"binary.toml cannot be read"):
            load_preset(str(tmp_path / "binary.toml"))


class TestValidate:
    def test_spells_out_all_methods_and_the_subset(self) -> None:
        config = validate(RunConfig(), METHODS)
        assert set(config.methods) <= set(registry.methods())
        assert config.subset == "balanced"
        assert validate(RunConfig(dataset="cifar10"), METHODS).subset == "standard"

    def test_keeps_the_order_of_the_methods_asked_for(self) -> None:
        assert validate(RunConfig(methods=("dds", "rrcm")), METHODS).methods == ("dds", "rrcm")

    def test_changes_nothing_when_repeated(self) -> None:
        config = validate(load_preset("mnist5k"), METHODS)
        assert validate(config, METHODS) == config

    @pytest.mark.parametrize(
        "changes",
        [
            {"n": 1, "n0": 1, "limit": 1, "skip": 0, "seed": 0, "batch_size": 1, "cost_repetitions": 0},
            {"limit": None, "seed": 2**63 - 1, "alpha": 1e-9, "radii": (0.0,)},
            {"dataset": "folder", "image_size": 1, "data_dir": Path("d")},
            {"dataset": "imagenet", "image_size": 256},
            {"options": {"gaussian": {"depth": 4}}, "methods": ("rrcm",)},
        ],
    )
    def test_accepts_the_ends_of_each_range(self, changes: dict[str, Any]) -> None:
        validate(RunConfig(**changes), METHODS)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n": 0}, "n is 0, expected n >= 1"),
            ({"n0": 0}, "n0 is 0, expected n0 >= 1"),
            ({"limit": 0}, "limit is 0, expected limit >= 1"),
            ({"skip": -1}, "skip is -1, expected skip >= 0"),
            ({"batch_size": 0}, "batch_size is 0, expected batch_size >= 1"),
            ({"cost_repetitions": -1}, "cost_repetitions is -1, expected cost_repetitions >= 0"),
            ({"dataset": "folder", "image_size": 0}, "image_size is 0, expected image_size >= 1"),
            ({"alpha": 0.0}, "alpha is 0, expected 0 < alpha < 1"),
            ({"alpha": 1.0}, "alpha is 1, expected 0 < alpha < 1"),
            ({"device": "gpu"}, "device is 'gpu', expected auto, cpu, cuda, cuda:0, cuda:1, ..., or mps"),
            (
                {"device": "cuda:x"},
                "device is 'cuda:x', expected auto, cpu, cuda, cuda:0, cuda:1, ..., or mps",
            ),
            ({"seed": -1}, "seed is -1, expected 0 <= seed < 2**63"),
            ({"seed": 2**63}, f"seed is {2**63}, expected 0 <= seed < 2**63"),
            ({"sigmas": ()}, "sigmas is empty, expected one value or more"),
            ({"sigmas": (0.5, 0.0)}, "sigmas holds 0, expected each > 0"),
            ({"sigmas": (0.5, 0.5)}, "sigmas holds 0.5 more than once, expected different values"),
            ({"radii": ()}, "radii is empty, expected one value or more"),
            ({"radii": (-0.5, 1.0)}, "radii is -0.5,1.0, expected ascending values, each >= 0"),
            ({"radii": (1.0, 0.5)}, "radii is 1.0,0.5, expected ascending values, each >= 0"),
            ({"radii": (0.5, 0.5)}, "radii holds 0.5 more than once, expected different values"),
            ({"methods": ()}, "methods is empty, expected one value or more"),
            ({"methods": ("dds", "dds")}, "methods holds dds more than once, expected different values"),
            ({"methods": ("gausian",)}, "unknown method 'gausian'; did you mean 'gaussian'?"),
            ({"methods": ("xyz",)}, "unknown method 'xyz'; valid: rrcm, gaussian, consistency, dds"),
            ({"options": {"ddss": {}}}, "unknown method 'ddss'; did you mean 'dds'?"),
            ({"dataset": "cifar-10"}, "unknown dataset 'cifar-10'; did you mean 'cifar10'?"),
            ({"dataset": "q"}, f"unknown dataset 'q'; valid: {', '.join(DATASETS)}"),
            ({"subset": "standart"}, "unknown subset 'standart'; did you mean 'standard'?"),
            (
                {"image_size": 32},
                "image_size is 32, but mnist5k has its own; only 'folder' and 'imagenet' take it",
            ),
            (
                {"dataset": "imagenet", "image_size": 257},
                "image_size is 257, expected at most 256: imagenet is cropped from that short side",
            ),
            (
                {"data_dir": Path("d")},
                "data_dir is d, but mnist5k has no folder; name a data set with --dataset",
            ),
            ({"precision": "float16"}, "precision is 'float16', expected one of float32, tf32, bfloat16"),
            ({"n": 10.5}, "n is 10.5, expected an integer"),
            ({"sigmas": (float("inf"),)}, "sigmas is (inf,), expected a list, each a finite number"),
        ],
    )
    def test_names_field_value_and_range(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError) as caught:
            validate(RunConfig(**changes), METHODS)
        assert str(caught.value) == message


class TestJson:
    def test_survives_the_round_trip(self) -> None:
        config = validate(load_preset("mnist5k"), METHODS)
        config = override(config, {"out": "a/b", "batch_size": "64", "options": {"rrcm": {"depth": 4}}})
        assert override(RunConfig(), json.loads(json.dumps(to_json(config)))) == config

    def test_names_every_field(self) -> None:
        assert set(to_json(RunConfig())) == {item.name for item in dataclasses.fields(RunConfig)}

    def test_options_with_lists_and_paths_become_json_values(self) -> None:
        config = RunConfig(options={"rrcm": {"crop": (0.1, 1.0), "file": Path("a")}})
        assert to_json(config)["options"] == {"rrcm": {"crop": [0.1, 1.0], "file": "a"}}


class TestRunName:
    def test_is_preset_and_eight_hex_digits(self) -> None:
        preset, _, digits = run_name(load_preset("mnist5k-full")).rpartition("-")
        assert preset == "mnist5k-full"
        assert len(digits) == 8
        assert int(digits, 16) >= 0

    @pytest.mark.parametrize(
        "changes",
        [
            {"out": Path("x")},
            {"download": True},
            {"radii": (0.0, 9.0)},
            {"cost_repetitions": 0},
            {"data_dir": Path("x")},
        ],
    )
    def test_ignores_what_changes_no_record(self, changes: dict[str, Any]) -> None:
        config = RunConfig(dataset="cifar10")
        assert run_name(dataclasses.replace(config, **changes)) == run_name(config)

    def test_changes_with_the_radii_that_sequential_estimation_settles(self) -> None:
        config = RunConfig(estimation="sequential")
        assert run_name(dataclasses.replace(config, radii=(0.0, 9.0))) != run_name(config)

    @pytest.mark.parametrize(
        "changes",
        [
            {"methods": ("dds",)},
            {"sigmas": (0.5,)},
            {"n0": 10},
            {"n": 10},
            {"alpha": 0.01},
            {"estimation": "skip-wrong"},
            {"bound": "randomised"},
            {"limit": 5},
            {"skip": 5},
            {"subset": "balanced"},
            {"seed": 1},
            {"device": "cpu"},
            {"batch_size": 8},
            {"precision": "bfloat16"},
            {"compile": "default"},
            {"zoo": Path("z")},
            {"dataset": "mnist"},
            {"image_size": 32},
            {"data_dir": Path("x")},
            {"options": {"rrcm": {"depth": 4}}},
        ],
    )
    def test_changes_with_whatever_changes_records(self, changes: dict[str, Any]) -> None:
        config = RunConfig(dataset="folder")
        assert run_name(dataclasses.replace(config, **changes)) != run_name(config)
