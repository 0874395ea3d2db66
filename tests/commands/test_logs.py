"""Logs on the command line: what is refused leaves runs as they are."""

import pytest

from bench.records.file import read_run, write_run
from tests.support.fake_runs import make_run
from tests.support.tiny import bench

pytestmark = pytest.mark.usefixtures("undrawn")

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"

IMPORT = ("--dataset", "cifar10", "--n", 100_000, "--alpha", 0.001, "--method", "m")


def test_a_log_that_is_refused_leaves_the_run_as_it_was(tmp_path, monkeypatch, capsys):
    for name, last in (("a", "0.1"), ("b", "0.2")):
        more = "20\t7\t7\t0.1\t1\t1\n" * (name == "b")
        (tmp_path / f"{name}.tsv").write_text(f"{HEADER}0\t3\t3\t{last}\t1\t1\n{more}")
    order = ("import-log", tmp_path / "a.tsv", "--sigma", 0.25, *IMPORT, "--out", tmp_path / "run")
    assert bench(monkeypatch, *order) == 0
    before = (tmp_path / "run" / "records.jsonl").read_bytes()
    assert bench(monkeypatch, *order[:1], tmp_path / "b.tsv", *order[2:]) == 1
    assert "already holds image 0 of m at sigma 0.25" in capsys.readouterr().err
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == before
    assert bench(monkeypatch, *order[:3], 0.2500001, *order[4:]) == 1
    assert "noise levels that are written alike, 0.25 and 0.2500001" in capsys.readouterr().err


def test_a_log_is_not_written_over_a_run(tmp_path, monkeypatch, capsys):
    write_run(tmp_path, make_run(methods=("rrcm",), sigmas=(0.25,), images=2))
    order = ("export-log", tmp_path, "--method", "rrcm", "--sigma", 0.25, "--out")
    for target, what in ((tmp_path / "records.jsonl", "a run"), (tmp_path, "a folder")):
        assert bench(monkeypatch, *order, target) == 1
        assert f"is {what}: give another file as --out" in capsys.readouterr().err
    assert len(read_run(tmp_path).records) == 2


def test_the_command_that_shows_a_log_can_be_typed_as_it_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tsv").write_text(f"{HEADER}0\t3\t3\t0.1\t1\t1\n")
    assert bench(monkeypatch, "import-log", "a.tsv", "--sigma", 0.25, *IMPORT, "--out", "my run") == 0
    assert capsys.readouterr().out.endswith("see them with: bench report 'my run'\n")


def test_a_log_is_not_written_over_what_is_no_log(tmp_path, monkeypatch, capsys):
    write_run(tmp_path, make_run(methods=("rrcm",), sigmas=(0.25,), images=2))
    (tmp_path / "kept.txt").write_text("precious")
    order = ("export-log", tmp_path, "--method", "rrcm", "--sigma", 0.25, "--out")
    assert bench(monkeypatch, *order, tmp_path / "kept.txt") == 1
    assert "exists and is no log: give another file as --out" in capsys.readouterr().err
    assert (tmp_path / "kept.txt").read_text() == "precious"
    for _ in range(2):
        assert bench(monkeypatch, *order, tmp_path / "log.tsv") == 0


@pytest.mark.parametrize("radii", ["1e-29,0.25", "0,1e-300"])
def test_radii_far_below_any_precision_are_refused(tmp_path, monkeypatch, capsys, radii):
    (tmp_path / "a.tsv").write_text(f"{HEADER}0\t3\t3\t0.1\t1\t1\n")
    order = ("import-log", tmp_path / "a.tsv", "--sigma", 0.25, *IMPORT, "--out", tmp_path / "run")
    assert bench(monkeypatch, *order, "--radii", radii) == 2
    assert "at least 1e-09" in capsys.readouterr().err
