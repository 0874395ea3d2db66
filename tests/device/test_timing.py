"""Cost: interleaving, pairing and sample counts on a machine whose clock only the work moves."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.device import timing
from bench.device.timing import Contender, Quartiles, measure
from bench.errors import ProtocolError, RecordsError
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


def test_drift_of_the_machine_cancels_in_paired_ratios():
    machine = Machine()
    drift = {"a": iter(2.0**i for i in range(99)), "dds": iter(2.0**i for i in range(99))}
    contenders = [
        machine.contender("a", lambda: 1.0 * next(drift["a"])),
        machine.contender("dds", lambda: 8.0 * next(drift["dds"])),
    ]
    speedups = timing.speedups(machine.measure(*contenders, target_seconds=0.5))
    assert speedups[0].ratio == Quartiles(first=8.0, median=8.0, third=8.0)
    assert speedups[1].ratio == Quartiles(first=1.0, median=1.0, third=1.0)


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


@pytest.mark.gpu
def test_cuda_peak_sees_memory_that_was_freed_again():
    device = torch.device("cuda")
    peak_memory = timing.peak_memory_meter(device)
    work = lambda: torch.zeros(10**8, dtype=torch.uint8, device=device).sum()  # noqa: E731
    assert peak_memory(work) - peak_memory(lambda: None) >= 10**8


def test_rates_are_quartiles_over_the_repetitions():
    assert timing.samples_per_second(COST) == Quartiles(first=37.5, median=50.0, third=75.0)
    assert timing.seconds_per_certificate(COST) == Quartiles(first=16.5, median=22.0, third=33.0)


def test_speedup_pairs_rounds_and_allows_for_sample_counts():
    fast = dataclasses.replace(
        COST, method="rrcm", samples_per_repetition=200, repetition_seconds=(0.5, 0.5, 4.0)
    )
    other_sigma = dataclasses.replace(COST, sigma=1.0, repetition_seconds=(3.0, 3.0, 3.0))
    speedups = timing.speedups([fast, other_sigma, COST])
    assert [(each.method, each.sigma) for each in speedups] == [("rrcm", 0.5), ("dds", 1.0), ("dds", 0.5)]
    ratios = [4.0, 8.0, 2.0]
    expected = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    assert dataclasses.astuple(speedups[0].ratio) == pytest.approx(tuple(expected))


def test_a_missing_reference_is_refused():
    with pytest.raises(
        RecordsError, match=r"no cost of rrcm at sigma 0.5: measure it in the same run as dds"
    ):
        timing.speedups([COST], reference="rrcm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "cuda"}, r"a and dds at sigma 0.5 differ in device \('cuda' and 'cpu'\): measure both"),
        ({"repetition_seconds": (1.0,)}, r"differ in number of rounds \(1 and 3\): measure both in one run"),
    ],
)
def test_costs_of_other_rounds_or_devices_are_not_paired(change, message):
    with pytest.raises(ProtocolError, match=message):
        timing.speedups([COST, dataclasses.replace(COST, method="a", **change)])
