"""A classifier of the user's own by "module:function": in a run, its records, tables and replays."""

import csv
import functools
import sys

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from bench.errors import CheckpointError, UsageError
from bench.methods.plug_ins import open_plug_in, plug_in
from bench.records.file import read_run
from bench.smoothing.classifiers import as_classifier, from_module
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


class Anything(nn.Module):
    """A wrapper that hands all on, as many do."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        AveragedModel,
        Anything,
        functools.partial,
        lambda net: torch.compile(net, backend="eager"),
        lambda net: net,
    ],
    ids=["DataParallel", "AveragedModel", "anything", "partial", "compile", "plain"],
)
def test_a_wrapped_network_of_pixels_alone_is_given_no_more(wrap):
    logits = as_classifier(wrap(Told()))(torch.ones(3, 1, 2, 2), 0.5, torch.arange(3))
    assert logits.shape == (3, 2)


def test_a_wrapped_network_that_is_told_sigma_is_told_it():
    class Scaled(nn.Module):
        def forward(self, x_noisy, sigma, keys=None):
            return x_noisy.flatten(1)[:, :2] / sigma

    logits = as_classifier(AveragedModel(Scaled()))(torch.ones(3, 1, 2, 2), 0.5, torch.arange(3))
    assert torch.equal(logits, torch.full((3, 2), 2.0))


class Noisy(nn.Module):
    def forward(self, x, sigma):
        return x.flatten(1)


@pytest.mark.parametrize(
    ("made", "parameters"),
    [
        (lambda x, sigma: x, "(x, sigma)"),
        (lambda x, *, sigma=None: x, "(x, *, sigma=None)"),
        (functools.partial(lambda x, sigma, keys=None: x, sigma=0.5), "(x, *, sigma=0.5, keys=None)"),
        (Noisy(), "(x, sigma)"),
    ],
)
def test_a_model_of_other_arguments_is_told_those_of_a_classifier(made, parameters):
    with pytest.raises(UsageError) as caught:
        as_classifier(made)
    assert f"a callable of {parameters}, expected one of (x_noisy, sigma, keys=None), or" in str(caught.value)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Noisy(), r"takes \(x, sigma\), expected noisy pixels alone"),
        ("resnet18", "is a str, expected a torch module or a callable$"),
        (None, "is a NoneType, expected a torch module"),
        (Told, r"is the class Told, .*: make one, Told\(...\)"),
        ({}, "is a dict, .*: load a state dict into a model"),
    ],
)
def test_what_is_no_module_of_pixels_is_refused_at_once(made, message):
    with pytest.raises(UsageError, match=f"from_module's argument {message}"):
        from_module(made)


def test_an_exported_program_is_a_classifier():
    batch = torch.export.Dim("batch", max=512)
    program = torch.export.export(Told().eval(), (torch.ones(2, 1, 2, 2),), dynamic_shapes=({0: batch},))
    for made in (as_classifier(program.module()), from_module(program.module())):
        assert made(torch.ones(3, 1, 2, 2), 0.5, None).shape == (3, 2)


OWN = """
import os, sys, torch
from torch import nn

network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
state = network.state_dict()

def leaves():
    sys.exit()

def empty():
    open("file.pt", "wb").close()
    return torch.load("file.pt")

def cut():
    torch.save(torch.zeros(1000), "file.pt")
    os.truncate("file.pt", 2000)
    return torch.load("file.pt")

def elsewhere():
    raise RuntimeError("Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False.")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return the name of a module in the current folder."""
    monkeypatch.chdir(tmp_path)
    name = f"own{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    yield name
    sys.modules.pop(name, None)


def test_a_module_s_name_in_place_of_a_function_is_that_module(own):
    first = open_plug_in(f"{own}:network")
    assert first(torch.ones(3, 1, 2, 2), 0.5).shape == (3, 2)
    weights = first.network[1].weight
    del sys.modules[own]
    assert torch.equal(open_plug_in(f"{own}:network").network[1].weight, weights)
    with pytest.raises(UsageError, match="state cannot be called: it is a OrderedDict, no function"):
        open_plug_in(f"{own}:state")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("empty", "opens a file that is damaged, or of another kind"),
        ("cut", r"opens a file that is damaged.* \(PytorchStreamReader"),
        ("elsewhere", 'opens a file of weights on a device .*: give torch.load map_location="cpu"'),
    ],
)
def test_a_file_that_torch_cannot_open_is_named_as_such(own, function, message):
    with pytest.raises(CheckpointError, match=message):
        open_plug_in(f"{own}:{function}")


def test_a_plug_in_that_ends_the_program_is_refused(own, tmp_path):
    remedy = "put the script part of its module below `if __name__ == '__main__'`"
    with pytest.raises(UsageError, match=f"leaves ends the program when called .*: {remedy}"):
        open_plug_in(f"{own}:leaves")
    (tmp_path / "script_of_its_own.py").write_text("raise SystemExit\n")
    with pytest.raises(UsageError, match=f"make ends the program when imported .*: {remedy}"):
        open_plug_in("script_of_its_own:make")


def test_a_module_that_is_hidden_by_another_of_its_name_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("queue", "time", "bench", "bench/own"):
        (tmp_path / "bench").mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("make = None\n")
        source = f"{name.replace('/', '.')}:make"
        with pytest.raises(UsageError, match=f"{source} is hidden: Python has imported another module"):
            plug_in(source)
