"""A name in a file is data: code that a file names is not imported unless the user types its name in the command."""

import shutil
import sys

import pytest
import torch

from bench.config.code import named_code, typed_code
from bench.training.checkpoints import save_checkpoint
from tests.support.tiny import arguments, bench

pytestmark = pytest.mark.usefixtures("undrawn")

NAME = "planted_module:make"
SOURCE = """
import pathlib
from torch import nn

pathlib.Path(__file__).with_suffix(".ran").touch()


def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
"""
IN_A_FILE = "and a name in a file is not run: read that code, then add "


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """The file that a module writes when it is imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "planted_module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "planted_module", raising=False)
    return folder / "planted_module.ran"


@pytest.fixture
def planted(trained, tmp_path):
    """A run whose records name the module in place of a method."""
    folder = shutil.copytree(trained / "run", tmp_path / "run")
    file = folder / "records.jsonl"
    lines = file.read_text().replace('"gaussian"', f'"{NAME}"').splitlines(keepends=True)
    file.write_text("".join(line for line in lines if '"kind":"cost"' not in line))
    return folder


def refused(capsys, what):
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bench: ")]
    assert f"names code, {NAME}, {IN_A_FILE}{what}" in line
    return True


def data_of(root):
    return ["--dataset", "folder", "--data-dir", root / "data", "--image-size", 8, "--device", "cpu"]


@pytest.mark.parametrize("command", [("replay", "--index", 6), ("audit", "--images", 1)])
def test_a_function_that_records_name_is_called_only_if_it_is_typed(
    planted, marker, monkeypatch, capsys, command
):
    name, *options = command
    assert bench(monkeypatch, name, planted, *options) == 2
    assert refused(capsys, f"--methods {NAME} to run it")
    assert not marker.exists()
    bench(monkeypatch, name, planted, *options, "--methods", NAME)
    assert marker.exists()


@pytest.mark.parametrize("command", [("replay", "--index", 6), ("audit", "--images", 1)])
def test_a_part_that_records_name_is_called_only_if_it_is_typed(
    trained, tmp_path, marker, monkeypatch, capsys, command
):
    folder, (name, *options) = shutil.copytree(trained / "run", tmp_path / "run"), command
    file = folder / "records.jsonl"
    file.write_text(file.read_text().replace('"dds":{', f'"dds":{{"classifier":"{NAME}",', 1))
    assert bench(monkeypatch, name, folder, *options) == 2
    assert refused(capsys, f"--set dds.classifier={NAME} to run it")
    assert not marker.exists()
    bench(monkeypatch, name, folder, *options, "--methods", "rrcm")
    assert not marker.exists()
    bench(monkeypatch, name, folder, *options, "--set", f"dds.classifier={NAME}")
    assert marker.exists()


def test_a_run_that_is_continued_calls_no_function_of_its_records(
    trained, planted, marker, monkeypatch, capsys
):
    options = arguments(trained, "--methods", "rrcm", "--out", planted, "--limit", 3)
    assert bench(monkeypatch, "run", *options) == 2
    assert refused(capsys, f"--methods {NAME} (with the others), or --cost-repetitions 0, to run it")
    assert not marker.exists()
    assert bench(monkeypatch, "run", *options, "--cost-repetitions", 0) == 0
    assert not marker.exists()


@pytest.mark.parametrize("command", [("report",), ("status",), ("compare",)])
def test_what_only_reads_records_imports_nothing(planted, marker, monkeypatch, command):
    assert bench(monkeypatch, *command, planted) == 0
    assert not marker.exists()


@pytest.mark.parametrize(
    ("config", "typed"),
    [
        ({"method": NAME}, ("--method", NAME)),
        ({"method": "dds", "classifier": NAME}, ("--set", f"dds.classifier={NAME}")),
        ({"method": "dds", "denoiser": NAME}, ("--set", f"dds.denoiser={NAME}")),
    ],
)
def test_a_function_that_a_checkpoint_names_is_called_only_if_it_is_typed(
    trained, tmp_path, marker, monkeypatch, capsys, config, typed
):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {"weight": torch.zeros(1)}, config=config, training={})
    doctor = ("doctor", "--checkpoint", path, *data_of(trained))
    assert bench(monkeypatch, *doctor) == 2
    assert refused(capsys, f"{' '.join(typed)} to run it")
    assert not marker.exists()
    bench(monkeypatch, *doctor, *typed)
    assert "names code" not in capsys.readouterr().err  # weights that do not fit end it before a part is made
    assert marker.exists() == (config["method"] == NAME)


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        (f'methods = ["{NAME}"]', ("--methods", NAME)),
        (f'methods = ["gaussian"]\n[options."{NAME}"]', ("--methods", NAME)),
        (
            f'methods = ["dds"]\n[options.dds]\nclassifier = "{NAME}"\n',
            ("--set", f"dds.classifier={NAME}"),
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan", "cost"])
def test_a_function_that_a_preset_names_is_called_only_if_it_is_typed(
    trained, tmp_path, marker, monkeypatch, capsys, command, text, typed
):
    preset = tmp_path / "preset.toml"
    preset.write_text(f'dataset = "folder"\nimage_size = 8\n{text}\n')
    options = ["--data-dir", trained / "data", "--device", "cpu"]
    options += ["--out", tmp_path / "out"] if command != "plan" else []
    assert bench(monkeypatch, command, "--preset", preset, *options) == 2
    assert refused(capsys, f"{' '.join(typed)} to run it")
    assert not marker.exists()
    if command == "run":
        assert bench(monkeypatch, command, "--preset", preset, *options, *typed, "--dry-run") == 0


def test_code_is_found_however_deep_it_stands():
    options = {"dds": {"a": [{"b": "x, one.two:three"}], "c": 3}, "m:f": {}}
    assert named_code(["rrcm", "k:g"], options) == {
        "k:g": "--methods k:g",
        "m:f": "--methods m:f",
        "one.two:three": "--set dds.a=one.two:three",
    }
    assert typed_code("rrcm,k:g", ["dds.a=one.two:three"]) == {"k:g", "one.two:three"}
