"""Models of the user's own: options, where they are found, what is accepted, and one line for what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import bench as library
from bench.errors import DataError, ModelError
from bench.methods import registry
from bench.records.file import read_run
from bench.smoothing.certifier import Smoothed
from bench.types import Protocol
from tests.methods.test_registry import install
from tests.support.tiny import OPTIONS, TASK, bench, image_tree

pytestmark = pytest.mark.usefixtures("undrawn")

OWN = """
import numpy as np
import torch
from torch import nn

class Bright(nn.Module):
    def __init__(self, threshold=0.4):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, x):
        margin = x.mean((1, 2, 3)) - self.threshold
        return torch.stack([margin, -margin], 1)

def make(threshold: float = 0.4, *, flip=False, name: str | None = None, scales=(1.0, 2.0), helper: nn.Module = None):
    assert isinstance(flip, bool) and (name is None or isinstance(name, str)) and isinstance(scales, tuple)
    return Bright(-threshold if flip else threshold)

def needs(threshold: float):
    return Bright(threshold)

def told(task, sigma):
    assert (task.image_size, sigma) == (8, 0.25)
    return Bright()

def double():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double()

def double_function():
    network = double()
    return lambda x: network(x)

def grey():
    return nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten())

def large():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))

def missing():
    torch.load("absent.pt")

def other():
    nn.Linear(2, 2).load_state_dict(nn.Linear(3, 3).state_dict())

def renamed():
    nn.Linear(2, 2).load_state_dict({"module.weight": torch.zeros(2, 2)})

def damaged():
    from pathlib import Path
    from safetensors.torch import load_file
    Path("bad.safetensors").write_bytes(b"no tensors")
    return load_file("bad.safetensors")

def array():
    return lambda x: np.zeros((len(x), 2), dtype=np.float32)

def fails():
    raise KeyError("a fault of its own")
"""

PLAIN = """
from dataclasses import dataclass
import torch
from torch import nn
from bench.types import Task

@dataclass(frozen=True, kw_only=True)
class Config:
    task: Task
    sigma: float
    width: int = 4

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(width))

    def forward(self, x, mask=None):
        margin = x.mean((1, 2, 3)) - 0.4 + self.w.sum()
        return torch.stack([margin, -margin], 1)

def build(config, checkpoint):
    net = Net(config.width)
    if checkpoint is not None:
        net.load_state_dict(torch.load(checkpoint, weights_only=True))
    return net
