"""Streams that cannot take what is printed: encodings that lack characters, and none at all."""

import errno
import io
import json
import os
import subprocess
import sys

import pytest

from bench import cli
from bench.commands.terminal.machine import print_json
from bench.commands.terminal.streams import replace_lacking
from tests.support.tiny import bench

ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("encoding", [{"PYTHONIOENCODING": "cp1252"}, ASCII_LOCALE], ids=["cp1252", "ascii"])
def test_a_table_is_printed_whole_where_the_encoding_lacks_its_rules(encoding):
    run = subprocess.run(
        [sys.executable, "-m", "bench.cli", "status", "results/mnist5k"],
        env={**os.environ, **encoding},
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert b"All images are certified." in run.stdout


def test_json_is_whole_where_the_encoding_lacks_its_characters(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    print_json({"name": "σ"})
    assert json.loads(raw.getvalue().decode("cp1252")) == {"name": "σ"}


def test_streams_that_are_none_or_have_no_encoding_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    replace_lacking()


@pytest.mark.parametrize(("command", "is_continued"), [("status", False), ("run", True)])
def test_a_full_disk_has_the_command_repeated_only_where_that_continues_it(
    command, is_continued, monkeypatch, capsys
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli.cli, "main", full)
    assert bench(monkeypatch, command, "results/mnist5k") == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert ("repeat the command to continue" in error) == is_continued
