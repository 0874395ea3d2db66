"""The self-test: its truths are true, our certifier passes, and broken ones are caught."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from bench.checks import selftest
from bench.checks.selftest import (
    FALSE_ALARM,
    Check,
    Size,
    allowed_violations,
    check_count,
    check_family,
    run_selftest,
)
from bench.checks.selftest_method import check_classifier
from bench.checks.synthetic import TAIL_SHARE, ball, half_space, labeller, slab, uniform_of
from bench.errors import UsageError
from bench.smoothing import counting
from bench.smoothing.certifier import Smoothed, certificate_of
from bench.smoothing.stats import binomial_upper_tail
from bench.types import ABSTAIN, Certificate, Protocol
from tests.support import oracles

PROTOCOL = Protocol(n0=20, n=300, alpha=0.05, seed=0)


def check(family, certify, trials=400, least_reach=0.0):
    return check_family(family, PROTOCOL, certify, trials, least_reach, 26)


def test_the_smoothed_class_changes_at_the_true_radius_of_a_slab():
    radius = slab(0.6, 0.5).radius
    inside = oracles.normal_tail((radius - 0.6) / 0.5) - oracles.normal_tail((radius + 0.6) / 0.5)
    assert inside == pytest.approx(0.5, abs=1e-9)


def test_the_smoothed_class_changes_at_the_true_radius_of_a_ball():
    assert oracles.ball_probability(2.6, ball(2.6, 0.5).radius, 0.5, 16) == pytest.approx(0.5, abs=1e-7)


@pytest.mark.parametrize("family", [half_space(0.2, 0.5), slab(0.6, 0.5), ball(2.6, 0.5)])
def test_at_the_true_radius_along_the_normal_half_of_the_samples_change_class(family):
    noise = torch.randn((200_000, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    point = family.x - family.radius / 4  # 16 pixels moved by radius / 4 each
    share = float(family.classifier(point + 0.5 * noise, 0.5).argmax(1).double().mean())
    assert share == pytest.approx(0.5, abs=0.0056)  # 5 standard errors: false alarm below 1e-6


def test_labels_of_keys_are_uniform_and_uncorrelated_with_their_neighbours():
    values = uniform_of(torch.arange(10**5)) - 0.5
    for product, deviation in ((values, 12**-0.5), (values[1:] * values[:-1], 1 / 12)):
        assert abs(float(product.mean())) < 5 * deviation / 10**2.5  # false alarm below 1e-6
    assert float(values.abs().max()) <= 0.5


@pytest.mark.parametrize("make", [slab, ball])
def test_a_region_too_small_to_be_the_smoothed_class_is_refused(make):
    with pytest.raises(ValueError, match=r"class 1 has probability .*, expected above 1/2"):
        make(0.1, 0.5)


def test_our_certifier_and_predict_pass_every_check_but_that_of_the_tails():
    checks = list(itertools.islice(run_selftest(Size(trials=60)), selftest.check_count() - 1))
    assert len(checks) == selftest.check_count() - 1
    assert all(one.passes for one in checks)


@pytest.mark.slow
def test_our_certifier_passes_the_check_of_the_tails():
    *_, check = run_selftest(Size(trials=1))
    assert (check.name, check.passes) == ("tails of single coordinates", True)


def test_noise_from_24_bit_uniforms_is_caught_by_the_check_of_the_tails(monkeypatch):
    def bounded(seed, index, stage, block, shape, device, samples):
        generator = torch.Generator(device).manual_seed(index)
        return torch.randn((samples, *shape), generator=generator, device=device)

    monkeypatch.setattr(counting, "noise_block", bounded)
    check = selftest.check_tails(Smoothed.certify, 1)
    assert (check.violations, check.passes) == (1, False)


def without_margin(smoothed, x, index, protocol, label):
    """Certify from the observed share, as if alpha did not exist."""
    return smoothed.certify(x, index, replace(protocol, alpha=0.5), label)


def clipping(smoothed, x, index, protocol, label):
    """Certify after clipping noisy pixels to [0,1]."""

    def clipped(x_noisy, sigma, keys=None):
        return smoothed.classifier(x_noisy.clamp(0, 1), sigma, keys)

    return replace(smoothed, classifier=clipped).certify(x, index, protocol, label)


def selecting_on_estimation(smoothed, x, index, protocol, label):
    """Certify the class that the estimation samples themselves prefer."""
    certificate = smoothed.certify(x, index, protocol)
    counts = tuple(dict(certificate.counts_estimation).get(label, 0) for label in (0, 1))
    return certificate_of(counts, counts, sigma=smoothed.sigma, protocol=protocol)


def abstaining(smoothed, x, index, protocol, label):
    return replace(smoothed.certify(x, index, protocol, label), predict=ABSTAIN, radius=0.0)


@pytest.mark.parametrize(
    ("family", "broken", "trials"),
    [
        (half_space(0.6, 0.5), without_margin, 200),
        (half_space(0.6, 0.5), clipping, 200),
        (labeller(0.5, 0.5), selecting_on_estimation, 500),
    ],
)
def test_a_certifier_that_claims_too_much_is_caught(family, broken, trials):
    assert check(family, Smoothed.certify, 60).passes
    assert not check(family, broken, trials).passes


def test_a_certifier_that_certifies_nothing_is_caught():
    assert not check(half_space(0.6, 0.5), abstaining, 20, least_reach=0.5).passes


@pytest.mark.parametrize(("trials", "alpha"), [(20, 0.05), (1000, 0.001)])
def test_allowed_violations_are_exceeded_with_the_false_alarm_rate_at_most(trials, alpha):
    allowed = allowed_violations(trials, alpha, 1e-6)
    assert oracles.binomial_at_least(allowed + 1, trials, alpha) <= 1e-6
    assert oracles.binomial_at_least(allowed, trials, alpha) > 1e-6


def properties(classifier):
    smoothed = replace(half_space(0.2, 0.5).smoothed(batch_size=300), classifier=classifier)
    found = check_classifier(smoothed, half_space(0.2, 0.5).x, PROTOCOL, trials=50, reference=3000)
    return {one.name: one.holds for one in found}


def test_a_good_classifier_has_every_property():
    assert set(properties(half_space(0.2, 0.5).classifier).values()) == {True}


def test_a_classifier_that_works_in_place_or_on_the_batch_or_at_random_is_caught():
    good = half_space(0.2, 0.5).classifier

    def in_place(x_noisy, sigma, keys=None):
        return good(x_noisy.clamp_(0, 1), sigma)

    def on_the_batch(x_noisy, sigma, keys=None):
        return good(x_noisy - x_noisy.mean(0), sigma)

    def at_random(x_noisy, sigma, keys=None):
        return good(x_noisy, sigma) + torch.rand(())

    assert not properties(in_place)["the noisy images are left as they are"]
    assert not properties(on_the_batch)["a sample's logits do not depend on its batch, up to rounding"]
    assert not properties(at_random)["the same samples and keys give the same logits"]


def test_a_classifier_of_another_number_of_classes_is_caught():
    def three(x_noisy, sigma, keys=None):
        return torch.zeros(len(x_noisy), 3)

    smoothed = replace(half_space(0.2, 0.5).smoothed(batch_size=300), classifier=three)
    assert not next(
        check_classifier(smoothed, half_space(0.2, 0.5).x, PROTOCOL, trials=1, reference=10)
    ).holds


def test_a_classifier_that_knows_the_reference_from_the_certificates_is_caught():
    calls = []

    def turncoat(x_noisy, sigma, keys=None):
        calls.append(len(x_noisy))
        is_reference = sum(calls) < 3000 + 20  # the checks of single calls come before
        return half_space(0.1 if is_reference else 0.6, 0.5).classifier(x_noisy, sigma)

    assert not properties(turncoat)["radii hold against a reference of many samples"]


def test_the_mean_radius_of_a_few_trials_is_not_judged():
    few = Check(name="a", mode="", trials=1, violations=0, allowed=1, reach=0.0, least_reach=0.3)
    assert few.passes
    assert not replace(few, trials=20).passes


def test_all_checks_together_raise_false_alarms_no_more_often_than_is_said():
    def sound(smoothed, x, index, protocol, label=None):
        return Certificate(predict=ABSTAIN, radius=0.0, counts_selection=(), counts_estimation=(), samples=0)

    checks = list(run_selftest(Size(trials=20), sound, lambda *given: ABSTAIN))
    alpha = Size().protocol.alpha
    chances = [binomial_upper_tail(one.allowed + 1, one.trials, alpha) for one in checks[:-1]]
    assert len(chances) == check_count() - 1
    assert sum(chances) + TAIL_SHARE**18 <= FALSE_ALARM


def test_composed_certificates_have_no_one_reference():
    composed = SimpleNamespace(compose=None)
    with pytest.raises(UsageError, match=r"composed of several bounds.*test the parts as methods"):
        next(check_classifier(composed, torch.zeros(1, 8, 8), Protocol()))
