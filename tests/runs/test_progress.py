"""The lines that tell a run's progress where nothing draws a bar."""

from bench.runs.progress import ProgressLines
from tests.support.fake_runs import make_run


def test_lines_come_at_intervals_and_at_the_end_of_each_method():
    now, said = [0.0], []
    lines = ProgressLines(said.append, seconds=30, clock=lambda: now[0])
    records = make_run(methods=["rrcm"], sigmas=[0.5], images=5).records
    lines.begin("rrcm", 0.5, total=6, done=1, certified=1)
    for record, seconds in zip(records, (10, 31, 50, 60, 62), strict=True):
        now[0] = seconds
        lines.certified(record)
    told = [f"rrcm at sigma 0.5: {done} of 6 images certified" for done in (3, 6)]
    assert said == told
