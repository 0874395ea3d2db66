"""A job of many images waits for the disk once."""

import os

from bench.records import lines
from bench.records.file import RecordsFile, read_run
from bench.runs.progress import Observer, write_results
from tests.records.test_file import HEADER, record


def test_all_records_of_a_job_reach_the_disk_in_one_wait(tmp_path, monkeypatch):
    waits, whole = [], os.fsync
    jobs = [[record(index) for index in (0, 20, 40)], [record(60)]]
    with RecordsFile.create_or_resume(tmp_path, HEADER) as file:
        monkeypatch.setattr(lines.os, "fsync", lambda descriptor: waits.append(1) or whole(descriptor))
        write_results(iter(jobs), file, Observer())
    assert len(waits) == len(jobs)
    assert [one.index for one in read_run(tmp_path).records] == [0, 20, 40, 60]
