"""A classifier of the user's own by "module:function": in a run, its records, tables and replays."""

import csv
import functools

import pytest
import torch
from torch import nn

from bench.errors import UsageError
from bench.methods.plug_ins import open_plug_in, plug_in
from bench.records.file import read_run
from bench.smoothing.classifiers import as_classifier
from tests.support.tiny import bench, image_tree

pytestmark = pytest.mark.usefixtures("undrawn")

HERE = "tests.smoothing.test_classifiers"
NAME, TOLD = f"{HERE}:brightness", f"{HERE}:told"


class Brightness(nn.Module):
    """Class 0 ("bright") where the mean pixel exceeds 0.45."""

    def forward(self, x):
        margin = x.mean((1, 2, 3)) - 0.45
        return torch.stack([margin, -margin], 1)


def brightness():
    return Brightness()


def told():
    return lambda x_noisy, sigma, keys=None: Brightness()(x_noisy) / sigma


def pixels_alone():
    return lambda x: Brightness()(x)


def nothing():
    return None


def needs_more(argument):
    return argument


def test_run_of_plug_ins_is_recorded_reported_and_replayed(tmp_path, monkeypatch, capsys):
    data = ["--dataset", "folder", "--data-dir", image_tree(tmp_path / "data"), "--image-size", 8]
    sizes = ["--n", 100, "--n0", 10, "--sigmas", "0.25", "--cost-repetitions", 0, "--device", "cpu"]
    out = tmp_path / "run"
    methods = ["--methods", f"{NAME},{TOLD}"]
    assert bench(monkeypatch, "run", *data, *sizes, *methods, "--out", out) == 0
    run = read_run(out)
    assert (run.header.methods, run.header.checkpoints) == ((NAME, TOLD), {})
    assert {(record.method, record.radius) for record in run.records if record.predict == record.label}
    with (out / "certified_accuracy.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file)} == {NAME, TOLD}
    assert not [path for path in tmp_path.rglob("*") if ":" in path.name]
    index = str(run.records[0].index)
    assert bench(monkeypatch, "replay", out, "--index", index, "--method", TOLD) == 0
    assert f"image {index}, {TOLD} at sigma 0.25" in capsys.readouterr().out


def test_plug_in_certifies_one_image_and_is_never_trained(tmp_path, monkeypatch, capsys):
    root = image_tree(tmp_path / "data")
    data = ["--dataset", "folder", "--data-dir", root, "--image-size", 8, "--device", "cpu"]
    image = root / "test" / "bright" / "0.png"
    for command in ("certify", "predict"):
        assert bench(monkeypatch, command, image, "--method", NAME, "--sigma", 0.25, *data) == 0
        assert "bright" in capsys.readouterr().out
    assert bench(monkeypatch, "train", NAME, *data) == 2
    assert f"{NAME} cannot be trained here: its function returns a finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_module:build", "cannot be called: No module named"),
        (f"{HERE}:absent", "cannot be called: .* has no attribute"),
        (f"{HERE}:needs_more", "missing a required argument: 'argument'; .* a function without arguments"),
        (f"{HERE}:nothing", "returned a NoneType, expected a torch module or a callable"),
    ],
)
def test_plug_ins_that_do_not_work_say_why(source, message):
    with pytest.raises(UsageError, match=message):
        open_plug_in(source)


@pytest.mark.parametrize("name", ["pixels_alone", "told", "brightness"])
def test_callables_of_pixels_alone_are_called_so(name):
    x_noisy = torch.full((2, 1, 8, 8), 0.5)
    logits = open_plug_in(f"{HERE}:{name}")(x_noisy, 1.0, None)
    assert torch.equal(logits, Brightness()(x_noisy))


def test_function_is_looked_for_before_a_run_begins():
    with pytest.raises(UsageError, match="has no attribute 'absent'"):
        plug_in(f"{HERE}:absent")
    assert plug_in(f"{HERE}:nothing").source == f"{HERE}:nothing"


class Told(nn.Module):
    """A network of pixels alone, behind wrappers that take anything."""

    def forward(self, x_noisy):
        return x_noisy.flatten(1)[:, :2]


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, functools.partial, lambda net: torch.compile(net, backend="eager"), lambda net: net],
    ids=["DataParallel", "partial", "compile", "plain"],
)
def test_a_wrapped_network_of_pixels_alone_is_given_no_more(wrap):
    logits = as_classifier(wrap(Told()))(torch.ones(3, 1, 2, 2), 0.5, torch.arange(3))
    assert logits.shape == (3, 2)
