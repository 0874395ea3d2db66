"""`bench report`, `compare` and `recertify`: the runs are compared once, and what is asked for is written."""

import pytest

from bench.records.file import write_run
from bench.report.comparison import Comparison
from bench.report.page import pictures
from bench.report.page.write import FILE_NAME
from tests.support.fake_runs import make_run
from tests.support.page_runs import hostile_run, picture_split
from tests.support.tiny import arguments, bench

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def compared(monkeypatch):
    """The comparisons that a command makes, in a list that grows."""
    made, initialise = [], Comparison.__init__

    def counted(self, **values):
        made.append(self)
        initialise(self, **values)

    monkeypatch.setattr(Comparison, "__init__", counted)
    return made


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (("report", "RUN", "--html", "--published", "--out", "OUT"), {FILE_NAME, "acr.md", "envelope.pdf"}),
        (("compare", "RUN", "--out", "OUT"), {"paired.tex", "assured.csv"}),
        (
            ("recertify", "RUN", "--alpha", "0.01", "--out", "OUT"),
            {"records.jsonl", "acr.md", "envelope.pdf"},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_runs_are_compared_once_whatever_is_made_of_them(
    command, names, compared, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(pictures, "load", lambda *args, **options: picture_split())
    write_run(tmp_path / "RUN", hostile_run(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert bench(monkeypatch, *command) == 0
    assert len(compared) == 1
    assert names <= {path.name for path in (tmp_path / "OUT").iterdir()}
    shown = capsys.readouterr().out
    assert (f"Page: OUT/{FILE_NAME}" in shown) == ("--html" in command)


NAMED = ("--label", "dds=The others", "--dataset-label", "Digits")


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("recertify", "RUN", "--alpha", "0.01", "--out", "OUT"), "acr.md"),
        (("cost", "--run", "RUN", "--out", "OUT"), "equal_accuracy.md"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_names_of_ones_own_are_in_what_every_command_writes(command, file, tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "RUN", hostile_run(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert bench(monkeypatch, *command, "--label", "ddz=The others") == 2
    assert "--label names 'ddz'; did you mean 'dds'?" in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()
    assert bench(monkeypatch, *command, *NAMED) == 0
    assert "The others" in (tmp_path / "OUT" / file).read_text()


def test_names_of_ones_own_change_the_tables_of_a_run_and_nothing_else(root, monkeypatch, capsys):
    command = arguments(root, "--out", root / "run")
    before = (root / "run" / "records.jsonl").read_bytes()
    assert bench(monkeypatch, "run", *command, "--label", "rrmc=Ours") == 2
    assert "--label names 'rrmc'; did you mean 'rrcm'?" in capsys.readouterr().err
    assert bench(monkeypatch, "run", *command, "--label", "rrcm=Ours", "--dataset-label", "Digits") == 0
    assert "Ours" in capsys.readouterr().out
    assert "| Ours" in (root / "run" / "acr.md").read_text()
    assert (root / "run" / "records.jsonl").read_bytes() == before
    assert bench(monkeypatch, "run", *command, "--label", "rrcm=Ours", "--shard", "1/2") == 2
    assert "a shard has none: give it to `bench merge`" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path, monkeypatch, capsys, command):
    write_run(tmp_path, make_run(methods=["rrcm", "dds"], images=2))
    (tmp_path / "kept.txt").write_text("precious")
    assert bench(monkeypatch, command, tmp_path, "--out", tmp_path / "kept.txt") == 1
    assert "kept.txt', where a folder is needed: give another --out" in capsys.readouterr().err
    assert bench(monkeypatch, command, tmp_path / "kept.txt", "--out", tmp_path / "out") == 1
    assert "kept.txt is no file of records: give the folder of a run" in capsys.readouterr().err
