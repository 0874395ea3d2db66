"""A method that a package adds is imported, doctored, drawn and measured as a built-in one is."""

import sys

import pytest
import torch
from safetensors.torch import load_file

from bench.config.methods import described, kinds
from bench.errors import UsageError
from bench.methods import registry
from bench.report.comparison import compare
from bench.report.figures.style import COLORS, styles
from bench.training.checkpoints import load_metadata
from tests.methods.test_registry import install
from tests.support.fake_runs import make_run
from tests.support.tiny import TASK, bench, image_tree

LINEAR = """
from dataclasses import dataclass

from torch import nn

from bench.training.checkpoints import load_checkpoint, load_weights
from bench.training.released import Fed, Part, Released
from bench.training.architectures import RecipeTable
from bench.types import Checkpoint, Task

DISPLAY_NAME, COLOR, KIND = "Linear", "#123456", "purifier"


@dataclass(frozen=True, kw_only=True)
class Config:
    task: Task
    sigma: float
    bias: bool = True


class Linear(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.network = nn.Linear(config.task.channels * 64, config.task.num_classes, bias=config.bias)

    def forward(self, x_noisy, sigma, keys=None):
        return self.network((2 * x_noisy - 1).flatten(1)) / sigma

    def fed(self):
        return Fed(normalisation=((0.5,) * 3, (0.5,) * 3), time="sigma itself")

    def stages(self):
        return {"linear": self.network}


def build(config, checkpoint):
    classifier = Linear(config)
    if checkpoint is not None:
        tensors, _ = load_checkpoint(checkpoint)
        load_weights(classifier.network, tensors, checkpoint)
    return classifier.eval()


def read(file):
    tensors = {name.removeprefix("linear."): value for name, value in file.tensors.items()}
    config = {"method": "linear", "sigma": file.said.get("sigma"), "has_bias": "bias" in tensors}
    name = "linear.safetensors"
    return Checkpoint(
        source=file.path, tensors=tensors, config=config, description=("a linear classifier",), file_name=name
    )


RELEASED = Released(what="a linear net", recognises=lambda file: "linear.weight" in file.tensors, read=read)
STORED_AS = {"has_bias": "bias"}


def open_part(source, task, said):
    is_part = isinstance(source, Checkpoint) and "scale" in source.tensors
    return Part(told=(("method", "the scale of a linear net"),)) if is_part else None
"""


@pytest.fixture
def released(tmp_path, monkeypatch):
    """Install the package, and return a file that its method recognises."""
    install(tmp_path, monkeypatch, name="linear", module="linear_method", source=LINEAR)
    torch.save({"linear.weight": torch.randn(2, 192)}, tmp_path / "released.pth")
    yield tmp_path / "released.pth"
    sys.modules.pop("linear_method", None)


def data(root):
    return [
        "--dataset",
        "folder",
        "--data-dir",
        image_tree(root / "data"),
        "--image-size",
        8,
        "--device",
        "cpu",
    ]


def test_released_file_is_recognised_and_imported(released, monkeypatch, capsys):
    out = released.with_name("linear.safetensors")
    assert bench(monkeypatch, "import-checkpoint", released, "--out", out, "--sigma", "0.25") == 0
    assert "a linear classifier" in capsys.readouterr().out
    assert load_metadata(out)["config"] == {"method": "linear", "sigma": 0.25, "has_bias": False}
    assert load_file(out)["weight"].shape == (2, 192)


def test_released_file_is_doctored_as_it_is_under_what_it_declares(released, monkeypatch, capsys):
    bench(monkeypatch, "doctor", "--checkpoint", released, *data(released.parent), "--sigma", "0.25")
    said = capsys.readouterr()
    rows = {" ".join(line.split()) for line in said.out.splitlines()}
    assert rows > {"made by a linear classifier", "method linear", "input [-1,1]", "time sigma itself"}, (
        said.err
    )
    assert any(row.startswith("time: ") for row in rows)


def test_part_of_the_method_says_what_it_is(released, monkeypatch, capsys):
    torch.save({"linear.weight": torch.randn(2, 192), "scale": torch.ones(1)}, released)
    assert bench(monkeypatch, "doctor", "--checkpoint", released, *data(released.parent)) == 0
    assert "the scale of a linear net" in capsys.readouterr().out


def test_file_of_no_method_names_what_the_methods_read(released, monkeypatch, capsys):
    torch.save({"other": torch.ones(1)}, released)
    assert (
        bench(monkeypatch, "import-checkpoint", released, "--out", released.with_suffix(".safetensors")) == 1
    )
    assert "improved-diffusion or guided-diffusion, or a linear net." in capsys.readouterr().err


def test_figures_give_the_method_its_colour_while_it_is_installed(released, monkeypatch):
    comparison = compare([make_run(methods=["gaussian", "linear"])])
    label = comparison.labels[1]
    assert styles(comparison)[label].color == "#123456"
    monkeypatch.undo()  # nothing is installed any more
    assert styles(comparison)[label].color == COLORS[8]  # the first that no built-in method has


@pytest.mark.parametrize("source", ["import no_such_module", "1 / 0", "def"])
def test_method_whose_module_cannot_be_imported_has_its_name_alone_and_offers_nothing(
    tmp_path, monkeypatch, source
):
    module = f"broken_{abs(hash(source))}"
    install(tmp_path, monkeypatch, name="broken", module=module, source=source)
    assert described(["broken"])["broken"].color == ""
    assert "broken" not in dict(registry.offers("build"))
    with pytest.raises(UsageError, match=f"method 'broken' cannot be imported from {module}"):
        registry.load("broken")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("COLOR = 'orangish'", "COLOR is 'orangish', expected '#rrggbb'"),
        ("KIND = 'fast'", "KIND is 'fast', expected one of studied, noisy, purifier"),
    ],
)
def test_looks_that_are_none_are_refused(tmp_path, monkeypatch, source, message):
    install(tmp_path, monkeypatch, name="odd", module=f"odd_{source[:4].lower()}", source=source)
    with pytest.raises(UsageError, match=message):
        described(["odd"])


def test_display_name_kind_and_stages_are_the_methods_own(released):
    assert described(["linear", "rrcm"])["linear"].display_name == "Linear"
    assert kinds(["linear-large"]) == {"linear-large": "purifier"}
    one = registry.architecture("linear", TASK, 0.5, {})
    assert list(one.build(lambda name, make: make()).stages()) == ["linear"]


def test_kind_of_a_size_is_that_of_the_longest_name_before_it():
    found = kinds(["rrcm-b", "dds-multistep", "consistency-model", "consistency", "resnet50"])
    assert list(found.values()) == ["studied", "purifier", "purifier", "noisy", None]


def test_what_is_no_module_has_no_operations_to_count(monkeypatch):
    monkeypatch.setattr("bench.smoothing.classifiers.opened", lambda name, make: lambda x: x)
    one = registry.architecture("gaussian", TASK, 0.5, {})
    with pytest.raises(
        UsageError, match=r"gaussian is function, no torch.nn.Module.*let `bench run` time it"
    ):
        one.build(lambda name, make: make())
