"""The certifier: a half-space's exact radius, the noise it shows to a method, and what it refuses."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from bench.errors import DataError, NumericalError, UsageError
from bench.smoothing import certifier, stats
from bench.smoothing.classifiers import from_module
from bench.smoothing.counting import Draws, count_classes
from bench.smoothing.noise import NOISE_BLOCK, image_uniform
from bench.types import ABSTAIN, Protocol
from tests.support.smoothing import certify, certify_group, predict

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
    assert certifier.certificate_of((0, 25, 25), (0, 300, 0), sigma=0.5, protocol=PROTOCOL).predict == 1


def test_the_selected_class_is_estimated_even_when_another_is_more_frequent():
    certificate = certifier.certificate_of((0, 26, 24), (0, 50, 250), sigma=0.5, protocol=PROTOCOL)
    assert (certificate.predict, certificate.radius) == (ABSTAIN, 0.0)


def test_predict_returns_the_class_only_when_the_test_rejects():
    def split(x_noisy, sigma, keys=None):
        return nn.functional.one_hot((keys % 8 < 3).long(), 2).float()  # three samples of eight are class 1

    for n, p_value in [(8, stats.binomial_two_sided_p(5, 8)), (800, stats.binomial_two_sided_p(500, 800))]:
        protocol = Protocol(n0=1, n=n, alpha=0.001, seed=0)
        result = predict(split, X, sigma=0.5, index=0, protocol=protocol, batch_size=64, num_classes=2)
        assert result == (0 if p_value <= 0.001 else ABSTAIN)
    assert p_value <= 0.001


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
        (torch.tensor([[[math.nan, 0.5]]]), r"must hold finite numbers, got NaN or infinity"),
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
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"num_classes": 1}, "num_classes must be a whole number of at least 2, got 1"),
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
        ({"estimation": "confidence-sequence"}, "one of fixed, skip-wrong, sequential, got 'confidence-seq"),
        ({"bound": "exact"}, "bound must be one of clopper-pearson, randomised, got 'exact'"),
        (
            {"estimation": "sequential", "radii": ()},
            "sequential estimation needs the radii that it is to certify",
        ),
    ],
)
def test_a_wrong_protocol_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        certifier.checked_protocol(dataclasses.replace(PROTOCOL, **change))


GROUP = [X, X + 0.25, X - 0.25, X]


@pytest.mark.parametrize("estimation", ["fixed", "skip-wrong", "sequential"])
@pytest.mark.parametrize("batch_size", [7, 128, 1000, 10_000])
def test_a_group_gets_the_certificates_of_its_images_alone(estimation, batch_size):
    arguments = spending(estimation) | {"batch_size": batch_size, "num_classes": 3}
    del arguments["index"]
    labels, indices = [2, 1, None, 0], [3, 8, 1, 2]
    together = certify_group(Recorder(), GROUP, indices=indices, labels=labels, **arguments)
    alone = [
        certify(Recorder(), x, index=index, label=label, **arguments)
        for x, index, label in zip(GROUP, indices, labels, strict=True)
    ]
    assert together == alone
    assert len(set(together)) == 4


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
            assert (certificate.predict, certificate.radius) == (ABSTAIN, 0.0)  # nothing was certified
            assert (certificate.counts_estimation, certificate.samples) == ((), 50)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_class_without_noise_is_that_of_the_pixels_as_they_are(batch_size):
    recorder = Recorder()
    smoothed = certifier.Smoothed(classifier=recorder, sigma=0.5, num_classes=3, batch_size=batch_size)
    images = [X, torch.ones_like(X), torch.zeros_like(X), X]
    assert smoothed.clean_classes(images, [3, 8, 1, 2], PROTOCOL) == [2, 0, 1, 2]
    assert torch.equal(torch.cat(recorder.x_noisy), torch.stack(images))
    assert {len(batch) for batch in recorder.x_noisy[:-1]} <= {batch_size}
    assert set(recorder.sigmas) == {0.5}
    noisy = Recorder()
    smoothed = dataclasses.replace(smoothed, classifier=noisy)
    firsts = []
    for index in (3, 8, 1, 2):
        smoothed.certify(X, index, PROTOCOL)
        firsts.append(noisy.keys[0][0])
        noisy.keys.clear()
    assert torch.cat(recorder.keys).tolist() == [int(key) for key in firsts]


def test_a_logit_that_is_no_number_without_noise_names_its_image():
    smoothed = certifier.Smoothed(
        classifier=constant(0.0, math.nan, 1.0), sigma=0.5, num_classes=3, batch_size=8
    )
    with pytest.raises(NumericalError, match=r"NaN or infinite for image 8 without noise at sigma 0.5"):
        smoothed.clean_classes([X], [8], PROTOCOL)


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


def test_sequential_estimation_draws_nothing_where_n_cannot_certify_the_class():
    certificate = certify(half_space(3.0), X, **spending("sequential", n=9))  # 2^-9 > alpha
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
