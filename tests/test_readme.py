"""The README's commands and code, as written, at a tiny size (installation itself is .ci/run's)."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.tiny import bench

README = (Path(__file__).parents[1] / "README.md").read_text()
CODE = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.split(" #")[0].split("&& ")[-1].strip()
    for language, block in CODE
    if not language
    for line in block.splitlines()
    if "bench " in line
]


def test_the_two_commands_of_a_new_user_stand_in_it():
    assert "pip install -e . && bench run " in README
    assert "pip install -e '.[test]' && pytest " in README


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("bench run")])
def test_runs_resolve(monkeypatch, command):
    assert bench(monkeypatch, *shlex.split(command)[1:], "--dry-run") == 0


@pytest.mark.parametrize("command", [line for line in COMMANDS if not line.startswith("bench run")])
def test_other_commands_exist_with_these_options(monkeypatch, capsys, command):
    words = shlex.split(command)[1:]
    assert bench(monkeypatch, words[0], "--help") == 0
    options = [word for word in words if word.startswith("--")]
    shown = capsys.readouterr().out
    assert [option for option in options if option not in shown] == []


def test_five_lines_of_python_certify_a_users_own_module(capsys):
    code = next(block for language, block in CODE if language == "python" and "from_module" in block)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    model[1].weight.data = torch.tensor([[0.0] * 4, [1.0] * 4, [0.0] * 4])
    exec(code, {"model": model, "image": torch.ones(1, 2, 2)})
    label, radius = capsys.readouterr().out.split()
    assert label == "1"
    assert 0 < float(radius) < 2.0  # the distance of the image to the classifier's boundary


def test_tables_are_those_that_the_committed_run_made():
    results = Path(__file__).parents[1] / "results"
    for table in ("mnist5k/certified_accuracy.md", "mnist5k/cost.md", "mnist5k-accuracy/acr.md"):
        assert (results / table).read_text().strip() in README
