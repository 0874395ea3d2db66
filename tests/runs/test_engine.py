"""Engines and the writer: which records come, when classifiers are loaded, and what a SIGTERM leaves."""

import os
import signal
from contextlib import nullcontext

import pytest

from bench.errors import TerminatedError
from bench.runs.engines.base import Job, LocalEngine
from bench.runs.progress import Throughput
from bench.runs.termination import Termination
from tests.records.test_file import record


def test_a_classifier_is_loaded_once_for_all_its_jobs_and_only_when_needed():
    loaded = []

    def load(method, sigma):
        loaded.append((method, sigma))
        return lambda indices: [record(index, method=method, sigma=sigma) for index in indices]

    keys = [("rrcm", 0.25, 1), ("rrcm", 0.25, 2), ("dds", 0.25, 1), ("dds", 0.5, 1)]
    results = LocalEngine().results(load, (Job(method=m, sigma=s, indices=(i,)) for m, s, i in keys))
    assert loaded == []
    assert [(each.method, each.sigma, each.index) for [each] in results] == keys
    assert loaded == [("rrcm", 0.25), ("dds", 0.25), ("dds", 0.5)]


def test_throughput_is_that_of_all_workers_without_their_start():
    moments = iter((100.0, 101.0, 104.0))
    throughput = Throughput(clock=lambda: next(moments))
    rates = []
    for index in range(3):
        throughput.add(record(index))
        rates.append(throughput.samples_per_second)
    assert rates == [None, 1100.0, 550.0]


def test_sigterm_waits_for_what_is_held():
    before = signal.getsignal(signal.SIGTERM)
    done = []

    def work(hold, what, error=None):
        with hold():
            os.kill(os.getpid(), signal.SIGTERM)
            if error:
                raise error
            done.append(what)

    with Termination() as termination:
        with pytest.raises(TerminatedError, match="everything certified is kept, repeat"):
            work(termination.held, "held")
        with pytest.raises(TerminatedError):
            work(nullcontext, "not held")
        with pytest.raises(ValueError, match="first"):
            work(termination.held, "failed", ValueError("first"))
    assert done == ["held"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_records_of_one_job_come_together_and_the_first_job_sets_the_start():
    moments = iter((100.0, 100.001, 100.002, 104.0, 104.001))
    throughput = Throughput(clock=lambda: next(moments))
    for index in range(5):
        throughput.add(record(index))
    assert throughput.samples_per_second == pytest.approx(2 * 1100 / 4.001)
