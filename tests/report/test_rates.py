"""Rates of measured costs: quartiles over repetitions, and speedups paired by round."""

import dataclasses

import numpy as np
import pytest

from bench.errors import ProtocolError
from bench.report.rates import Quartiles, quartiles, samples_per_second, seconds_per_certificate, speedups
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


def test_quartiles_of_two_values_are_interpolated():
    assert quartiles([1.0, 2.0]) == Quartiles(first=1.25, median=1.5, third=1.75)


def test_rates_are_quartiles_over_the_repetitions():
    assert samples_per_second(COST) == Quartiles(first=37.5, median=50.0, third=75.0)
    assert seconds_per_certificate(COST) == Quartiles(first=16.5, median=22.0, third=33.0)


def test_speedup_pairs_rounds_and_allows_for_sample_counts():
    fast = dataclasses.replace(
        COST, method="rrcm", samples_per_repetition=200, repetition_seconds=(0.5, 0.5, 4.0)
    )
    other_sigma = dataclasses.replace(fast, sigma=1.0)
    found = speedups([fast, other_sigma, COST])
    assert list(found) == [("rrcm", 0.5), ("dds", 0.5)]  # dds was not measured at the other sigma
    expected = np.quantile([4.0, 8.0, 2.0], [0.25, 0.5, 0.75]).tolist()
    assert dataclasses.astuple(found["rrcm", 0.5]) == pytest.approx(tuple(expected))
    assert found["dds", 0.5] == Quartiles(first=1.0, median=1.0, third=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "cuda"}, r"a and dds at sigma 0.5 differ in device \('cuda' and 'cpu'\): measure both"),
        ({"repetition_seconds": (1.0,)}, r"differ in number of rounds \(1 and 3\): measure both in one run"),
    ],
)
def test_costs_of_other_rounds_or_devices_are_not_paired(change, message):
    with pytest.raises(ProtocolError, match=message):
        speedups([COST, dataclasses.replace(COST, method="a", **change)])
