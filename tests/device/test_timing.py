"""Cost: interleaving, pairing and sample counts on a machine whose clock only the work moves."""

import dataclasses
from pathlib import Path

import pytest
import torch

from bench.device import timing
from bench.device.timing import Contender, measure
from bench.types import CostRecord

COST = CostRecord(
    method="dds",
    sigma=0.5,
    device="cpu",
    batch_size=10,
    samples_per_repetition=100,
    repetition_seconds=(1.0, 2.0, 4.0),
    samples_per_certificate=1100,
    parameters=5,
)


class Machine:
    """A clock that work moves, and a log of what was done."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def clock(self):
        return self.now

    def synchronize(self):
        self.log.append("synchronize")

    def contender(self, method, seconds, batch_size=10):
        def work():
            self.log.append(method)
            self.now += seconds() if callable(seconds) else seconds

        return Contender(
            method=method,
            sigma=0.5,
            device="cpu",
            batch_size=batch_size,
            work=work,
            samples_per_certificate=1100,
            parameters=7,
        )

    def measure(self, *contenders, peak_memory=lambda work: None, repetitions=3, target_seconds=1.0):
        return measure(
            contenders,
            repetitions=repetitions,
            synchronize=self.synchronize,
            peak_memory=peak_memory,
            clock=self.clock,
            target_seconds=target_seconds,
        )


@pytest.mark.parametrize(("seconds", "batches"), [(2**-10, 1024), (0.25, 4), (0.375, 3), (1.0, 1), (16.0, 1)])
def test_a_repetition_lasts_about_the_target_and_at_least_one_batch(seconds, batches):
    machine = Machine()
    (measured,) = machine.measure(machine.contender("a", seconds))
    assert measured.samples_per_repetition == 10 * batches
    assert measured.repetition_seconds == (seconds * batches,) * 3


def test_a_clock_coarser_than_one_batch_still_gives_the_sample_count():
    machine = Machine()
    (measured,) = measure(
        [machine.contender("a", 2**-10)],
        repetitions=1,
        synchronize=machine.synchronize,
        peak_memory=lambda work: None,
        clock=lambda: machine.now // (1 / 64) / 64,
        target_seconds=1.0,
    )
    assert measured.samples_per_repetition == pytest.approx(10_240, rel=0.1)


def test_fields_of_the_contender_are_stored():
    machine = Machine()
    (measured,) = machine.measure(machine.contender("a", 1.0), repetitions=1)
    expected = dataclasses.replace(
        COST, method="a", samples_per_repetition=10, repetition_seconds=(1.0,), parameters=7
    )
    assert measured == expected


def test_each_round_runs_every_contender_and_begins_with_another():
    machine = Machine()
    machine.measure(*(machine.contender(name, 1.0) for name in "abc"))
    worked = [entry for entry in machine.log if entry != "synchronize"]
    assert "".join(worked[-9:]) == "abcbcacab"


def test_every_timing_starts_and_ends_synchronised():
    machine = Machine()
    machine.measure(machine.contender("a", 0.5), repetitions=2)
    assert machine.log[-8:] == ["synchronize", "a", "a", "synchronize"] * 2


def test_the_first_call_is_not_measured():
    machine = Machine()
    first = iter([100.0])
    (measured,) = machine.measure(machine.contender("a", lambda: next(first, 0.5)))
    assert measured.repetition_seconds == (1.0, 1.0, 1.0)


def test_memory_is_measured_for_each_contender_by_itself():
    machine = Machine()

    def peak_memory(work):
        start = len(machine.log)
        work()
        return sum(map(ord, machine.log[start + 1]))

    measured = machine.measure(
        machine.contender("a", 1.0), machine.contender("b", 1.0), peak_memory=peak_memory
    )
    assert [record.peak_memory_bytes for record in measured] == [ord("a"), ord("b")]


def test_work_classifies_fresh_noise_of_the_given_sigma():
    seen = []

    def classify(x_noisy, sigma, keys=None):
        assert torch.is_inference_mode_enabled()
        seen.append((x_noisy.clone(), sigma, keys))
        return x_noisy.flatten(1)

    x = torch.full((3, 8, 8), 0.5)
    work = timing.noisy_work(classify, x, 0.25, 64)
    classes = work()
    work()
    (first, sigma, keys), (second, *_) = seen
    assert torch.equal(classes, first.flatten(1).argmax(1))
    assert not torch.equal(first, second)
    assert sigma == 0.25
    assert keys.shape == (64,)
    # 12,288 draws: the standard deviation of the spread is 0.64%; 5% is passed with probability below 1e-13.
    assert (first - x).std().item() == pytest.approx(0.25, rel=0.05)


def test_a_cpu_has_nothing_to_wait_for():
    assert timing.synchronizer(torch.device("cpu"))() is None


def test_resident_peak_sees_memory_that_was_freed_again():
    peak_memory = timing.peak_memory_meter(torch.device("cpu"))
    much, little = peak_memory(lambda: len(b"x" * 64_000_000)), peak_memory(lambda: None)
    assert (little is None and much is None) or much - little > 32_000_000


def test_resident_peak_is_none_where_the_system_does_not_tell(monkeypatch):
    def refuse(path, text):
        raise PermissionError

    worked = []
    monkeypatch.setattr(Path, "write_text", refuse)
    assert timing.peak_memory_meter(torch.device("cpu"))(lambda: worked.append(1)) is None
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
    meters = timing.instruments(torch.device("cuda", 1), "a GPU")
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
    peak_memory = timing.peak_memory_meter(device)
    work = lambda: torch.zeros(10**8, dtype=torch.uint8, device=device).sum()  # noqa: E731
    assert peak_memory(work) - peak_memory(lambda: None) >= 10**8
