"""What lies in a run's folder: links are not written through, files that vanish are noticed, devices are not read."""

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

from bench.errors import RecordsError
from bench.records import disk
from bench.records.disk import replace_file
from bench.records.file import FILE_NAME, RecordsFile, read_run
from bench.training import curves
from bench.training.checkpoints import save_checkpoint
from tests.records.test_file import HEADER, record, write
from tests.support import synthetic_method
from tests.support.tiny import bench
from tests.training.test_curves import LOOK

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def victim(tmp_path):
    """A file elsewhere that must stay as it is."""
    path = tmp_path / "victim"
    path.write_text("mine")
    yield path
    assert path.read_text() == "mine"


@pytest.fixture
def run(tmp_path):
    write(tmp_path / "run", record(0), record(20))
    return tmp_path / "run"


@pytest.mark.parametrize(
    "name", ["certified_accuracy.csv", "acr.md", "certified_accuracy.png", "report.html"]
)
def test_no_table_figure_or_page_is_written_through_a_link(run, victim, monkeypatch, capsys, name):
    (run / name).symlink_to(victim)
    assert bench(monkeypatch, "report", run, "--html") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"bench: {run / name} is a link, and nothing is written through a link: remove it" in line


@pytest.mark.parametrize("name", [".lock", FILE_NAME])
def test_no_lock_or_record_is_written_through_a_link(tmp_path, run, victim, name):
    (run / name).rename(tmp_path / "old")
    (run / name).symlink_to(victim if name == ".lock" else tmp_path / "old")
    before = (tmp_path / "old").read_bytes()
    with pytest.raises(RecordsError, match=f"{name} is a link, and nothing is written through a link"):
        RecordsFile.create_or_resume(run, HEADER)
    assert (tmp_path / "old").read_bytes() == before


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path, victim):
    (tmp_path / "run").mkdir()
    for name in ("records.tmp", f".bench-{os.getpid()}.tmp"):
        (tmp_path / "run" / name).symlink_to(victim)
    write(tmp_path / "run", record(0))
    assert len(read_run(tmp_path / "run").records) == 1


def test_no_audit_is_written_into_a_linked_folder(root, tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere").mkdir()
    (root / "run" / "audit").symlink_to(tmp_path / "elsewhere")
    for options in ((), ("--batch-size", "8,16")):
        assert bench(monkeypatch, "audit", root / "run", "--methods", "rrcm", "--images", 1, *options) == 1
        assert f"{root / 'run' / 'audit'} is a link" in capsys.readouterr().err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_no_checkpoint_or_curve_is_written_through_a_link(tmp_path, victim):
    (tmp_path / "link").symlink_to(victim)
    for write_to in (
        lambda path: save_checkpoint(path, {}, config={}, training={}),
        lambda path: curves.append(path, LOOK),
    ):
        with pytest.raises(RecordsError, match="link is a link"):
            write_to(tmp_path / "link")


def test_a_table_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    replace_file(path, "old")

    def failing(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(disk.os, step, failing)
            with pytest.raises(OSError, match="No space left"):
                replace_file(path, "new")
        assert [one.read_text() for one in tmp_path.iterdir()] == ["old"]
    replace_file(path, "new")
    assert path.read_text() == "new"


def test_a_pipe_or_device_is_written_to_and_stays_what_it_is():
    replace_file(Path("/dev/null"), "anything")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("way", ["folder removed", "file removed", "file replaced", "folder moved"])
def test_a_run_whose_file_vanishes_ends_at_once_and_says_so(tmp_path, way):
    folder = tmp_path / "run"
    with RecordsFile.create_or_resume(folder, HEADER) as file:
        file.append(record(0))
        if way == "folder removed":
            shutil.rmtree(folder)
        elif way == "folder moved":
            folder.rename(tmp_path / "other")
        else:
            (folder / FILE_NAME).rename(tmp_path / "old")
        if way == "file replaced":
            shutil.copy(tmp_path / "old", folder / FILE_NAME)
        with pytest.raises(
            RecordsError, match="was removed, moved or replaced while this command wrote to it"
        ):
            file.append(record(20))


def test_a_run_ends_at_the_image_in_hand_when_its_folder_is_removed(tmp_path, monkeypatch, capsys):
    synthetic_method.register(monkeypatch)
    out = tmp_path / "run"
    monkeypatch.setitem(
        synthetic_method.FAULTS, "vanish", lambda logits: shutil.rmtree(out, ignore_errors=True) or logits
    )
    monkeypatch.setattr(synthetic_method.Brightness, "fault", "vanish")
    monkeypatch.setattr(synthetic_method.Brightness, "at", 4)
    assert bench(monkeypatch, "run", *synthetic_method.arguments(tmp_path, "--out", out)) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bench: ")]
    assert "removed, moved or replaced while this command wrote to it: nothing more is computed" in lines[0]
    assert synthetic_method.Brightness.calls == 6
    assert not out.exists()


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_as_such(tmp_path, monkeypatch, reason):
    import fcntl

    def failing(*_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", failing)
    with pytest.raises(RecordsError, match=r"\.lock cannot be locked \(.*\): this file system has no locks"):
        RecordsFile.create_or_resume(tmp_path, HEADER)


def test_a_lock_with_other_content_than_a_number_is_a_lock(tmp_path):
    with RecordsFile.create_or_resume(tmp_path, HEADER):
        (tmp_path / ".lock").write_bytes(b"\xff\xfe")
        with pytest.raises(RecordsError, match=r"another process \(pid unknown\) writes to"):
            RecordsFile.create_or_resume(tmp_path, HEADER)


IMPORT = ("--dataset=cifar10", "--sigma=1", "--alpha=0.1", "--n=9", "--method=m", "--out=out")
READERS = [
    ("report", "FILE", "--out", "out"),
    ("compare", "FILE"),
    ("status", "FILE"),
    ("import-log", "FILE", *IMPORT),
    ("check-log", "FILE", "--sigma", "0.5", "--n", "1000", "--alpha", "0.001"),
    ("run", "--dry-run", "--preset", "FILE"),
    ("run", "--subset", "file:FILE", "--methods", "rrcm", "--out", "out"),
    ("curves", "FILE"),
    ("doctor", "--checkpoint", "FILE"),
    ("import-checkpoint", "FILE", "--out", "out.safetensors"),
]


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "sparse"])
@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
def test_no_reader_waits_for_what_has_no_end(tmp_path, monkeypatch, capsys, command, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.toml"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 2**40)
    assert bench(monkeypatch, *(part.replace("FILE", str(path)) for part in command)) in (1, 2)
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bench: ")]
    assert len(line) < 1000
    assert not (tmp_path / "out").exists()


def test_a_system_without_file_locks_reads_and_does_not_write(tmp_path, monkeypatch):
    write(tmp_path, record())
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert read_run(tmp_path).records == (record(),)
    with pytest.raises(
        RecordsError, match="cannot be locked on this system: write records on Linux or macOS"
    ):
        RecordsFile.create_or_resume(tmp_path, HEADER)


def test_writers_of_one_number_on_two_machines_do_not_share_a_file(tmp_path, monkeypatch):
    names = set()
    for node, target in (("a", "one"), ("b", "one"), ("a", "two")):
        monkeypatch.setattr(disk.platform, "node", lambda node=node: node)
        with disk.replacing(tmp_path / target):
            names |= {path.name for path in tmp_path.glob(".bench-*.tmp")}
    assert len(names) == 3
