"""Ctrl-C, sent to the real command as a process: one line, exit code 130, nothing lost, at work of each kind."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from bench.records.file import FILE_NAME, read_run
from tests.support.tiny import OPTIONS, image_tree

SLOW = """
import time
import torch

def make():
    def classify(x):
        time.sleep(0.05)
        return torch.stack([x.mean((1, 2, 3)), 0.4 - x.mean((1, 2, 3))], 1)
    return classify
"""
"""A classifier so slow that its run cannot end before it is interrupted."""

PATIENCE = 120
"""Seconds after which a process that does not come as far as it should has failed."""


@pytest.fixture
def interrupted(tmp_path):
    """Return a function: a command, and what tells that it is at work -> exit code and lines on stderr."""
    processes = []

    def run(command, is_at_work):
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.cli", *map(str, command)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        processes.append(process)
        deadline = time.monotonic() + PATIENCE
        while not is_at_work():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the command
        errors = process.communicate(timeout=PATIENCE)[1]
        return process.returncode, errors.splitlines()

    yield run
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def check(code, lines):
    assert code == 130
    assert [line for line in lines if "Traceback" in line] == []
    said = [line for line in lines if line.startswith("bench: ")]
    assert said == ["bench: interrupted; everything certified is kept, repeat the command to continue"]


def data(tmp_path):
    root = image_tree(tmp_path / "data")
    return ["--dataset", "folder", "--data-dir", root, "--image-size", 8, "--device", "cpu"]


@pytest.mark.parametrize("engine", [[], ["--engine", "processes", "--workers", 2]], ids=["here", "processes"])
def test_ctrl_c_while_certifying_is_one_line_and_keeps_the_records(interrupted, tmp_path, engine):
    (tmp_path / "slow.py").write_text(SLOW)
    sizes = ["--n", 1000, "--n0", 100, "--sigmas", "0.25,0.5,1", "--cost-repetitions", 0]
    command = ["run", *data(tmp_path), "--methods", "slow:make", *sizes, "--out", "run", *engine]
    file = tmp_path / "run" / FILE_NAME
    check(*interrupted(command, lambda: file.exists() and file.read_bytes().count(b"\n") > 1))
    assert 0 < len(read_run(tmp_path / "run").records) < 24


def test_ctrl_c_while_training_is_one_line_and_keeps_the_state(interrupted, tmp_path):
    options = {**OPTIONS["gaussian"], "max_steps": 10**6, "evaluate_every": 10**6}
    changes = [f"--set=gaussian.{name}={value}" for name, value in options.items()]
    command = ["train", "gaussian", *data(tmp_path), "--zoo", "zoo", "--checkpoint-every", 1, *changes]
    check(*interrupted(command, lambda: list(tmp_path.rglob("*gaussian*.pt")) != []))
