"""The README's commands and code, as written, at a tiny size (installation itself is .ci/run's)."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.commands.report import fill_tables
from bench.errors import UsageError
from tests.support.tiny import bench

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
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


def test_tables_are_those_of_the_results():
    assert README.count("<!-- table: ") == README.count("<!-- end of table -->") > 2
    assert fill_tables(README, ROOT) == README


def test_a_changed_table_is_put_back(tmp_path, monkeypatch, capsys):
    (tmp_path / "table.md").write_text("| new \\1 |\n")
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table: table.md -->\n| old |\n<!-- end of table -->\nb\n")
    assert bench(monkeypatch, "readme", str(page)) == 0
    assert page.read_text() == "a\n<!-- table: table.md -->\n| new \\1 |\n<!-- end of table -->\nb\n"
    assert capsys.readouterr().out == f"{page}: changed\n"


@pytest.mark.parametrize("name", ["missing.md", "../table.md"])
def test_a_table_that_is_not_below_the_page_is_refused(tmp_path, name):
    (tmp_path / "table.md").write_text("outside\n")
    (tmp_path / "inner").mkdir()
    with pytest.raises(UsageError, match=f"names {name}, which is no file below"):
        fill_tables(f"<!-- table: {name} -->\n<!-- end of table -->", tmp_path / "inner")
