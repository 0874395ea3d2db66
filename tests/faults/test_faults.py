"""Faults amid a run: one clear line, the documented exit code, and every record made before is kept."""

import ast
import contextlib
import dataclasses
import errno
from pathlib import Path

import pytest

from bench.device import batching
from bench.errors import RecordsError
from bench.records.file import FILE_NAME, RecordsFile, read_run
from bench.records.lines import os
from bench.runs import runner
from bench.runs.progress import Estimate
from tests.records.test_file import COST, HEADER, record, write
from tests.records.test_reading import edit
from tests.support import synthetic_method
from tests.support.tiny import bench

CALLS = 3
"""Calls of the classifier per image at the default batch size: n0 = 10, n = 100, then the image without noise."""


@contextlib.contextmanager
def broken(monkeypatch, fault, at):
    """Break the method in the block."""
    with monkeypatch.context() as patch:
        patch.setattr(synthetic_method.Brightness, "fault", fault)
        patch.setattr(synthetic_method.Brightness, "at", at)
        yield


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, undrawn):
    """Return a function: options -> exit code, the one line on stderr and the records."""
    synthetic_method.register(monkeypatch)
    monkeypatch.setattr(runner, "estimate", lambda *_: Estimate(certificates=0))  # its calls would be counted

    def run(*options):
        code = bench(
            monkeypatch, "run", *synthetic_method.arguments(tmp_path, "--out", tmp_path / "run", *options)
        )
        error = capsys.readouterr().err
        assert "Traceback" not in error
        lines = [line for line in error.splitlines() if line.startswith("bench: ")]
        assert len(lines) == (code != 0)
        is_begun = (tmp_path / "run" / FILE_NAME).exists()
        return code, "".join(lines), read_run(tmp_path / "run") if is_begun else None

    return run


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "nan",
            "brightness: logits are NaN or infinite in 10 of 10 selection samples of image 3 at sigma 0.25",
        ),
        ("infinite", "brightness: logits are NaN or infinite in 10 of 10 selection samples of image 3"),
        ("classes", "brightness: the classifier must return logits of shape (10, 2), one row per sample and"),
        ("samples", "got (9, 2): use a model of these classes"),
        ("dimensions", "got (10, 2, 1): use a model of these classes"),
        ("nothing", "got NoneType: return its logits"),
        (
            "memory",
            "out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.): everything certified is kept",
        ),
    ],
)
def test_a_fault_of_the_model_keeps_the_records_before_it_and_a_mended_one_goes_on(
    run, monkeypatch, fault, message
):
    options = ("--sigmas", "0.25", "--cost-repetitions", "0", "--limit", "4")
    with broken(monkeypatch, fault, at=CALLS):
        code, line, kept = run(*options)
    assert code == 1
    assert message in line
    assert len(kept.records) == 1
    code, _, mended = run(*options)
    assert code == 0
    assert mended.records[:1] == kept.records
    assert len(mended.records) == 4


@pytest.mark.parametrize("where", ["building", "measuring"])
def test_memory_that_ends_elsewhere_is_one_line_too(run, monkeypatch, where):
    def fail(*_, **__):
        raise (
            MemoryError("Unable to allocate 9 GiB")
            if where == "building"
            else RuntimeError("MPS out of memory")
        )

    monkeypatch.setattr(synthetic_method, "build", fail) if where == "building" else monkeypatch.setattr(
        "bench.runs.runner.measure_costs", fail
    )
    code, line, kept = run("--limit", "4")
    assert (code, kept and len(kept.records)) == (1, None if where == "building" else 8)
    assert "repeat the command with a smaller --batch-size, or on a device with more memory" in line


