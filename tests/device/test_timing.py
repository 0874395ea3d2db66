"""The engine of timings on a device whose clock only the work moves, and the instruments of real and made-up ones."""

import math
from pathlib import Path

import pytest
import torch

from bench.device.timing import Work, instruments, measure, warmed
from tests.support.fake_costs import FakeDevice

CPU = torch.device("cpu")


class Machine(FakeDevice):
    """A device, and works on it that are noted in its log."""

    def work(self, name, seconds, size=10):
        def batch():
            self.log.append(name)
            self.now += seconds() if callable(seconds) else seconds

        return Work(batch=batch, size=size)

    def measure(self, *works, repetitions=3, target_seconds=1.0, **changes):
        meters = self.instruments(**changes)
        return measure(works, meters, repetitions=repetitions, target_seconds=target_seconds)

    @property
    def worked(self):
        return "".join(entry for entry in self.log if entry != "w")


@pytest.fixture
def machine():
    return Machine()


@pytest.mark.parametrize(("seconds", "batches"), [(2**-10, 1024), (0.25, 4), (0.375, 3), (1.0, 1), (16.0, 1)])
def test_a_repetition_lasts_about_the_target_and_at_least_one_batch(machine, seconds, batches):
    [timings] = machine.measure(machine.work("a", seconds))
    assert [(one.samples, one.seconds) for one in timings] == [(10 * batches, seconds * batches)] * 3


def test_a_clock_coarser_than_one_batch_still_gives_the_sample_count(machine):
    work, coarse = machine.work("a", 2**-10), lambda: machine.now // (1 / 64) / 64
    [[one]] = machine.measure(work, repetitions=1, clock=coarse)
    assert one.samples == pytest.approx(10_240, rel=0.1)


def test_each_round_runs_every_work_and_begins_with_another(machine):
    machine.measure(*(machine.work(name, 1.0) for name in "abc"))
    assert machine.worked[-9:] == "abcbcacab"


def test_every_timing_starts_and_ends_with_an_idle_device(machine):
    machine.measure(machine.work("a", 0.5), repetitions=2)
    assert "".join(machine.log[-8:]) == "waaw" * 2


def test_the_device_is_waited_for_after_each_sample_where_a_batch_is_one(machine):
    machine.measure(machine.work("a", 0.5, size=1), repetitions=1)
    assert "".join(machine.log[-6:]) == "wawaww"


def test_the_first_batch_is_not_measured(machine):
    first = iter([100.0])
    [timings] = machine.measure(machine.work("a", lambda: next(first, 0.5)))
    assert [one.seconds for one in timings] == [1.0] * 3


@pytest.mark.parametrize(
    ("seconds", "rules", "run"),
    [
        (0.5, {}, 2),  # half the target: a second one tells that two make a repetition
        (4.0, {}, 1),  # four times the target: clear from the first batch
        (4.0, {"excess_seconds": math.inf}, 2),
        (0.5, {"batches": 7}, 1),
    ],
)
def test_no_more_batches_are_run_to_warm_up_than_tell_how_many_make_a_repetition(
    machine, seconds, rules, run
):
    work = warmed(machine.work("a", seconds), machine.instruments(type="cpu"), 1.0, **rules)
    assert len(machine.worked) == run
    assert work.batches == rules.get("batches", max(1, round(1 / seconds)))


def test_an_accelerators_first_batch_may_load_libraries(machine):
    first = iter([20.0])
    work = warmed(machine.work("a", lambda: next(first, 2**-10)), machine.instruments(), 1.0)
    assert work.batches == 1024


def test_memory_is_measured_in_each_repetition(machine):
    machine.memory = 7
    [timings] = machine.measure(machine.work("a", 1.0))
    assert [(one.memory_before, one.peak_memory) for one in timings] == [(7, 507)] * 3


def test_a_cpu_has_nothing_to_wait_for_and_its_marks_are_the_clocks():
    meters = instruments(CPU)
    assert (meters.synchronize(), meters.type) == (None, "cpu")
    assert meters.between(1.0, 3.0) == 2.0


def test_resident_peak_sees_memory_that_was_freed_again():
    peak_memory = instruments(CPU).peak_memory
    much, little = peak_memory(lambda: len(b"x" * 64_000_000)), peak_memory(lambda: None)
    assert (little is None and much is None) or much - little > 32_000_000


def test_resident_peak_is_none_where_the_system_does_not_tell(monkeypatch):
    def refuse(path, text):
        raise PermissionError

    worked = []
    monkeypatch.setattr(Path, "write_text", refuse)
    assert instruments(CPU).peak_memory(lambda: worked.append(1)) is None
    assert worked == [1]


class FakeCuda:
    """What `torch.cuda` has of one device: a stream whose work takes time, events on it, and memory."""

    def __init__(self, monkeypatch):
        self.seconds, self.memory, self.peak, self.waits = 0.0, 10, 10, 0
        cuda = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self, stream):
                assert stream == "stream of cuda:1"
                self.at = cuda.seconds

            def elapsed_time(self, end):
                return 1000 * (end.at - self.at)

        fakes = {
            "Event": Event,
            "current_stream": lambda device: f"stream of {device}",
            "synchronize": self.wait,
            "memory_allocated": lambda device: self.memory,
            "reset_peak_memory_stats": lambda device: setattr(self, "peak", self.memory),
            "max_memory_allocated": lambda device: self.peak,
            "get_device_name": lambda device: "a GPU",
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def wait(self, device):
        self.waits += 1

    def work(self, seconds=2.0, needs=90):
        self.seconds += seconds
        self.peak = max(self.peak, self.memory + needs)


def test_instruments_of_cuda_mark_its_stream_and_read_its_memory(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    meters = instruments(torch.device("cuda", 1))
    start = meters.mark()
    cuda.work(2.0)
    end = meters.mark()
    meters.synchronize()
    assert (meters.between(start, end), cuda.waits) == (2.0, 1)
    assert meters.memory_now() == 10
    assert meters.peak_memory(cuda.work) == 100
    assert meters.peak_memory(lambda: None) == 10
    assert (meters.device, meters.type, meters.read_load) == ("a GPU", "cuda", None)


@pytest.mark.gpu
def test_cuda_peak_sees_memory_that_was_freed_again():
    device = torch.device("cuda")
    peak_memory = instruments(device).peak_memory
    work = lambda: torch.zeros(10**8, dtype=torch.uint8, device=device).sum()  # noqa: E731
    assert peak_memory(work) - peak_memory(lambda: None) >= 10**8


def test_apples_device_is_waited_for(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waits.append(1))
    instruments(torch.device("mps")).synchronize()
    assert waits == [1]
