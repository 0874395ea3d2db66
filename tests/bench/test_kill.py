"""SIGKILL at every moment of a run: whoever resumes ends with the records of an uninterrupted run."""

import random
import signal
import subprocess

import pytest

from bench.records import FILE_NAME, read_run
from tests import synthetic_method
from tests.bench import killed_run


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_kill_at_any_call_that_writes_loses_nothing(tmp_path, is_cut):
    killed_run.run(tmp_path / "whole")
    whole = (tmp_path / "whole" / FILE_NAME).read_bytes()
    step, kills = 0, 0
    while True:
        folder = tmp_path / f"step{step}"
        if killed_run.in_child(
            lambda at=step, to=folder: (killed_run.die_at(at, is_cut), killed_run.run(to))
        ):
            break
        killed_run.run(folder)
        assert (folder / FILE_NAME).read_bytes() == whole
        step, kills = step + 1, kills + 1
    assert kills > 20  # a lock, a header written twice and 8 records
    assert (folder / FILE_NAME).read_bytes() == whole


def test_kills_at_random_moments_of_a_run_and_of_its_resumptions_lose_nothing(tmp_path):
    killed_run.run(tmp_path / "whole", images=20)
    moments = random.Random(0)
    before = 0
    for _ in range(5):
        killed_run.in_child(
            lambda: killed_run.run(tmp_path / "parts", images=20, seconds=0.002),
            seconds=moments.uniform(0.005, 0.05),
        )
        if (tmp_path / "parts" / FILE_NAME).exists():
            done = len(read_run(tmp_path / "parts").records)
            assert done >= before
            before = done
    killed_run.run(tmp_path / "parts", images=20)
    content = [(tmp_path / name / FILE_NAME).read_bytes() for name in ("whole", "parts")]
    assert content[0] == content[1]


@pytest.mark.slow
def test_thirty_kills_of_the_command_lose_nothing(tmp_path):
    command = synthetic_method.command(tmp_path, "--n", "20000")
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, capture_output=True)
    resumed = [*command, "--out", str(tmp_path / "parts")]
    moments, kills = random.Random(0), 0
    while kills < 30:
        with subprocess.Popen(resumed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            path = tmp_path / "parts" / FILE_NAME
            try:
                process.wait(timeout=moments.uniform(0, 12) if path.exists() else 30)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            if process.returncode == 0:
                path.unlink(missing_ok=True)  # it ended before its kill: begin again
    subprocess.run(resumed, check=True, capture_output=True)
    whole, parts = read_run(tmp_path / "whole"), read_run(tmp_path / "parts")
    assert synthetic_method.without_times(parts) == synthetic_method.without_times(whole)
