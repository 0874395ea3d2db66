"""The certifier: a half-space's exact radius, the noise it shows to a method, and what it refuses."""

import dataclasses
import math
import warnings

import pytest
import torch
from torch import nn

from bench import smoothing, stats
from bench.errors import DataError, ModelError, NumericalError, UsageError
from bench.noise import NOISE_BLOCK, image_uniform, noise_block, sample_keys
from bench.smoothing import Draws, Protocol, certify, count_classes, from_module, predict
from bench.types import ABSTAIN

X = torch.full((1, 2, 2), 0.5)
PROTOCOL = Protocol(n0=50, n=300, alpha=0.001, seed=7)
ARGUMENTS = {"sigma": 0.5, "index": 3, "protocol": PROTOCOL, "batch_size": 64, "num_classes": 3}


class Recorder:
    """Keeps what the certifier shows to a method; classifies by the value of one pixel, in three classes."""

    def __init__(self):
        self.x_noisy, self.keys, self.sigmas = [], [], []

    def __call__(self, x_noisy, sigma, keys=None):
        self.x_noisy.append(x_noisy.clone())
        self.keys.append(keys.clone())
        self.sigmas.append(sigma)
        pixel = x_noisy[:, 0, 0, 0]
        return torch.stack([pixel - 0.9, 0.1 - pixel, torch.zeros_like(pixel)], 1)


def half_space(distance):
    """Return a classifier whose class 1 is the half-space that holds X at `distance` from its border."""
    normal = torch.full((4,), 0.5)

    def classify(x_noisy, sigma, keys=None):
        margin = (x_noisy - X).flatten(1) @ normal + distance
        return torch.stack([torch.zeros_like(margin), margin], 1)

    return classify


def constant(*logits):
    return lambda x_noisy, sigma, keys=None: torch.tensor([logits]).expand(len(x_noisy), -1)


def draws(**changes):
    return dataclasses.replace(Draws(seed=7, index=3, stage="estimation", samples=300), **changes)


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


@pytest.mark.parametrize("distance", [0.25, 0.5, 0.75])
def test_radius_of_a_half_space_is_below_its_distance_and_near_it(distance):
    # The radius exceeds the distance with probability at most 1e-7, and the bound lies more than
    # 10.4 standard deviations of k/n below p (5.2 for the draw, 5.2 for alpha) with probability 1e-7; for
    # n = 10,000 and p = Phi(0.5), Phi(1), Phi(1.5) these are 0.14, 0.15 and 0.18 sigma of radius.
    protocol = Protocol(n0=100, n=10_000, alpha=1e-7, seed=0)
    certificate = certify(
        half_space(distance), X, sigma=0.5, index=0, protocol=protocol, batch_size=1000, num_classes=2
    )
    assert certificate.predict == 1
    assert distance - 0.2 * 0.5 < certificate.radius <= distance


def test_a_constant_classifier_gets_the_largest_radius():
    certificate = certify(constant(0.0, 2.0, 1.0), X, **ARGUMENTS)
    assert certificate.predict == 1
    assert certificate.radius == stats.largest_radius(300, 0.001, 0.5)
    assert certificate.counts_selection == ((1, 50),)
    assert certificate.counts_estimation == ((1, 300),)
    assert certificate.samples == 350


def test_an_even_half_space_abstains():
    arguments = ARGUMENTS | {"num_classes": 2}
    certificate = certify(half_space(0.0), X, **arguments)
    assert (certificate.predict, certificate.radius) == (ABSTAIN, 0.0)
    assert predict(half_space(0.0), X, **arguments) == ABSTAIN


def test_certificate_follows_from_its_counts():
    certificate = certify(Recorder(), X, **ARGUMENTS)
    selection, estimation = dict(certificate.counts_selection), dict(certificate.counts_estimation)
    assert list(estimation) == sorted(estimation)
    assert sum(selection.values()) == 50
    assert sum(estimation.values()) == 300
    selected = max(selection, key=selection.get)
    tail = stats.upper_tail(estimation[selected], 300, 0.001)
    expected = (selected, stats.radius(tail, 0.5)) if tail <= 0.5 else (ABSTAIN, 0.0)
    assert (certificate.predict, certificate.radius) == expected


def test_the_lowest_class_wins_ties_of_logits_and_of_counts():
    assert certify(constant(1.0, 2.0, 2.0), X, **ARGUMENTS).predict == 1

    def alternating(x_noisy, sigma, keys=None):
        return nn.functional.one_hot(2 - keys % 2, 3).float()  # classes 2, 1, 2, 1, ...

    certificate = certify(alternating, X, **ARGUMENTS)
    assert certificate.counts_selection == ((1, 25), (2, 25))
    assert smoothing.certificate_of((0, 25, 25), (0, 300, 0), 0.5, PROTOCOL.rule(3)).predict == 1


