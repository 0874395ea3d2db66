"""The command that a missing checkpoint is to be trained with: typed as it is printed, it is found afterwards."""

import shlex

import pytest

from bench.commands.options import resolve
from bench.errors import CheckpointError
from bench.runs.single import open_method
from tests.support.tiny import bench, image_tree

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
