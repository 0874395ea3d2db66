"""The command that a missing checkpoint is to be trained with: typed as it is printed, it is found afterwards."""

import shlex
from types import SimpleNamespace

import pytest
import torch

from bench.commands.options import resolve
from bench.errors import CheckpointError
from bench.runs.entrant import enter
from bench.runs.single import open_method
from bench.runs.workbench import Setup
from bench.types import Task
from tests.support.tiny import bench, image_tree

MNIST5K = Task(dataset="mnist5k", channels=1, image_size=28, num_classes=10)
SMALL = ("gaussian.max_steps=2", "gaussian.batch_size=8")


def command_for(preset, **given):
    """Return the command that the message on a missing checkpoint holds."""
    config = resolve(preset, {"methods": "gaussian", "sigmas": "0.3", "device": "cpu", **given})
    with pytest.raises(CheckpointError) as refused:
        open_method(config)
    return str(refused.value).split("`")[1]


def test_the_command_trains_what_is_missing_where_it_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image_tree(tmp_path / "my data")
    given = {"dataset": "folder", "data_dir": "my data", "image_size": "8", "zoo": "a zoo", "seed": "3"}
    command = command_for(None, **given, changes=SMALL)
    assert bench(monkeypatch, *shlex.split(command)[1:], "--device", "cpu") == 0
    config = resolve(
        None, {"methods": "gaussian", "sigmas": "0.3", "device": "cpu", "changes": SMALL, **given}
    )
    assert open_method(config).smoothed.sigma == 0.3


def test_the_command_of_a_plain_configuration_is_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "z").mkdir()
    plain = "bench train gaussian --dataset mnist5k --sigma 0.3 --zoo z"
    assert command_for("mnist5k", zoo="z") == plain
    assert command_for("mnist5k", zoo="z", backbone="lenet") == f"{plain} --set gaussian.backbone=lenet"


def test_options_that_the_data_sets_preset_alone_has_are_undone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "z").mkdir()
    monkeypatch.setattr("bench.runs.single.prepare", lambda config: prepared(config))
    command = command_for("mnist5k", dataset="cifar10", zoo="z")
    assert "--set gaussian.backbone=resnet" in command
    assert "--set gaussian.recipe=small" in command


def prepared(config):
    task = Task(dataset="cifar10", channels=3, image_size=32, num_classes=10)
    return Setup(config=config, split=SimpleNamespace(task=task), indices=(), device=torch.device("cpu"))


def test_a_recipe_that_the_preset_alone_has_is_no_reason_to_refuse():
    """At 0.3 the published recipe of the preset has nothing; the small one, which was asked for, has."""
    config = resolve(
        "cifar10", {"methods": "gaussian", "sigmas": "0.3", "changes": ("gaussian.recipe=small",)}
    )
    one = enter(config, prepared(config).split.task, "gaussian", 0.3, print)
    assert one.is_missing
    assert one.training_command().endswith("--set gaussian.recipe=small")


def test_a_noise_level_is_written_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = resolve("mnist5k", {"methods": "gaussian", "sigmas": "64/255"})
    words = shlex.split(enter(config, MNIST5K, "gaussian", 64 / 255, print).training_command())
    assert float(words[words.index("--sigma") + 1]) == 64 / 255
