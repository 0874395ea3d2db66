"""Processors and memory of a container, as its control group states them."""

import os

import pytest

from bench.device.host import available_memory, cores


@pytest.mark.parametrize(
    ("stated", "expected"),
    [("50000 100000", 1), ("150000 100000", 2), ("900000 100000", 8), ("max 100000", 8), ("", 8)],
)
def test_a_quota_of_time_counts_as_processors_rounded_up(tmp_path, monkeypatch, stated, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert cores(tmp_path) == 8
    (tmp_path / "cpu.max").write_text(f"{stated}\n")
    assert cores(tmp_path) == expected


def test_the_files_that_the_system_would_drop_are_free_memory(tmp_path):
    assert available_memory(tmp_path) > 2**20
    for name, content in (("max", 1000), ("current", 900), ("stat", "anon 5\ninactive_file 300\nfile 400")):
        (tmp_path / f"memory.{name}").write_text(f"{content}\n")
    assert available_memory(tmp_path) == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) > 2**20
