"""A run in short, for README: what it was made with, and speeds only where `bench cost` would call them VALID."""

from dataclasses import replace

import pytest

from bench.commands.terminal.summary import summary
from bench.records.file import write_run
from tests.support.fake_runs import make_run


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_a_speed_is_a_verdict_only_where_repetitions_agree(tmp_path, spread):
    run = make_run(methods=["rrcm", "dds"], images=4)
    seconds = {"rrcm": 1.0, "dds": 4.0}
    costs = tuple(
        replace(
            cost, repetition_seconds=tuple(seconds[cost.method] * (1 + spread * (i % 2)) for i in range(12))
        )
        for cost in run.costs
    )
    write_run(tmp_path, replace(run, costs=costs))
    text = summary(tmp_path)
    assert ("- rRCM beside DDS: 4.0 times as fast; higher in" in text) == (spread == 0)
    assert ("| Speed |" in text) == ("| 4.0x |" in text) == (spread == 0)
    assert ("; quartiles up to 19% apart, which is not VALID" in text) == (spread > 0)  # 18.2%, and no less


def test_the_estimation_is_told_where_not_all_samples_are_drawn(tmp_path):
    run = make_run(images=4)
    write_run(tmp_path / "fixed", run)
    assert f", n = {run.header.n:,}, α" in summary(tmp_path / "fixed")
    write_run(tmp_path / "skips", replace(run, header=replace(run.header, estimation="skip-wrong")))
    assert f", at most n = {run.header.n:,} (skip-wrong estimation), α" in summary(tmp_path / "skips")
