"""Curves of a training: what a line says, what resuming drops, which files are refused."""

import dataclasses
import errno
import os

import pytest

from bench.errors import RecordsError
from bench.report.figures.curves import draw_curves
from bench.training.curves import HEADER, Look, append, keep_until, read

LOOK = Look(
    stage="s", step=2, loss=0.1 + 0.2, score=None, learning_rate=1e-3, seconds=1.5, images=16, waiting=0.25
)
LATER = dataclasses.replace(LOOK, step=4, score=0.5)


@pytest.fixture
def path(tmp_path):
    append(tmp_path / "state" / "s.csv", LOOK)
    append(tmp_path / "state" / "s.csv", LATER)
    return tmp_path / "state" / "s.csv"


def test_looks_come_back_as_they_were_written(path):
    assert path.read_text().splitlines()[0] == ",".join(HEADER)
    assert read(path) == (LOOK, LATER)


@pytest.mark.parametrize(("step", "kept"), [(4, (LOOK, LATER)), (3, (LOOK,))])
def test_looks_after_the_saved_step_and_a_cut_line_are_dropped(path, step, kept):
    path.write_text(path.read_text() + "s,6,0.")
    keep_until(path, step)
    assert read(path) == kept


def test_a_training_that_begins_anew_has_no_curves(path):
    keep_until(path, 0)
    assert not path.exists()


@pytest.mark.parametrize("written", [0, 10, 58])
@pytest.mark.parametrize("truncates", [True, False])
def test_a_full_disk_at_the_first_look_leaves_a_file_that_is_continued(
    tmp_path, monkeypatch, written, truncates
):
    path, os_write = tmp_path / "s.csv", os.write

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, line: os_write(descriptor, line[:written]))
        if not truncates:
            patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(OSError, match=f"only {written} of "):
            append(path, LOOK)
    assert path.stat().st_size == (0 if truncates else written)
    keep_until(path, 9)
    append(path, LOOK)
    assert read(path) == (LOOK,)


def test_an_empty_file_is_begun(tmp_path):
    (tmp_path / "s.csv").touch()
    append(tmp_path / "s.csv", LOOK)
    assert read(tmp_path / "s.csv") == (LOOK,)


def test_files_that_are_no_curves_are_refused(path):
    with pytest.raises(RecordsError, match="No curves at"):
        read(path.with_name("other.csv"))
    path.write_text(path.read_text() + "s,x,,,0,0,0,0\n")
    with pytest.raises(RecordsError, match="has a line that is no look"):
        read(path)
    path.write_text("a,b\n")
    with pytest.raises(RecordsError, match="begins with 'a,b', expected 'stage,step"):
        read(path)


def test_figure_has_a_line_per_file_and_a_panel_of_scores_only_where_there_are_any(path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, out, **options: drawn.append(figure.axes))
    other = path.parent / "t.csv"
    append(other, LOOK)
    draw_curves([path, other], path.with_suffix(".png"))
    draw_curves([other], path.with_suffix(".png"))
    seeds = [path.parent / seed / "training" / "s.csv" for seed in ("0", "1")]
    for seed in seeds:
        append(seed, LOOK)
    draw_curves(seeds, path.with_suffix(".png"))
    both, loss_alone, same_stage = drawn
    assert [len(axes.lines) for axes in both] == [2, 1]
    assert [text.get_text() for text in both[0].get_legend().get_texts()] == ["s", "t"]
    assert [len(axes.lines) for axes in loss_alone] == [1]
    assert [text.get_text() for text in same_stage[0].get_legend().get_texts()] == ["0", "1"]


def test_no_two_of_many_curves_have_one_colour(path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, out, **options: drawn.extend(figure.axes))
    many = [path.parent / f"{number}.csv" for number in range(12)]
    for one in many:
        append(one, LOOK)
    draw_curves(many, path.with_suffix(".png"))
    assert len({line.get_color() for line in drawn[0].lines}) == 12
