"""Names -> modules, third parties' included."""

import pytest
import torch

from bench.config.methods import ENTRY_POINT_GROUP
from bench.config.run import load_preset, validate
from bench.errors import UsageError
from bench.methods import registry
from tests.support.tiny import TASK

TOY = """
from dataclasses import dataclass

from bench.types import Task


@dataclass(frozen=True, kw_only=True)
class Config:
    task: Task
    sigma: float
    favourite: int = 1


def build(config, checkpoint):
    def classify(x_noisy, sigma, keys=None):
        logits = x_noisy.new_zeros((len(x_noisy), config.task.num_classes))
        logits[:, config.favourite] = 1.0
        return logits

    return classify
"""


def install(folder, monkeypatch, *, name="toy", module="toy_method", source=TOY):
    """Put a package with one entry point on the import path, as pip would."""
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_third_party_adds_a_method_in_one_file(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    config = registry.configure("toy", TASK, 0.5, {"favourite": "0"})
    classifier = registry.load("toy").build(config, None)
    ours = ["rrcm", "gaussian", "consistency", "dds", "densepure", "consistency-model", "smoothadv", "macer"]
    assert list(registry.methods()) == [*ours, "toy"]
    assert classifier(torch.zeros(2, 1, 8, 8), 0.5).argmax(1).tolist() == [0, 0]


def test_third_party_cannot_take_a_name(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, name="dds", module="other_dds")
    with pytest.raises(UsageError, match=r"method 'dds' is baselines\.dds and also other_dds"):
        registry.methods()


@pytest.mark.parametrize(
    ("source", "message"),
    [("import no_such_module", "cannot be imported"), ("Config = int", "offers no build")],
)
def test_broken_method_says_what_is_wrong(tmp_path, monkeypatch, source, message):
    module = f"broken_{len(source)}"
    install(tmp_path, monkeypatch, name="broken", module=module, source=source)
    with pytest.raises(UsageError, match=message):
        registry.load("broken")


def test_unknown_names_get_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'gaussian'"):
        registry.load("gausian")
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        registry.backbone("resnet_18")
    with pytest.raises(
        UsageError, match="method gaussian: unknown key 'batchsize'; did you mean 'batch_size'"
    ):
        registry.configure("gaussian", TASK, 0.5, {"batchsize": 3})
    with pytest.raises(UsageError, match="'rrcm' has a network of its own"):
        registry.configure("rrcm", TASK, 0.5, {"backbone": "vit"})


@pytest.mark.parametrize("name", ["resnet", "vit", "resnet18"])
def test_backbones_fit_the_task(name):
    task = registry.Task(dataset="grey", channels=1, image_size=28, num_classes=10)
    config = registry.configure("gaussian", task, 0.5, {"backbone": name})
    classifier = registry.load("gaussian").build(config, None)
    assert classifier(torch.zeros(2, 1, 28, 28), 0.5).shape == (2, 10)
    assert (
        registry.load("gaussian")
        .checkpoint_name(config)
        .startswith("gaussian_sigma" if name == "resnet" else f"gaussian-{name}_sigma")
    )


PRESETS = ["mnist5k", "fashion-mnist", "cifar10", "imagenet"]
TASKS = {
    "mnist5k": (1, 28, 10),
    "fashion-mnist": (1, 28, 10),
    "cifar10": (3, 32, 10),
    "imagenet": (3, 224, 1000),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_method_of_a_preset_can_be_built(preset):
    config = load_preset(preset)
    channels, size, classes = TASKS[preset]
    task = registry.Task(dataset=preset, channels=channels, image_size=size, num_classes=classes)
    for name in validate(config, registry.methods()).methods:
        with torch.device("meta"):
            method = registry.configure(name, task, 0.5, config.options.get(name, {}))
            assert sum(value.numel() for value in registry.load(name).build(method, None).parameters()) > 0


@pytest.mark.parametrize(
    ("method", "option", "value", "message"),
    [
        ("gaussian", "max_steps", "0", "gaussian.max_steps is 0, expected 1 or more"),
        ("gaussian", "max_steps", "-5", "gaussian.max_steps is -5, expected 1 or more"),
        ("gaussian", "batch_size", "0", "gaussian.batch_size is 0, expected 1 or more"),
        ("gaussian", "rate_every", "0", "gaussian.rate_every is 0, expected 1 or more"),
        ("gaussian", "learning_rate", "-1", "gaussian.learning_rate is -1, expected 0 or more"),
        ("gaussian", "ema_decay", "2", "gaussian.ema_decay is 2, expected 1 or less"),
        ("consistency", "copies", "0", "consistency.copies is 0, expected 1 or more"),
        ("consistency", "weight", "-3", "consistency.weight is -3, expected 0 or more"),
        ("rrcm", "patch_size", "0", "rrcm.patch_size is 0, expected 1 or more"),
        ("rrcm", "pretrain_steps", "-5", "rrcm.pretrain_steps is -5, expected 0 or more"),
        ("dds", "channels", "", "dds.channels is empty, expected one number or more"),
        ("dds", "diffusion_steps", "0", "dds.diffusion_steps is 0, expected 1 or more"),
    ],
)
def test_an_option_that_no_training_can_have_is_refused(method, option, value, message):
    with pytest.raises(UsageError, match=message):
        registry.configure(method, TASK, 0.5, {option: value})


OPTIONS_OF_ITS_OWN = """
def make(backbone="small", epochs=3, max_steps=10, patience=2, evaluate_every=1):
    return lambda x: (backbone, epochs, max_steps, patience, evaluate_every)
"""


def test_options_of_a_plug_in_mean_what_its_function_says(tmp_path, monkeypatch):
    (tmp_path / "options_of_its_own.py").write_text(OPTIONS_OF_ITS_OWN)
    monkeypatch.chdir(tmp_path)
    name = "options_of_its_own:make"
    options = {"backbone": "resnet18", "max_steps": "20", "patience": "4", "evaluate_every": "5"}
    config = registry.configure(name, TASK, 0.5, options)
    assert registry.load(name).build(config, None)(None, 0.5) == ("resnet18", 3, 20, 4, 5)
    assert not registry.has_backbone(name)


def test_a_method_that_ends_the_program_is_refused(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, name="leaves", module="leaves_at_once", source="raise SystemExit")
    with pytest.raises(
        UsageError, match=r"'leaves' cannot be imported from leaves_at_once: it ends the prog"
    ):
        registry.load("leaves")
