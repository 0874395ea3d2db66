"""The files of figures: bytes, suffixes, who writes them, and what they leave alone."""

import subprocess
import sys

import matplotlib
import pytest

from bench.report.comparison import compare
from bench.report.figures.write import FIGURES, make_figures, write_figures
from tests.support.fake_runs import ONE_SIGMA, make_run


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures") / "made"
    return folder, write_figures(compare([make_run(sigmas=[0.5])]), folder)


def test_every_figure_is_written_as_png_and_pdf(written):
    folder, paths = written
    assert paths == [folder / f"{name}.{kind}" for name in ONE_SIGMA for kind in ("png", "pdf")]
    assert set(make_figures(compare([make_run()]))) == set(FIGURES)
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"%PDF")


def test_the_same_runs_give_the_same_bytes_whatever_the_users_settings(written, tmp_path):
    with matplotlib.rc_context({"font.size": 31, "pdf.fonttype": 3, "axes.titleweight": "bold"}):
        again = write_figures(compare([make_run(sigmas=[0.5])]), tmp_path)
    assert [path.read_bytes() for path in written[1]] == [path.read_bytes() for path in again]


def test_pdf_embeds_its_fonts_as_truetype(written):
    content = written[1][1].read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_importing_leaves_matplotlibs_settings_alone():
    code = "import matplotlib; before = dict(matplotlib.rcParams); import bench.report.figures.write; "
    code += "assert dict(matplotlib.rcParams) == before"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_writing_leaves_matplotlibs_settings_alone(tmp_path):
    with matplotlib.rc_context({"font.size": 31, "pdf.fonttype": 3, "axes.titleweight": "bold"}):
        before = dict(matplotlib.rcParams)
        write_figures(compare([make_run(methods=["rrcm"], sigmas=[0.5])]), tmp_path)
        assert dict(matplotlib.rcParams) == before


def test_an_old_figure_that_cannot_be_drawn_is_removed(tmp_path):
    (tmp_path / "overview.pdf").write_bytes(b"old")
    (tmp_path / "mine.pdf").write_bytes(b"kept")
    write_figures(compare([make_run(sigmas=[0.5], with_costs=False)]), tmp_path)
    names = {name for name in ONE_SIGMA if name != "accuracy_against_cost"}
    assert {path.stem for path in tmp_path.glob("*.pdf")} == names | {"mine"}


BY_PROCESSES = """
import os, signal, sys, time
from pathlib import Path
from bench.records.disk import replacing
from bench.report.comparison import compare
from bench.report.figures import write
from tests.support.fake_runs import make_run

def refused():
    raise BlockingIOError(11, "Resource temporarily unavailable")

if "refused" in sys.argv:
    os.fork = refused
if "killed" in sys.argv:
    write.write_figures = lambda *args: os.kill(os.getpid(), signal.SIGKILL)

def half(*args):
    with replacing(Path(sys.argv[1]) / "half.png"):
        (Path(sys.argv[1]) / f"{os.getpid()}.begun").touch()
        time.sleep(60)

if "raised" in sys.argv:
    write.write_figures = half
with write.figures_written_by(2, compare([make_run(sigmas=[0.5])]), Path(sys.argv[1])) as figures:
    while "raised" in sys.argv:
        if len(list(Path(sys.argv[1]).glob("*.begun"))) == 2:
            raise ZeroDivisionError
        time.sleep(0.01)
    print(*figures(), sep="\\n")
"""


def by_processes(folder, *how):
    """Return a finished process that had others write figures."""
    command = [sys.executable, "-c", BY_PROCESSES, folder, *how]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("how", [(), ("refused",)])
def test_processes_write_the_bytes_that_one_writes_even_where_none_can_be_started(written, tmp_path, how):
    paths = [tmp_path / path.name for path in written[1]]
    assert by_processes(tmp_path, *how).stdout.split() == [str(path) for path in paths]
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in written[1]]


def test_what_stops_a_process_that_draws_stops_all_and_is_told(tmp_path):
    (tmp_path / "certified_accuracy.png").mkdir()
    for how, told in (
        ((), "IsADirectoryError"),
        (("killed",), "EngineError: a process that draws figures has died"),
    ):
        done = by_processes(tmp_path, *how)
        assert done.returncode == 1
        assert told in done.stderr


def test_figures_are_given_up_where_what_is_done_beside_them_fails(tmp_path):
    assert by_processes(tmp_path, "raised").stderr.splitlines()[-1] == "ZeroDivisionError"
    assert not list(tmp_path.glob(".bench-*"))
