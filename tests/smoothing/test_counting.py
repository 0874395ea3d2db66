"""What a method sees of the certifier: its noise, its keys, its batches; and how the classes are counted."""

import dataclasses
import itertools
import math
import subprocess
import sys
import warnings
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.errors import DataError, ModelError, NumericalError
from bench.smoothing import counting
from bench.smoothing.counting import count_classes, count_group
from bench.smoothing.noise import NOISE_BLOCK, noise_block, sample_keys
from tests.smoothing.rounding import rounding_errors
from tests.smoothing.test_certifier import ARGUMENTS, GROUP, PROTOCOL, Recorder, X, constant, draws
from tests.support.smoothing import certify, certify_group


def shown(batch_size=64, **changes):
    recorder = Recorder()
    counts = count_classes(
        recorder, X, sigma=0.5, draws=draws(**changes), batch_size=batch_size, num_classes=3
    )
    return (
        counts,
        torch.cat(recorder.x_noisy),
        torch.cat(recorder.keys),
        [len(keys) for keys in recorder.keys],
    )


@pytest.mark.parametrize("batch_size", [7, 64, 128, 300, 1000])
def test_batch_size_changes_neither_noise_nor_keys_nor_counts(batch_size):
    counts, x_noisy, keys, sizes = shown(batch_size)
    reference_counts, reference, reference_keys, _ = shown(1)
    assert counts == reference_counts
    assert torch.equal(x_noisy, reference)
    assert torch.equal(keys, reference_keys)
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert sum(counts) == sum(sizes) == 300


def test_the_noise_is_that_of_the_blocks_times_sigma():
    _, x_noisy, keys, _ = shown()
    device = torch.device("cpu")
    blocks = torch.cat([noise_block(7, 3, "estimation", block, (1, 2, 2), device) for block in range(3)])
    torch.testing.assert_close(x_noisy, X + 0.5 * blocks[:300])
    assert torch.equal(keys[:NOISE_BLOCK], sample_keys(7, 3, "estimation", 0, device))


def test_fewer_samples_use_the_first_of_the_noise():
    _, few, few_keys, _ = shown(samples=100)
    _, many, many_keys, _ = shown(samples=1000)
    assert torch.equal(few, many[:100])
    assert torch.equal(few_keys, many_keys[:100])


@pytest.mark.parametrize("change", [{"stage": "selection"}, {"index": 4}, {"seed": 8}])
def test_stage_index_and_seed_change_the_noise(change):
    a, b = (batch[1] - X for batch in (shown(samples=1000), shown(samples=1000, **change)))
    # 4,000 products of independent N(0, 1/4): 5.5 standard deviations are passed with probability 4e-8.
    assert abs((a * b).mean().item()) < 5.5 * 0.25 / math.sqrt(a.numel())


def test_every_method_sees_the_same_noise_within_certify():
    first, second = Recorder(), Recorder()
    certify(first, X, **ARGUMENTS)
    torch.randn(5)
    certify(second, X, **ARGUMENTS)
    assert torch.equal(torch.cat(first.x_noisy), torch.cat(second.x_noisy))
    assert set(first.sigmas) == {0.5}


def test_each_block_is_drawn_once(monkeypatch):
    drawn = []

    def recording(seed, index, stage, block, shape, device, samples):
        drawn.append((stage, block))
        return noise_block(seed, index, stage, block, shape, device, samples)

    monkeypatch.setattr(counting, "noise_block", recording)
    certify(constant(0.0, 1.0, 0.0), X, **ARGUMENTS | {"batch_size": 7})
    assert drawn == [("selection", 0), ("estimation", 0), ("estimation", 1), ("estimation", 2)]


def test_the_classifier_runs_under_inference_mode():
    def classify(x_noisy, sigma, keys=None):
        assert torch.is_inference_mode_enabled()
        return constant(0.0, 1.0, 0.0)(x_noisy, sigma)

    assert certify(classify, X, **ARGUMENTS).predict == 1


