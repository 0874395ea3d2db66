"""Paths that are given to commands: "~" is the home folder, and an empty path is refused."""

import shlex
import sys
from pathlib import Path

import click
import pytest

from bench.cli import cli, main
from bench.commands.terminal.kinds import UserPath
from bench.records.file import write_run
from tests.support.fake_runs import make_run
from tests.support.tiny import bench

pytestmark = pytest.mark.usefixtures("undrawn")

LOG = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.4\t1\t1.0\n"
IMPORT = "import-log ~/a.tsv --dataset cifar10 --sigma 0.25 --alpha 0.001 --n 100000 --method m --out"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a run and a log, beside the current folder, which is empty."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    write_run(tmp_path / "home" / "run", make_run(methods=["rrcm", "dds"], images=2))
    (tmp_path / "home" / "a.tsv").write_text(LOG)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("line", "made"),
    [
        (f"{IMPORT}=~/imported", "imported/records.jsonl"),
        ("export-log ~/run --method rrcm --sigma 0.25 --out=~/x.tsv", "x.tsv"),
        ("recertify ~/run --alpha 0.01 --out=~/again", "again/records.jsonl"),
        ("compare ~/run --out=~/tests", "tests/paired.csv"),
        ("cost --run=~/run --out=~/speed", "speed/equal_accuracy.csv"),
    ],
)
def test_a_path_below_the_home_folder_is_found_and_made_there(line, made, home, monkeypatch):
    assert bench(monkeypatch, *shlex.split(line)) == 0
    assert (home / made).is_file()
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("line", [f"{IMPORT} ''", "status ''", "report ''", "recertify ~/run --out ''"])
def test_an_empty_path_is_refused(line, home, monkeypatch, capsys):
    assert bench(monkeypatch, *shlex.split(line)) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: Invalid value for ")
    assert error.endswith(": the path is empty: name a file or folder.\n")
    assert list(Path().iterdir()) == []


def test_a_home_folder_of_nobody_is_refused(home, monkeypatch, capsys):
    assert bench(monkeypatch, "status", "~nobody-of-this-name/x") == 2
    assert "'~nobody-of-this-name/x' names no user's home folder." in capsys.readouterr().err


def test_a_checkpoint_below_the_home_folder_is_looked_for_there(home, monkeypatch, capsys):
    assert bench(monkeypatch, "doctor", "--checkpoint=~/x.pt") == 1
    assert f"{home}/x.pt" in capsys.readouterr().err
    assert bench(monkeypatch, "doctor", "--checkpoint=~nobody-of-this-name/x.pt") == 2
    assert "names no user's home folder" in capsys.readouterr().err


def test_a_shell_completes_a_word(monkeypatch, capsys):
    for name, value in (
        ("_BENCH_COMPLETE", "bash_complete"),
        ("COMP_WORDS", "bench stat"),
        ("COMP_CWORD", "1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["bench"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr()) == (0, ("plain,status\n", ""))


def test_every_path_of_every_command_is_read_so():
    paths = [one for name in cli.commands.values() for one in name.params if isinstance(one.type, click.Path)]
    assert len(paths) > 20
    assert all(isinstance(one.type, UserPath) for one in paths)