def test_an_error_that_is_not_about_memory_is_not_hidden(run, monkeypatch):
    def fail(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(synthetic_method, "build", fail)
    assert not batching.is_out_of_memory(RuntimeError("mat1 and mat2"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run()


def test_sigterm_ends_after_the_image_in_hand_with_143_and_the_run_resumes(run, monkeypatch):
    options = ("--sigmas", "0.25", "--cost-repetitions", "0")
    with broken(monkeypatch, "terminate", at=3 * CALLS):
        code, line, kept = run(*options)
    assert (code, len(kept.records)) == (143, 4)
    assert line == "bench: terminated; everything certified is kept, repeat the command to continue"
    code, _, whole = run(*options)
    assert (code, len(whole.records)) == (0, 8)
    assert whole.records[:4] == kept.records


def test_a_full_disk_amid_a_run_is_one_line_and_the_run_resumes(run, monkeypatch):
    written, os_write = [], os.write

    def failing(descriptor, line):
        written.append(line)
        if len(written) == 5:  # the lock, then three records
            raise OSError(errno.ENOSPC, "No space left on device")
        return os_write(descriptor, line)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing)
        code, line, kept = run("--cost-repetitions", "0")
    assert (code, len(kept.records)) == (1, 3)
    assert "No space left on device" in line
    assert "its whole lines are kept, and repeating the command resumes after them" in line
    code, _, whole = run("--cost-repetitions", "0")
    assert (code, len(whole.records)) == (0, 16)


@pytest.mark.parametrize("name", ["open", "mkdir"])
def test_a_read_only_folder_is_refused(tmp_path, monkeypatch, name):
    def failing(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", failing) if name == "mkdir" else monkeypatch.setattr(
        os, "open", failing
    )
    with pytest.raises(
        RecordsError, match=r"cannot be written .*Read-only file system.*: mend that, or give another --out"
    ):
        RecordsFile.create_or_resume(tmp_path, HEADER)


def test_no_time_is_taken_from_a_clock_that_may_jump():
    """Durations come from perf_counter; the wall clock dates headers and nothing else."""
    used = set()
    for package in ("bench", "baselines", "rrcm"):
        for path in (Path(__file__).parents[2] / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "datetime.now"):
                    used.add((path.stem, ast.unparse(node)))
    assert used == {(module, "datetime.now") for module in ("header", "logs", "request")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": 7}, "line 2: image 7 of rrcm at sigma 0.5 is not part of this run: remove the line"),
        ({"method": "other"}, "line 2: image 0 of other at sigma 0.5 is not part of this run"),
        ({"sigma": 0.75}, "line 2: image 0 of rrcm at sigma 0.75 is not part of this run"),
        ({"n": 500}, "was made with n0 = 100 and n = 500, the header says 100 and 1000: undo the change"),
    ],
)
def test_a_foreign_record_is_refused_by_its_line(tmp_path, changes, message):
    write(tmp_path, record(), COST)
    edit(tmp_path, 1, **changes)
    with pytest.raises(RecordsError, match=message):
        read_run(tmp_path)


def test_a_header_edited_by_hand_is_refused_by_its_field(tmp_path):
    write(tmp_path, record())
    edit(tmp_path, 0, n=500)
    with pytest.raises(RecordsError, match="made with n0 = 100 and n = 1000, the header says 100 and 500"):
        read_run(tmp_path)
    edit(tmp_path, 0, n=1000, alpha=0.01)
    for read in (read_run, lambda folder: RecordsFile.create_or_resume(folder, HEADER)):
        with pytest.raises(RecordsError, match=r"line 2: radius is 1.1\d+, but its counts certify 1.\d+ at"):
            read(tmp_path)


def test_a_newer_schema_names_the_version_to_install(tmp_path):
    write(tmp_path, header=dataclasses.replace(HEADER, libraries={"rrcm-bench": "7.1.0"}))
    edit(tmp_path, 0, schema_version=99)
    with pytest.raises(
        RecordsError, match=r"schema version 99 .* this one reads 1 and 2: install rrcm-bench 7.1.0$"
    ):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ('{"kind":"certificate","method":"\\ud800"}', "line 2 cannot be read "),
        ('{"kind":' + "[" * 100_000, "line 2 cannot be read .*recursion depth"),
    ],
)
def test_text_that_cannot_be_printed_and_endless_nesting_are_refused(tmp_path, tail, message):
    content = write(tmp_path, record())
    lines = content.splitlines()
    (tmp_path / FILE_NAME).write_bytes(b"\n".join([lines[0], tail.encode(), lines[1], b""]))
    with pytest.raises(RecordsError, match=message):
        read_run(tmp_path)
