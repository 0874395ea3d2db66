"""Nothing silent about weights: others in one folder are refused, unseen ones and unfinished trainings are named."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bench.records.file import FILE_NAME, read_run
from bench.training.checkpoints import load_checkpoint, load_metadata
from tests.methods.test_registry import install
from tests.support.tiny import OPTIONS, bench, image_tree

LOADS = """
from pathlib import Path
import torch
from torch import nn

def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))

def make(path="weights.pt"):
    made = network()
    made.load_state_dict(torch.load(path, weights_only=True))
    return lambda x: made(x)

def plain():
    return lambda x: torch.stack([x.mean((1, 2, 3)), 0.4 - x.mean((1, 2, 3))], 1)

class Failing(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1))[:, : 1 if Path("fault").exists() else 2]

def failing():
    made = Failing(192, 2)
    made.load_state_dict({name.split(".")[-1]: one for name, one in torch.load("weights.pt").items()})
    return made

def drawn():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))

def chance():
    torch.seed()
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
"""

PACKAGE = """
from dataclasses import dataclass
from pathlib import Path
import torch
from torch import nn
from bench.types import Task

@dataclass(frozen=True, kw_only=True)
class Config:
    task: Task
    sigma: float

def build(config, checkpoint):
    made = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    if Path("weights.pt").exists():
        made.load_state_dict(torch.load(checkpoint or "weights.pt", weights_only=True))
    return made