def test_the_selected_class_is_estimated_even_when_another_is_more_frequent():
    certificate = smoothing.certificate_of((0, 26, 24), (0, 50, 250), 0.5, PROTOCOL.rule(3))
    assert (certificate.predict, certificate.radius) == (ABSTAIN, 0.0)


def test_predict_returns_the_class_only_when_the_test_rejects():
    def split(x_noisy, sigma, keys=None):
        return nn.functional.one_hot((keys % 8 < 3).long(), 2).float()  # three samples of eight are class 1

    for n, p_value in [(8, stats.binomial_two_sided_p(5, 8)), (800, stats.binomial_two_sided_p(500, 800))]:
        protocol = Protocol(n0=1, n=n, alpha=0.001, seed=0)
        result = predict(split, X, sigma=0.5, index=0, protocol=protocol, batch_size=64, num_classes=2)
        assert result == (0 if p_value <= 0.001 else ABSTAIN)
    assert p_value <= 0.001


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

    def counting(seed, index, stage, block, shape, device):
        drawn.append((stage, block))
        return noise_block(seed, index, stage, block, shape, device)

    monkeypatch.setattr(smoothing, "noise_block", counting)
    certify(constant(0.0, 1.0, 0.0), X, **ARGUMENTS | {"batch_size": 7})
    assert drawn == [("selection", 0), ("estimation", 0), ("estimation", 1), ("estimation", 2)]


def test_the_classifier_runs_under_inference_mode():
    def classify(x_noisy, sigma, keys=None):
        assert torch.is_inference_mode_enabled()
        return constant(0.0, 1.0, 0.0)(x_noisy, sigma)

    assert certify(classify, X, **ARGUMENTS).predict == 1


def test_the_image_is_left_as_it_is():
    x = torch.rand(1, 2, 2)
    before = x.clone()
    certify(Recorder(), x, **ARGUMENTS)
    assert torch.equal(x, before)


def test_from_module_classifies_in_evaluation_mode():
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(0.9))
    classifier = from_module(module)
    assert not module.training
    assert torch.equal(classifier(X[None], 0.5), module[1](X.flatten()[None]))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([[[-1.0, 2.0]]]), r"must lie in \[0,1\], got values from -1 to 2: undo its normal"),
        (torch.tensor([[[-1.0, 0.5]]]), r"must lie in \[0,1\], got values from -1 to 0.5"),
        (torch.tensor([[[math.nan, 0.5]]]), r"must lie in \[0,1\], got values from nan to nan"),
        (X[0], r"must be \(C, H, W\) float32, got shape \(2, 2\), torch.float32"),
        (X.double(), r"must be \(C, H, W\) float32, got shape \(1, 2, 2\), torch.float64"),
        (X[:0], r"must be \(C, H, W\) float32, got shape \(0, 2, 2\)"),
    ],
)
def test_a_wrong_image_is_refused(x, message):
    for function in (certify, predict):
        with pytest.raises(DataError, match=message):
            function(Recorder(), x, **ARGUMENTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, r"sigma must be a positive number in pixel units, such as 0.5, got 0.0"),
        ({"sigma": math.inf}, "sigma must be a positive number in pixel units, such as 0.5, got inf"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
    ],
)
def test_a_wrong_argument_is_refused(change, message):
    for function in (certify, predict):
        with pytest.raises(UsageError, match=message):
            function(Recorder(), X, **ARGUMENTS | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n0": 0}, "n0 must be a whole number of at least 1, got 0"),
        ({"n": 10.0}, r"n must be a whole number of at least 1, got 10.0"),
        ({"n": True}, "n must be a whole number of at least 1, got True"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"alpha": 1.0}, r"alpha must lie between 0 and 1, such as 0.001, got 1.0"),
        ({"estimation": "none"}, "estimation must be one of fixed, skip-wrong, sequential, got 'none'"),
        ({"bound": "exact"}, "bound must be one of clopper-pearson, randomised, got 'exact'"),
        ({"estimation": "sequential"}, "sequential estimation needs the radii whose verdicts it settles"),
    ],
)
def test_a_wrong_protocol_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        smoothing.check_protocol(dataclasses.replace(PROTOCOL, **change))


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


