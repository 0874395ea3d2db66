"""Batches: halved where memory does not suffice, with the same logits, and sized by a fake clock."""

import pytest
import torch

from bench.device.batching import halving, measured_batch_size
from bench.device.timing import Work
from tests.support.fake_costs import FakeDevice


def limited(size, message="CUDA out of memory. Tried to allocate"):
    """Return a classifier with room for `size` samples, and the sizes it was called with."""
    calls = []

    def classify(x_noisy, sigma, keys=None):
        calls.append(len(x_noisy))
        if len(x_noisy) > size:
            raise RuntimeError(message)
        return torch.stack([x_noisy.flatten(1).sum(1) * sigma, keys.float()], 1)

    return classify, calls


@pytest.mark.parametrize("room", [1, 3, 5, 10])
def test_a_batch_that_does_not_fit_is_halved_with_the_same_logits(room):
    x, keys = torch.randn(10, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(10)
    whole, _ = limited(10)
    halved, calls = limited(room)
    assert torch.equal(halving(halved)(x, 0.5, keys), whole(x, 0.5, keys))
    assert sum(size for size in calls if size <= room) == 10


def test_one_sample_that_does_not_fit_and_other_errors_are_raised():
    for room, message in ((0, "out of memory"), (5, "shapes differ")):
        classify, _ = limited(room, message)
        with pytest.raises(RuntimeError, match=message):
            halving(classify)(torch.zeros(8, 1, 2, 2), 0.5, torch.arange(8))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({128: 1.0, 256: 1.5, 512: 2.9, 1024: 9.0}, 512),  # 1024 is slower
        ({128: 1.0, 256: 1.98, 512: 2.0, 1024: 2.0}, 128),  # 256 gains 1%: the trial ends
        ({128: 1.0, 256: 1.0, 512: 1.0, 1024: None}, 512),  # 1024 does not fit
    ],
)
def test_the_smallest_size_beyond_which_little_is_gained_is_chosen(seconds, expected):
    device = FakeDevice()

    def work_of(size):
        def batch():
            if seconds[size] is None:
                raise RuntimeError("CUDA out of memory")
            device.now += seconds[size]

        return Work(batch=batch, size=size)

    assert measured_batch_size(work_of, list(seconds), device.instruments()) == expected


def test_the_first_calls_warm_up_is_not_counted():
    device, calls = FakeDevice(), []

    def work_of(size):
        def batch():
            calls.append(size)
            device.now += 10.0 if calls.count(size) == 1 else size / 128

        return Work(batch=batch, size=size)

    assert measured_batch_size(work_of, [128, 256], device.instruments()) == 128


def test_another_error_of_a_trial_is_raised():
    def work_of(size):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        measured_batch_size(work_of, [128], FakeDevice().instruments())