"""


def write_weights(path, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.save(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).state_dict(), path)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, undrawn):
    """Return a function: method and options -> exit code, stdout and stderr of `bench run` in an empty folder."""
    name = f"loads{abs(hash(tmp_path))}"  # a module is imported once in a process
    (tmp_path / f"{name}.py").write_text(LOADS)
    image_tree(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "weights.pt", 0)

    def run(method, *options, command="run"):
        data = ["--dataset", "folder", "--data-dir", "data", "--image-size", 8, "--device", "cpu"]
        sizes = ["--n", 100, "--n0", 10, "--sigmas", "0.25", "--cost-repetitions", 0, "--out", "run"]
        method = method.replace("LOADS", name)
        options = [str(option).replace("LOADS", name) for option in options]
        code = bench(monkeypatch, command, *data, *sizes, "--methods", method, *options)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("method", ["LOADS:make", "package"])
def test_other_weights_in_one_folder_are_refused_with_both_digests(run, tmp_path, monkeypatch, method):
    (tmp_path / "installed").mkdir()
    install(tmp_path / "installed", monkeypatch, name="package", module="package_of_weights", source=PACKAGE)
    assert run(method, "--limit", 2)[0] == 0
    held = (tmp_path / "run" / FILE_NAME).read_bytes()
    [before] = read_run(tmp_path / "run").header.weights.values()
    write_weights(tmp_path / "weights.pt", 1)
    code, _, error = run(method, "--limit", 4)
    assert code == 1
    line = error.splitlines()[-1]
    assert "at sigma 0.25 with other weights (SHA-256 then " + before in line
    assert "bring those weights back, or give another --out" in line
    assert (tmp_path / "run" / FILE_NAME).read_bytes() == held
    write_weights(tmp_path / "weights.pt", 0)
    assert run(method, "--limit", 4)[0] == 0
    assert len(read_run(tmp_path / "run").records) == 4


def test_a_method_that_failed_at_once_is_mended_or_left_out(run, tmp_path):
    assert run("LOADS:drawn", "--limit", 2)[0] == 0
    (tmp_path / "fault").touch()
    assert run("LOADS:drawn,LOADS:failing", "--limit", 2)[0] == 1
    code, _, error = run("LOADS:drawn", "--limit", 2, "--cost-repetitions", 1)
    assert code == 0, error
    assert run("LOADS:drawn,LOADS:failing", "--limit", 2)[0] == 1
    (tmp_path / "fault").unlink()
    write_weights(tmp_path / "weights.pt", 1)
    code, _, error = run("LOADS:drawn,LOADS:failing", "--limit", 2)
    assert code == 0, error
    assert len(read_run(tmp_path / "run").records) == 4


def test_weights_that_each_process_draws_anew_are_refused(run):
    code, _, error = run("LOADS:chance")
    assert code == 1
    assert "was built with other weights (SHA-256" in error
    assert "give it the same weights each time" in error


def test_weights_that_are_drawn_at_building_are_the_same_each_time(run, tmp_path):
    assert run("LOADS:drawn", "--limit", 2)[0] == 0
    assert run("LOADS:drawn", "--limit", 4)[0] == 0
    assert len(read_run(tmp_path / "run").records) == 4


def test_weights_that_cannot_be_seen_are_named_under_the_table(run, tmp_path):
    code, _, _ = run("LOADS:plain")
    assert code == 0
    assert set(read_run(tmp_path / "run").header.weights.values()) == {"unseen"}
    table = (tmp_path / "run" / "certified_accuracy.md").read_text()
    assert table.count("Weights unseen: ") == 1
    run("LOADS:make", "--out", "seen")
    assert "Weights unseen" not in (tmp_path / "seen" / "certified_accuracy.md").read_text()


def train(monkeypatch, *options):
    data = [
        "--dataset",
        "folder",
        "--data-dir",
        "data",
        "--image-size",
        8,
        "--device",
        "cpu",
        "--sigma",
        "0.25",
    ]
    changes = [f"--set=gaussian.{name}={value}" for name, value in OPTIONS["gaussian"].items()]
    return bench(monkeypatch, "train", "gaussian", *data, *changes, *options)


def test_a_checkpoint_of_half_precision_is_certified_as_it_was_written(run, tmp_path, monkeypatch):
    assert train(monkeypatch, "--half") == 0
    [file] = (tmp_path / "zoo").rglob("*.safetensors")
    tensors, said = load_checkpoint(file)
    assert {one.dtype for one in tensors.values() if one.is_floating_point()} == {torch.float16}
    assert said["training"]["stored"] == "float16"
    assert run("gaussian")[0] == 0
    [digest] = read_run(tmp_path / "run").header.checkpoints.values()
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_training_that_was_stopped_is_refused_or_named_under_every_table(run, tmp_path, monkeypatch):
    assert train(monkeypatch, "--max-seconds", 0) == 0
    code, _, error = run("gaussian")
    assert code == 1
    assert (
        "gaussian_sigma_0.25.safetensors is of a training that was stopped after 0 of at most 2 steps"
        in error
    )
    assert "or add --allow unfinished" in error
    assert not (tmp_path / "run").exists()
    code, _, error = run("gaussian", "--allow", "unfinished", "--cost-repetitions", 1)
    assert code == 0, error
    assert read_run(tmp_path / "run").header.unfinished == {"gaussian/0.25": "0 of at most 2 steps"}
    for table in (tmp_path / "run").glob("*.md"):
        assert "Training stopped before its end: Gaussian at sigma 0.25 (0 of at most 2 steps)" in " ".join(
            table.read_text().replace("\\", "").split()
        )


@pytest.mark.parametrize("command", ["certify", "predict"])
def test_a_training_that_was_stopped_certifies_no_image_unless_allowed(run, monkeypatch, capsys, command):
    assert train(monkeypatch, "--max-seconds", 0) == 0
    data = ["--dataset", "folder", "--data-dir", "data", "--image-size", 8, "--device", "cpu"]
    words = [command, "data/test/dark/0.png", "--method", "gaussian", "--sigma", "0.25", *data, "--n", 50]
    assert bench(monkeypatch, *words) == 1
    assert "has not ended" in capsys.readouterr().err
    assert bench(monkeypatch, *words, "--allow", "unfinished") == 0


def test_doctor_says_of_a_training_that_it_was_stopped(run, monkeypatch, capsys):
    assert train(monkeypatch, "--max-seconds", 0) == 0
    words = ["doctor", "--checkpoint", "zoo/folder/gaussian_sigma_0.25.safetensors", "--dataset", "folder"]
    bench(monkeypatch, *words, "--data-dir", "data", "--image-size", 8, "--device", "cpu")
    assert "UNFINISHED: it was stopped before its end" in capsys.readouterr().out


def test_a_part_of_a_training_that_was_stopped_is_refused_too(run, tmp_path, monkeypatch):
    assert train(monkeypatch, "--max-seconds", 0) == 0
    file = "zoo/folder/gaussian_sigma_0.25.safetensors"
    code, _, error = run("dds", "--set", f"dds.classifier={file}", "--set", f"dds.denoiser={file}")
    assert code == 1
    assert f"{file} is of a training that was stopped after" in error


def test_a_finished_training_is_not_refused(run, tmp_path, monkeypatch):
    assert train(monkeypatch) == 0
    assert run("gaussian")[0] == 0
    file = tmp_path / "zoo" / "folder" / "gaussian_sigma_0.25.safetensors"
    metadata = {name: json.dumps(value) for name, value in load_metadata(file).items()}
    assert '"is_complete": true' in metadata["training"]
    del metadata["training"]
    save_file(load_file(file), file, metadata)  # one that says nothing of its training
    assert run("gaussian", "--out", "again")[0] == 0