MEMORY = """
import resource, torch
from bench.smoothing.certifier import Smoothed
from bench.types import Protocol

def classify(x_noisy, sigma, keys=None):
    margin = x_noisy.flatten(1).mean(1)
    return torch.stack([-margin, margin], 1)

def kibibytes_after(n, images):
    protocol = Protocol(n0=10, n=n, alpha=0.001, seed=0)
    for index in range(images):
        x = torch.full((1, 8, 8), 0.5)
        Smoothed(classifier=classify, sigma=0.5, batch_size=1000, num_classes=2).certify(x, index, protocol)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

print(-kibibytes_after(2_000, 1) + kibibytes_after(100_000, 2))
"""


def test_memory_grows_neither_with_n_nor_with_the_number_of_images():
    """All noise of the larger certificates would take 50 MiB, all classes 1.6 MiB."""
    told = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True).stdout
    assert int(told) < 10 * 1024


def test_the_image_is_left_as_it_is():
    x = torch.rand(1, 2, 2)
    before = x.clone()
    certify(Recorder(), x, **ARGUMENTS)
    assert torch.equal(x, before)


def test_logits_of_a_wrong_shape_are_refused():
    with pytest.raises(ModelError, match=r"logits of shape \(50, 3\).*, got \(50, 2\)"):
        certify(constant(0.0, 1.0), X, **ARGUMENTS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(value):
    def classify(x_noisy, sigma, keys=None):
        logits = torch.zeros(len(x_noisy), 3)
        logits[keys % NOISE_BLOCK == 5, 2] = value
        return logits

    message = "NaN or infinite in 1 of 50 selection samples of image 3 at sigma 0.5: check the checkpoint"
    with pytest.raises(NumericalError, match=message):
        certify(classify, X, **ARGUMENTS)


def test_a_group_fills_its_batches_across_images():
    recorder = Recorder()
    arguments = ARGUMENTS | {"batch_size": 250}
    del arguments["index"]
    certify_group(recorder, GROUP, indices=range(4), labels=[None] * 4, **arguments)
    assert [len(keys) for keys in recorder.keys] == [200, *[250] * 4, 200]


def test_an_error_in_a_group_names_its_image():
    def classify(x_noisy, sigma, keys=None):
        values = constant(0.0, 1.0, 0.0)(x_noisy, sigma).clone()
        values[x_noisy.mean((1, 2, 3)) > 2] = math.nan
        return values

    arguments = ARGUMENTS | {"protocol": dataclasses.replace(PROTOCOL, seed=9), "sigma": 1.5}
    del arguments["index"]
    bad = [
        index
        for index in range(20)
        if any(
            (X + 1.5 * noise_block(9, index, "selection", 0, (1, 2, 2), X.device)[:50]).mean((1, 2, 3)) > 2
        )
    ]
    assert 0 < len(bad) < 20
    with pytest.raises(NumericalError, match=f"selection samples of image {bad[0]} at sigma 1.5"):
        certify_group(classify, [X] * 20, indices=range(20), labels=[None] * 20, **arguments)


@pytest.mark.parametrize("batch_size", [7, 128, 300])
def test_batches_drawn_at_once_are_those_of_blocks(monkeypatch, batch_size):
    """What a GPU does, on the CPU."""
    _, x_noisy, keys, _ = shown(batch_size)
    monkeypatch.setattr(counting, "draws_at_once", lambda device: True)
    _, at_once, keys_at_once, sizes = shown(batch_size)
    assert torch.equal(at_once, x_noisy)
    assert torch.equal(keys_at_once, keys)
    assert sum(sizes) == 300


def test_a_group_drawn_at_once_has_the_counts_of_its_images(monkeypatch):
    arguments = ARGUMENTS | {"batch_size": 250}
    del arguments["index"]
    expected, recorder = Recorder(), Recorder()
    certify_group(expected, GROUP, indices=range(4), labels=[None] * 4, **arguments)
    monkeypatch.setattr(counting, "draws_at_once", lambda device: True)
    certify_group(recorder, GROUP, indices=range(4), labels=[None] * 4, **arguments)
    assert torch.equal(torch.cat(recorder.x_noisy), torch.cat(expected.x_noisy))
    assert torch.equal(torch.cat(recorder.keys), torch.cat(expected.keys))


def test_no_batch_reads_a_value_of_the_device(monkeypatch):
    """Meta tensors have none: an item, a list or a copy to the host would raise."""

    def meta(x_noisy, sigma, keys):
        assert keys.device.type == "meta"
        return x_noisy.flatten(1)

    monkeypatch.setattr(counting, "draws_at_once", lambda device: True)
    monkeypatch.setattr(counting, "noisy_samples", drawn_on_meta)
    images = torch.empty((4, 1, 2, 2), device="meta")
    batches = counting.predicted_classes(
        meta,
        images,
        sigma=0.5,
        draws=[draws(index=index) for index in range(4)],
        sizes=itertools.repeat(250),
        num_classes=4,
    )
    assert [len(labels) for labels in batches] == [250] * 4 + [200]


def drawn_on_meta(images, indices, series, *, start, size, sigma):
    return (
        torch.empty((size, *images.shape[1:]), device="meta"),
        torch.empty(size, dtype=torch.int64, device="meta"),
    )


@pytest.mark.gpu
def test_batches_on_cuda_do_not_wait_for_each_other():
    def waits(batch_size):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                torch.cuda.set_sync_debug_mode("warn")
                count_classes(
                    lambda x_noisy, sigma, keys=None: x_noisy.flatten(1),
                    X.cuda(),
                    sigma=0.5,
                    draws=draws(),
                    batch_size=batch_size,
                    num_classes=4,
                )
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(one.message) for one in caught)

    waits(10)  # what is made once is made here
    assert waits(10) == waits(300)


