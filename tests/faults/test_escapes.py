"""Names from files are text: no terminal, table, spreadsheet, markup or typesetter takes them for more."""

import csv
import itertools
import re
from dataclasses import replace

import pytest

from bench.errors import plain
from bench.records.codec import RUN
from bench.report.markup import csv_text
from tests.support.fake_runs import make_run
from tests.support.tiny import bench

NAMES = [
    "\x1b]0;owned\x07",
    "\x1b[2J\x1b[31m",
    "[/red]",
    "[bold]x",
    "[link=file:///x]y[/link]",
    "\x9b2J",
    "a\u202eb",
    "$x_{$",
]


def write_run(folder, *names):
    """Write a run whose methods, command, classes and data set have these names."""
    made = make_run(folder, methods=("rrcm",), sigmas=(0.5,), images=5)
    more = {
        "command": names[0],
        "class_names": (names[0], *"123456789"),
        "dataset": names[0],
        "subset": names[0],
    }
    header = replace(
        made.header, **more, methods=names, batch_sizes=dict.fromkeys(names, 1), hardware={"device": names[0]}
    )
    records = [replace(one, method=name) for name, one in itertools.product(names, made.records)]
    costs = [replace(one, method=name, device=name) for name, one in itertools.product(names, made.costs)]
    folder.mkdir()
    (folder / "records.jsonl").write_bytes(b"".join(map(RUN.encode, (header, *records, *costs))))
    return folder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["status", "report", "compare"])
def test_a_terminal_obeys_no_name(tmp_path, monkeypatch, capsys, undrawn, name, command):
    run = write_run(tmp_path / "run", name, "other")
    assert bench(monkeypatch, command, run) == 0
    said = capsys.readouterr()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", said.out + said.err)
    assert plain(name) in said.out
    for path in run.glob("*.[cmt]*"):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", path.read_text())


def test_figures_are_drawn_whatever_the_names(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", *NAMES)
    assert bench(monkeypatch, "report", run) == 0
    assert (run / "certified_accuracy.png").stat().st_size > 0


def test_a_message_obeys_no_name(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run", "\x1b[2J", "other")
    assert bench(monkeypatch, "export-log", run, "--method", "none", "--sigma", 0.5) == 1
    assert "it holds \\x1b[2J at sigma 0.5" in capsys.readouterr().err


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_spreadsheet_computes_no_name(tmp_path, monkeypatch, undrawn, start):
    name = f"{start}cmd|'/C calc'!A0"
    run = write_run(tmp_path / "run", name, "other")
    assert bench(monkeypatch, "report", run) == 0
    assert bench(monkeypatch, "compare", run, "--out", run) == 0
    tables = list(run.glob("*.csv"))
    assert len(tables) > 3
    for path in tables:
        with path.open(newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.startswith(start) and re.search("[a-z]{3}", cell)], (
            path.name
        )
        assert f"'{name}" in cells


@pytest.mark.parametrize("value", ["-1.5", "+3", "-.5e-3", "word", "", -2.0, 7, None])
def test_numbers_and_words_stay_as_they_are_in_csv_files(value):
    assert csv_text(value) == value