@pytest.mark.gpu
def test_batches_on_cuda_do_not_wait_for_each_other():
    def waits(batch_size):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            count_classes(
                lambda x_noisy, sigma, keys=None: x_noisy.flatten(1),
                X.cuda(),
                sigma=0.5,
                draws=draws(),
                batch_size=batch_size,
                num_classes=4,
            )
            torch.cuda.set_sync_debug_mode("default")
        return len(caught)

    assert waits(10) == waits(300)


def spending(estimation, radii=(0.0, 0.25, 0.5), **changes):
    values = {"n0": 50, "n": 700, "alpha": 0.001, "seed": 7, "estimation": estimation, "radii": radii}
    return ARGUMENTS | {"num_classes": 2, "protocol": Protocol(**values | changes)}


@pytest.mark.parametrize("label", [0, 1, 2])
def test_skip_wrong_equals_fixed_where_the_label_is_selected_and_draws_nothing_elsewhere(label):
    for index in range(4):
        fixed = certify(Recorder(), X, **spending("fixed") | {"index": index, "num_classes": 3})
        certificate = certify(
            Recorder(), X, **spending("skip-wrong") | {"index": index, "num_classes": 3}, label=label
        )
        selected = max(certificate.counts_selection, key=lambda pair: pair[1])[0]
        if selected == label:
            assert certificate == fixed
        else:
            assert fixed.predict != label
            assert (certificate.predict, certificate.radius) == (selected, 0.0)
            assert (certificate.counts_estimation, certificate.samples) == ((), 50)


def test_without_a_label_nothing_is_skipped():
    assert certify(half_space(0.5), X, **spending("skip-wrong")) == certify(
        half_space(0.5), X, **spending("fixed")
    )


@pytest.mark.parametrize("batch_size", [1, 50, 128, 1000])
def test_sequential_estimation_counts_the_first_whole_blocks_at_any_batch_size(batch_size):
    certificate = certify(half_space(0.9), X, **spending("sequential") | {"batch_size": batch_size})
    drawn = certificate.samples - 50
    assert drawn % NOISE_BLOCK == 0
    assert 0 < drawn < 700
    counts = count_classes(
        half_space(0.9), X, sigma=0.5, draws=draws(samples=drawn), batch_size=64, num_classes=2
    )
    assert certificate.counts_estimation == tuple((k, v) for k, v in enumerate(counts) if v)


@pytest.mark.parametrize("distance", [0.05, 0.3, 0.45, 0.9])
def test_sequential_estimation_certifies_no_radius_beyond_the_half_space_and_decides_as_fixed_does(distance):
    fixed = certify(half_space(distance), X, **spending("fixed"))
    sequential = certify(half_space(distance), X, **spending("sequential"))
    assert sequential.radius <= distance
    for radius in (0.0, 0.25):  # 0.5 is certified by neither, or by a margin
        assert (sequential.radius >= radius) == (fixed.radius >= radius)


def test_sequential_estimation_draws_nothing_for_radii_that_n_cannot_certify():
    certificate = certify(half_space(3.0), X, **spending("sequential", radii=(3.0,)))
    assert certificate.samples == 50
    assert (certificate.predict, certificate.radius) == (ABSTAIN, 0.0)


def test_sequential_estimation_refuses_logits_that_are_not_finite():
    with pytest.raises(NumericalError, match="logits are NaN or infinite in 128 of 700 estimation samples"):
        count_classes(
            constant(math.nan, 0.0),
            X,
            sigma=0.5,
            draws=draws(samples=700),
            batch_size=64,
            num_classes=2,
            stop=lambda counts: False,
        )


def test_the_randomised_bound_takes_its_uniform_from_seed_and_image():
    certificates = [
        certify(
            constant(0.0, 1.0),
            X,
            **spending("fixed", bound="randomised") | {"index": index, "num_classes": 2},
        )
        for index in range(3)
    ]
    expected = [
        stats.radius(stats.randomised_upper_tail(700, 700, 0.001, image_uniform(7, index)), 0.5)
        for index in range(3)
    ]
    assert [certificate.radius for certificate in certificates] == expected
    assert len(set(expected)) == 3


def test_fewer_estimation_than_selection_samples_and_a_thousand_classes_are_certified():
    def one_of_a_thousand(x_noisy, sigma, keys=None):
        return nn.functional.one_hot(torch.full_like(keys, 999), 1000).float()

    protocol = Protocol(n0=200, n=20, alpha=0.001, seed=0)
    certificate = certify(one_of_a_thousand, X, **ARGUMENTS | {"protocol": protocol, "num_classes": 1000})
    assert (certificate.predict, certificate.counts_estimation) == (999, ((999, 20),))
    assert certificate.radius == stats.largest_radius(20, 0.001, 0.5)
