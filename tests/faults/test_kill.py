"""SIGKILL at every moment of a run: whoever resumes ends with the records of an uninterrupted run."""

import random
import time

import pytest

from bench.records.file import FILE_NAME, read_run
from tests.support import killed_run, synthetic_method
from tests.support.killed_run import die_at, in_child
from tests.support.tiny import bench


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_kill_at_any_call_that_writes_loses_nothing(tmp_path, is_cut):
    killed_run.run(tmp_path / "whole")
    whole = (tmp_path / "whole" / FILE_NAME).read_bytes()
    step, kills = 0, 0
    while True:
        folder = tmp_path / f"step{step}"
        if in_child(lambda at=step, to=folder: (die_at(at, is_cut), killed_run.run(to))):
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
        in_child(
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


def identities(folder):
    """Return what the records file in a folder certifies; none where there is no file yet."""
    if not (folder / FILE_NAME).exists():
        return set()
    return {(record.method, record.sigma, record.index) for record in read_run(folder).records}


@pytest.mark.slow
def test_thirty_kills_of_the_command_lose_nothing(tmp_path, monkeypatch, undrawn):
    """Ten at a random moment, ten at a random call that writes, ten between the writing of a file and its renaming.

    Each run is a fork of this process, so that the kills fall into the run and not into its imports. Other radii
    have the header written again, with all records behind it.
    """
    import torchvision  # noqa: F401  # this and the next: what the command imports when it is called

    from bench.report.figures import accuracy  # noqa: F401
    from bench.runs import runner  # noqa: F401

    synthetic_method.register(monkeypatch)
    arguments = synthetic_method.arguments(tmp_path, "--n", 500)

    def run(name, *options, dies=lambda: None):
        dies()
        assert bench(monkeypatch, "run", *arguments, "--out", tmp_path / name, *options) == 0

    def ends(kind, number):
        """Begin or continue the run; return whether it ended before it was killed."""
        if kind == "moment":
            return in_child(lambda: run("parts"), seconds=chance.uniform(0, lasted))
        if kind == "call":
            step, is_cut = chance.randrange(40), chance.random() < 0.5
            return in_child(lambda: run("parts", dies=lambda: die_at(step, is_cut)))
        return in_child(
            lambda: run("parts", "--radii", f"0,{number}", dies=lambda: die_at(0, False, ("replace",)))
        )

    started = time.perf_counter()
    assert in_child(lambda: run("whole"))
    lasted = time.perf_counter() - started
    chance, kills, anew, before = random.Random(0), 0, 0, set()
    while kills < 30:
        if ends(("moment", "call", "rename")[kills % 3], kills + 1):
            (tmp_path / "parts" / FILE_NAME).unlink()  # it ended before its kill: begin again
            anew, before = anew + 1, set()
            continue
        done = identities(tmp_path / "parts")
        assert before <= done
        kills, before = kills + 1, done
    assert in_child(lambda: run("parts"))
    print(f"30 kills, {anew} runs begun again; an uninterrupted run lasted {lasted:.1f} s")
    whole, parts = read_run(tmp_path / "whole"), read_run(tmp_path / "parts")
    assert synthetic_method.without_times(parts) == synthetic_method.without_times(whole)
