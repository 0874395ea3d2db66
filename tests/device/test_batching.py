"""Batches: halved where memory does not suffice, with the same logits, and sized by a fake clock."""

import pytest
import torch

from bench.device.batching import TRIAL_SECONDS, filled, halving, measured_batch_size
from bench.device.timing import Work
from bench.errors import ModelError
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


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "GET was unable to find an engine to execute this computation",
        "Expected canUse32BitIndexMath(input) && numel less than INT_MAX elements",
        "integer out of range",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "CUDA error: invalid configuration argument",
    ],
)
def test_what_devices_say_of_a_batch_that_is_too_large_is_known(message):
    classify, _ = limited(5, message)
    assert len(halving(classify)(torch.zeros(10, 1, 2, 2), 0.5, torch.arange(10))) == 10


def test_a_size_that_did_not_fit_is_not_tried_again():
    classify, calls = limited(4)
    quick, x, keys = halving(classify), torch.randn(16, 1, 2, 2), torch.arange(16)
    first = quick(x, 0.5, keys)
    tried = list(calls)
    assert torch.equal(quick(x, 0.5, keys), first)
    assert tried == [16, 8, 4, 4, 4, 4]
    assert calls[len(tried) :] == [4] * 4


@pytest.mark.parametrize("samples", [1, 5, 8])
def test_a_batch_is_filled_up_and_what_fills_it_is_dropped(samples):
    classify, calls = limited(8)
    x, keys = torch.randn(samples, 1, 2, 2), torch.arange(samples)
    assert torch.equal(filled(classify, 8)(x, 0.5, keys), limited(8)[0](x, 0.5, keys))
    assert calls == [8]


def test_a_trial_of_slow_batches_ends_in_time_and_that_of_quick_ones_does_not():
    def seconds(first):
        device = FakeDevice()

        def work_of(size):
            def batch():
                device.now += first * (size / 16) ** 0.5

            return Work(batch=batch, size=size)

        best = measured_batch_size(work_of, [16 * 2**k for k in range(10)], device.instruments())
        return best, device.now

    best, took = seconds(8.0)
    assert best < 256
    assert took < 3 * 8.0 + TRIAL_SECONDS
    assert seconds(2**-8)[0] == 8192


def test_a_batch_that_was_written_into_before_it_did_not_fit_is_not_divided():
    def writes(x_noisy, sigma, keys=None):
        if len(x_noisy.sub_(0.5)) > 4:
            raise RuntimeError("CUDA out of memory")
        return x_noisy.flatten(1)

    with pytest.raises(ModelError, match=r"a batch of 8 does not fit .* smaller --batch-size"):
        halving(writes)(torch.zeros(8, 1, 2, 2), 0.5)
    assert halving(writes)(torch.zeros(4, 1, 2, 2), 0.5).unique().tolist() == [-0.5]