@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_what_a_classifier_sees_is_the_noisy_image_up_to_three_roundings(sigma):
    errors = rounding_errors((3, 32, 32), sigma)
    # Each of the three roundings errs by half a unit in the last place, of values below 8.6 sigma + 1.
    assert abs(errors).max() < 3 * 2**-24 * (8.6 * sigma + 1)
    assert 1e-8 < (errors**2).mean() ** 0.5 < 5e-8


def test_a_batch_is_gone_before_the_next_one_is_drawn(monkeypatch):
    """What a GPU does, on the CPU: two batches and their noise at once would take three times the memory."""
    alive, draw = [], counting.noisy_samples

    def drawn(*given, **options):
        assert all(one() is None for one in alive)
        x_noisy, keys = draw(*given, **options)
        alive.append(weakref.ref(x_noisy))
        return x_noisy, keys

    monkeypatch.setattr(counting, "draws_at_once", lambda device: True)
    monkeypatch.setattr(counting, "noisy_samples", drawn)
    draws = [counting.Draws(seed=0, index=0, stage="selection", samples=100)]
    count_group(
        lambda x, sigma, keys: x.flatten(1)[:, :2].clone(),
        torch.rand(1, 1, 2, 2),
        sigma=0.5,
        draws=draws,
        batch_size=20,
        num_classes=2,
    )
    assert len(alive) == 5


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("enough", [100, 900, 10_000])
def test_an_image_that_may_end_early_is_classified_little_beyond_its_end(monkeypatch, at_once, enough):
    sizes = []

    def classify(x_noisy, sigma, keys):
        sizes.append(len(keys))
        return x_noisy.flatten(1)

    monkeypatch.setattr(counting, "draws_at_once", lambda device: at_once)
    arguments = {"sigma": 0.5, "batch_size": 8192, "num_classes": 4}
    drawn = counting.Draws(seed=0, index=0, stage="estimation", samples=10_000)
    counts = count_classes(classify, X, draws=drawn, stop=lambda counts: sum(counts) >= enough, **arguments)
    assert sum(counts) == min(128 * math.ceil(enough / 128), 10_000)
    assert sum(sizes) <= min(2 * sum(counts) + 128, 10_000)
    assert sizes[:4] == [128, 256, 512, 1024][: len(sizes)]


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_the_values_of_many_images_are_looked_at_in_one_operation_and_waited_for_once():
    images = [torch.rand(3, 8, 8) for _ in range(30)]
    with Operations() as seen:
        counting.check_images(images)
    assert (seen.names.count("aminmax"), len(seen.names) < 10) == (1, True)
    counting.check_images([torch.rand(1, 4, 4), torch.rand(1, 5, 5)])
    for wrong in (torch.full((3, 8, 8), 1.5), torch.full((3, 8, 8), -0.1), torch.full((3, 8, 8), torch.nan)):
        with pytest.raises(DataError):
            counting.check_images([*images, wrong])