"""


@pytest.fixture
def own(tmp_path, monkeypatch, capsys):
    """Return a function: method and options -> exit code, stdout, stderr of a command on a tiny data set."""
    name = f"own{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    image_tree(tmp_path / "data")
    monkeypatch.chdir(tmp_path)

    def run(method, *options, command="run"):
        data = ["--dataset", "folder", "--data-dir", "data", "--device", "cpu", "--out", "run"]
        sizes = ["--n", 100, "--n0", 10, "--sigmas", "0.25", "--cost-repetitions", 0, "--limit", 2]
        words = [method, *(str(option) for option in options)]
        method, *options = [word.replace("OWN", name) for word in words]
        code = bench(monkeypatch, command, *data, *sizes, "--methods", method, *options)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_options_of_a_function_are_typed_and_recorded_as_such(own, tmp_path):
    changes = ["threshold=0.25", "flip=true", "name=a", "scales=1,2.5"]
    assert own("OWN:make", *(f"--set=OWN:make.{change}" for change in changes))[0] == 0
    [options] = read_run(tmp_path / "run").header.options.values()
    assert options == {"threshold": 0.25, "flip": True, "name": "a", "scales": [1.0, 2.5]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("thresholt=1", "unknown key 'thresholt'; did you mean 'threshold'?"),
        ("threshold=high", "threshold is 'high', expected a finite number"),
        ("flip=2", "flip is '2', expected true or false"),
        ("helper=x", "unknown key 'helper'"),
        ("sigma=0.5", "make.sigma is no option of a method: give --sigma"),
        ("checkpoint=a.pt", "unknown key 'checkpoint'"),
    ],
)
def test_options_that_a_function_does_not_take_are_refused(own, change, message):
    code, _, error = own("OWN:make", f"--set=OWN:make.{change}")
    assert code == 2
    assert message in error


def test_a_function_gets_what_it_needs_by_an_option_and_what_it_asks_for_of_the_run(own):
    code, _, error = own("OWN:needs")
    assert code == 2
    assert "missing a required argument: 'threshold'" in error
    assert "--set own" in error
    assert own("OWN:needs", "--set=OWN:needs.threshold=0.3")[0] == 0
    assert own("OWN:told", "--out", "told")[0] == 0


WRONG = [
    ("double", "its weights are float64, and the images are float32: call .float() on the model"),
    ("double_function", "its weights are float64, and the images are float32: call .float() on the model"),
    ("grey", "its first layer takes 1 channels, and the images are 3x8x8: use a model of such images"),
    ("large", "a layer of it does not fit images of 3x8x8"),
    (
        "missing",
        "opens a file that cannot be read ([Errno 2] No such file or directory: 'absent.pt'): bring that file",
    ),
    ("other", "loads weights of another model (Error(s) in loading state_dict for Linear"),
    ("renamed", "bring the file of this model, or make the model of the file"),
    ("damaged", "opens a file that is damaged, or of another kind"),
    ("array", "as a torch tensor, got ndarray: wrap an array in torch.from_numpy"),
]


@pytest.mark.parametrize(("function", "message"), WRONG)
def test_what_is_wrong_with_a_model_is_one_line_with_the_remedy(own, function, message):
    code, _, error = own(f"OWN:{function}")
    assert code == 1
    assert message in error
    assert len([line for line in error.splitlines() if line.startswith("bench: ")]) == 1
    assert "everything certified is kept" not in error


def test_a_fault_of_the_users_own_code_keeps_its_traceback(own):
    with pytest.raises(KeyError, match="a fault of its own"):
        own("OWN:fails")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mynet.py", "such as mynet:FUNCTION"),
        ("mynet.py:make", "such as mynet:make"),
        ("./models/mynet.py:make", "such as models.mynet:make"),
        ("mynet.make", "such as mynet:make"),
    ],
)
def test_other_spellings_of_a_function_are_told_the_right_one(own, name, hint):
    code, _, error = own(name, "--dry-run")
    assert code == 2
    assert "a function of your own is MODULE:FUNCTION" in error
    assert hint in error


def test_a_dry_run_imports_the_function_and_names_missing_checkpoints(own, tmp_path):
    assert own("OWN:make", "--dry-run")[0] == 0
    code, _, error = own("OWN:mak", "--dry-run")
    assert code == 2
    assert "has no attribute 'mak'" in error
    (tmp_path / "broken.py").write_text("import torch\n\ntorch.nosuchthing()\n")
    code, _, error = own("broken:make", "--dry-run")
    assert code == 2
    assert "broken.py, line 3" in error
    code, out, _ = own("gaussian,OWN:make", "--dry-run")
    assert code == 0
    assert "missing = gaussian/0.25 (gaussian_sigma_0.25.safetensors)\n" in out
    assert f"trained_into = {Path('zoo', 'folder')}\n" in out


def test_the_command_that_is_installed_finds_a_module_in_the_current_folder(tmp_path):
    (tmp_path / "mynet.py").write_text("make = lambda: lambda x: x\n")
    (tmp_path / "elsewhere").mkdir()
    here = str(Path(library.__file__).parents[1])
    program = f"import sys; sys.path.insert(0, {here!r}); from bench.cli import main; main()"
    command = [sys.executable, "-P", "-c", program, "run", "--methods", "mynet:make", "--dry-run"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(folder):
        return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)

    assert run(tmp_path).returncode == 0
    assert "No module named 'mynet'" in run(tmp_path / "elsewhere").stderr


def test_a_plug_in_that_builds_a_plain_module_runs_and_gets_its_checkpoint(own, tmp_path, monkeypatch):
    (tmp_path / "installed").mkdir()
    install(tmp_path / "installed", monkeypatch, name="plain", module="plain_module", source=PLAIN)
    assert own("plain", "--set", "plain.width=9")[0] == 0
    assert read_run(tmp_path / "run").header.options == {"plain": {"width": 9}}
    torch.save({"w": torch.ones(4)}, "ones.pt")
    assert own("plain", "--set", "plain.checkpoint=ones.pt", "--out", "ones")[0] == 0
    run = read_run(tmp_path / "ones")
    assert {record.predict for record in run.records} == {0}  # the weights outweigh any image
    assert list(run.header.checkpoints) == ["plain/0.25"]
    code, _, error = own("plain", "--set", "plain.checkpoint=none.pt", "--out", "none")
    assert code == 1
    assert "none.pt cannot be read" in error


def test_rrcm_certifies_the_file_that_its_option_names(own, tmp_path, monkeypatch):
    sizes = [f"--set=rrcm.{name}={value}" for name, value in OPTIONS["rrcm"].items()]
    data = ["--dataset", "folder", "--data-dir", "data", "--device", "cpu"]
    assert bench(monkeypatch, "train", "rrcm", *data, "--sigma", 0.5, *sizes) == 0
    file = "zoo/folder/rrcm_sigma_0.5.safetensors"
    code, _, error = own("rrcm", "--set", f"rrcm.checkpoint={file}", *sizes)
    assert code == 0
    assert "was trained at sigma 0.5 and is used at 0.25" in " ".join(error.split())
    assert list(read_run(tmp_path / "run").header.checkpoints) == ["rrcm/0.25"]


class Plain(nn.Module):
    def forward(self, x):
        margin = x.mean((1, 2, 3)) - 0.4
        return torch.stack([margin, -margin], 1)


def test_python_certifies_a_plain_module_and_a_function_of_pixels():
    x = torch.full((1, 4, 4), 0.9)
    wrapped = library.certify(library.from_module(Plain()), x, sigma=0.25, n=200)
    assert library.certify(Plain(), x, sigma=0.25, n=200) == wrapped
    assert library.certify(lambda x: Plain()(x), x, sigma=0.25, n=200) == wrapped
    assert library.predict(Plain(), x, sigma=0.25, n=200) == 0


def test_python_says_what_is_wrong_with_an_image_or_a_model():
    x = torch.full((1, 4, 4), 0.9)
    with pytest.raises(DataError, match=r"must be a torch tensor \(C, H, W\), got ndarray: torch.from_numpy"):
        library.certify(Plain(), x.numpy(), sigma=0.25)
    with pytest.raises(
        ModelError, match=r"weights are float64, and the images are float32: call \.float\(\)"
    ):
        library.certify(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double(), x, sigma=0.25)
    with pytest.raises(ModelError, match="as a torch tensor, got ndarray"):
        library.certify(lambda x: Plain()(x).numpy(), x, sigma=0.25)


def test_a_plug_in_s_module_is_a_classifier_wherever_it_is_built(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, name="plain", module="plain_elsewhere", source=PLAIN)
    made = registry.architecture("plain", TASK, 0.5, {}).build(lambda name, build: build())
    smoothed = Smoothed(classifier=made, sigma=0.25, num_classes=2, batch_size=10)
    assert smoothed.certify(torch.full((1, 8, 8), 0.9), 0, Protocol(n=100)).predict == 0


DENOISERS = """
import torch
from torch import nn

