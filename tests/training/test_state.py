"""The saved state of a training: damaged, of an older version, and of two training runs at once."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from bench.errors import BusyError, CheckpointError
from bench.training.loop import fit
from tests.support.tiny import job
from tests.training.test_loop import RECIPE, Rising, killed_and_resumed, stopped_at


def stopped(work):
    with pytest.raises(KeyboardInterrupt):
        fit("stage", Rising(work), RECIPE, dataclasses.replace(work, report=stopped_at(5)))
    return work.workspace / "stage.pt"


def test_a_state_with_one_changed_byte_is_refused(tmp_path):
    path = stopped(work := job(tmp_path))
    content = path.read_bytes()
    values = torch.load(path)["network"]["2.weight"].numpy().tobytes()
    place = content.index(values) + len(values) // 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(
        CheckpointError, match=r"does not continue this training .*does not match its checksum"
    ):
        fit("stage", Rising(work), RECIPE, work)


@pytest.mark.parametrize("part", ["losses", "step"])
def test_a_state_that_lacks_a_part_is_refused_and_gives_way_where_asked(tmp_path, part):
    path = stopped(work := job(tmp_path))
    state = torch.load(path)
    del state[part]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=f"does not continue this training .*it lacks {part}"):
        fit("stage", Rising(work), RECIPE, work)
    assert fit("stage", Rising(work), RECIPE, dataclasses.replace(work, again=True)).steps == 7


def test_a_stage_is_trained_by_one_process_at_a_time(tmp_path):
    work = job(tmp_path)
    work.workspace.mkdir(exist_ok=True)
    holds = (
        "import pathlib, sys; from bench.records.lines import alone\n"
        f"with alone(pathlib.Path({str(work.workspace / 'stage.pt')!r}), ''):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", holds], **pipes) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(
            BusyError, match=rf"another process \(pid {other.pid}\) writes to .*stage.pt: wait"
        ):
            fit("stage", Rising(work), RECIPE, work)
        other.stdin.close()
    assert killed_and_resumed(Rising, RECIPE, work, 5).steps == 7
