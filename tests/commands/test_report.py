"""`bench report`, `compare` and `recertify`: the runs are compared once, and what is asked for is written."""

import pytest

from bench.records.file import write_run
from bench.report.comparison import Comparison
from bench.report.page import pictures
from bench.report.page.write import FILE_NAME
from tests.support.page_runs import hostile_run, picture_split
from tests.support.tiny import bench

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
