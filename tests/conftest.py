"""The smallest trained world, built once for all tests that need one."""

import shutil

import pytest
from matplotlib.figure import Figure

from bench.report.figures import style
from tests.support.tiny import arguments, bench, image_tree


@pytest.fixture(autouse=True)
def _pipe(monkeypatch):
    """Output goes to a pipe, whatever the width of the terminal that the tests were started from."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a data set, a zoo trained on it by `bench run`, and that run in `run`; not to be changed."""
    root = tmp_path_factory.mktemp("trained")
    image_tree(root / "data")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        (root / "zoo").mkdir()
        assert bench(monkeypatch, "run", *arguments(root, "--out", root / "run")) == 0
    return root


@pytest.fixture
def root(trained, tmp_path, monkeypatch):
    """A copy of `trained` for one test that changes it, with the current folder elsewhere."""
    shutil.copytree(trained, tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "root"


@pytest.fixture
def undrawn(monkeypatch):
    """Have figures written empty, for tests of commands that look at none: drawing is most of a report's time."""
    monkeypatch.setattr(style, "_lay_out", lambda figure: None)
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **options: None)