class Smooth(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x_noisy, sigma_model, keys=None):
        assert sigma_model == 0.5
        return self.scale * x_noisy.mean((2, 3), keepdim=True).expand_as(x_noisy)

module = Smooth

def function():
    smooth = Smooth()
    return lambda x_noisy, sigma_model, keys=None: smooth(x_noisy, sigma_model)

def classify():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
"""


@pytest.mark.parametrize("name", ["module", "function"])
def test_a_denoiser_of_ones_own_is_a_callable_of_the_contract(own, tmp_path, name):
    module = f"denoisers{abs(hash(tmp_path))}"
    (tmp_path / f"{module}.py").write_text(DENOISERS)
    parts = [f"--set=dds.denoiser={module}:{name}", f"--set=dds.classifier={module}:classify"]
    code, _, error = own("dds", *parts)
    assert code == 0, error
    [weights] = read_run(tmp_path / "run").header.weights.values()
    assert len(weights) == 64
    code, _, error = own("dds", *parts, "--set=dds.reverse_steps=2", "--out", "chain")
    assert code == 2
    assert f"reverse_steps is 2, but {module}:{name} is no diffusion model: set reverse_steps=1" in error


def test_a_sigma_without_a_checkpoint_names_those_that_have_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["certify", "x.png", "--method", "rrcm", "--sigma", "0.4", "--device", "cpu"]
    assert bench(monkeypatch, *words) == 1
    assert (
        "rrcm is there at sigma 0.25, 0.5, 1; train this one with `bench train rrcm --d"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("method", registry.methods())
def test_every_listed_default_is_what_set_takes_for_it(method, monkeypatch, capsys):
    assert bench(monkeypatch, "list", "options", method, "--json") == 0
    config = registry.configure(method, TASK, 0.5, {})
    for row in json.loads(capsys.readouterr().out)["options"]:
        name = row["--set"].partition(".")[2]
        if name != "checkpoint":
            assert registry.configure(method, TASK, 0.5, {name: row["default"]}) == config, row


def test_options_of_a_method_are_listed(monkeypatch, capsys):
    assert bench(monkeypatch, "list", "options", "rrcm") == 0
    listed = capsys.readouterr().out
    assert "rrcm.embed_dim" in listed
    assert "rrcm.checkpoint " in listed
    assert bench(monkeypatch, "list", "options") == 2
    assert "names one method" in capsys.readouterr().err
