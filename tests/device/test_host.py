"""Processors and memory of a container, as its control group states them."""

import pytest

from bench.device.host import available_memory, cores

SEEN, FREE = cores(), available_memory()


def test_without_a_control_group_the_system_alone_counts(tmp_path):
    assert cores(tmp_path) >= 1
    assert available_memory(tmp_path) > 0


@pytest.mark.parametrize(
    ("stated", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None)]
)
def test_a_quota_of_time_counts_as_processors_rounded_up(tmp_path, stated, expected):
    (tmp_path / "cpu.max").write_text(f"{stated}\n")
    assert cores(tmp_path) == (expected or cores(tmp_path / "none"))


def test_the_files_that_the_system_would_drop_are_free_memory(tmp_path):
    for name, content in (("max", 1000), ("current", 900), ("stat", "anon 5\ninactive_file 300\nfile 400")):
        (tmp_path / f"memory.{name}").write_text(f"{content}\n")
    assert available_memory(tmp_path) == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) > 2**20
