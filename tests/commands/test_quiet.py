"""-q of the commands that print more than results."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny import bench

RUN = "results/mnist5k"


def printed(monkeypatch, capsys, *words):
    assert bench(monkeypatch, *words) == 0
    return capsys.readouterr()


def test_status_prints_its_table_alone(monkeypatch, capsys):
    out = printed(monkeypatch, capsys, "status", RUN, "-q").out
    assert "seconds per image" in out
    assert "Costs measured" not in out
    assert "Costs measured" in printed(monkeypatch, capsys, "status", RUN).out


def test_list_prints_names_that_a_shell_can_read(monkeypatch, capsys):
    assert printed(monkeypatch, capsys, "list", "datasets", "-q").out.split()[:2] == ["mnist5k", "mnist"]


def test_cost_prints_the_table_without_notes_or_files(monkeypatch, capsys, tmp_path):
    told = printed(monkeypatch, capsys, "cost", "--run", "tests/records/old", "--out", tmp_path)
    assert "Written: " in told.out
    quiet = printed(monkeypatch, capsys, "cost", "--run", "tests/records/old", "--out", tmp_path, "-q")
    assert quiet.err == ""
    assert "Written" not in quiet.out
    assert quiet.out.strip()
    assert told.out.startswith(quiet.out.rstrip("\n"))


def test_plan_prints_no_progress_and_no_notes(monkeypatch, capsys):
    words = (
        "plan",
        "--methods",
        "gaussian",
        "--sigma",
        "0.5",
        "--images",
        "4",
        "--n",
        "100",
        "--device",
        "cpu",
    )
    quiet = printed(monkeypatch, capsys, *words, "-q")
    assert quiet.err == ""
    assert "gaussian" in quiet.out.casefold()


@pytest.mark.parametrize(("command", "words"), [("certify", 2), ("predict", 1)])
def test_an_image_gets_its_class_and_radius_alone(monkeypatch, capsys, tmp_path, command, words):
    Image.fromarray(np.zeros((28, 28), dtype=np.uint8)).save(tmp_path / "a.png")
    options = ("--method", "gaussian", "--n", "100", "--device", "cpu", "-q")
    out = printed(monkeypatch, capsys, command, tmp_path / "a.png", *options).out
    assert len(out.splitlines()) == 1
    assert len(out.split()) == words
