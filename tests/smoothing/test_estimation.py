"""How samples are spent: what each estimation certifies, and when sequential estimation stops."""

import itertools
from dataclasses import replace

import pytest

from bench.smoothing import boundaries, stats
from bench.smoothing.estimation import (
    bound_tail,
    certified_radius,
    largest_radius,
    stopping_rule,
    table_tails,
)
from bench.smoothing.noise import NOISE_BLOCK
from bench.types import Protocol
from tests.support import oracles

RADII = (0.0, 0.25, 0.5, 0.75, 1.0)
SEQUENTIAL = Protocol(n=1000, alpha=0.001, estimation="sequential", radii=RADII)
RULE = stopping_rule(SEQUENTIAL, 0.5)


def test_table_tails_are_normal_tails_of_radius_over_sigma():
    expected = [oracles.normal_tail(z) for z in (0.0, 0.5, 1.0)]
    assert list(table_tails((0.0, 0.25, 0.5), 0.5)) == pytest.approx(expected, rel=1e-12)


def test_fixed_estimation_gives_the_whole_alpha_to_the_bound_at_n():
    assert bound_tail(60, 64, Protocol(n=64, alpha=0.1)) == stats.upper_tail(60, 64, 0.1)
    randomised = Protocol(n=64, alpha=0.1, bound="randomised")
    assert bound_tail(60, 64, randomised, uniform=0.4) == stats.randomised_upper_tail(60, 64, 0.1, 0.4)


def test_a_confidence_sequence_has_half_of_alpha_and_the_bound_at_n_the_other_half():
    old = Protocol(n=64, alpha=0.1, estimation="confidence-sequence")
    assert bound_tail(30, 32, old) == stats.sequence_tails(30, 32, 0.05)[1]
    assert bound_tail(60, 64, old) == stats.upper_tail(60, 64, 0.05)
    assert stats.upper_tail(60, 64, 0.05) < stats.sequence_tails(60, 64, 0.05)[1]


def test_looks_are_whole_blocks_of_noise_and_n():
    for n in (1, 127, 128, 129, 1000, 100_000):
        *early, last = boundaries.looks(n)
        assert last == n
        assert all(look % NOISE_BLOCK == 0 for look in early)
        assert sorted({*early, n}) == [*early, n]


def test_the_radius_grows_with_the_count_at_each_look_and_is_one_of_the_table():
    for samples in RULE.most:
        radii = [RULE.certified(k, samples) for k in range(samples + 1)]
        assert set(radii) <= {None, *RADII}
        ranks = [-1.0 if radius is None else radius for radius in radii]
        assert ranks == sorted(ranks)


def test_samples_that_are_no_look_certify_nothing_and_do_not_stop():
    assert RULE.certified(200, 200) is None
    assert not RULE.is_settled(0, 200)


@pytest.mark.parametrize("n", [1000, 10_000])
def test_an_image_that_comes_to_n_loses_little_to_the_early_looks(n):
    for tail in table_tails(RADII, 0.5):
        most = boundaries.boundary(n, 0.001, tail).most[-1]
        fixed = max(
            failures for failures in range(n // 2) if stats.upper_tail(n - failures, n, 0.001) <= tail
        )
        assert 0 <= stats.radius(most / n, 1.0) - stats.radius(fixed / n, 1.0) <= boundaries.COST_AT_N


@pytest.mark.parametrize("bound", ["clopper-pearson", "randomised"])
def test_all_successes_certify_the_radii_that_fixed_estimation_certifies(bound):
    for n, sigma in ((100, 0.5), (1000, 0.25), (1000, 0.5), (1000, 1.0)):
        protocol = replace(SEQUENTIAL, n=n, bound=bound)
        for uniform in (0.0, 0.3, 0.999):
            fixed = certified_radius(n, n, replace(protocol, estimation="fixed"), sigma, uniform)
            expected = max(radius for radius in RADII if radius <= fixed)
            assert certified_radius(n, n, protocol, sigma, uniform) == expected
            assert fixed <= largest_radius(protocol, sigma)


def test_a_single_look_is_the_test_of_clopper_and_pearson():
    protocol = Protocol(n=100, alpha=0.001, estimation="sequential", radii=RADII)
    for k in range(101):
        tail = stats.upper_tail(k, 100, 0.001)
        held = [
            radius for radius, allowed in zip(RADII, table_tails(RADII, 0.5), strict=True) if tail <= allowed
        ]
        assert certified_radius(k, 100, protocol, 0.5) == (max(held) if held else None)


def test_a_single_look_with_the_randomised_bound_is_its_test():
    protocol = Protocol(n=100, alpha=0.001, estimation="sequential", bound="randomised", radii=RADII)
    for k in range(60, 101):
        for uniform in (0.001, 0.2, 0.5, 0.8, 0.99):
            tail = stats.randomised_upper_tail(k, 100, 0.001, uniform)
            allowed = table_tails(RADII, 0.5)
            held = [radius for radius, most in zip(RADII, allowed, strict=True) if tail <= most]
            assert certified_radius(k, 100, protocol, 0.5, uniform) == (max(held) if held else None)


def test_a_radius_counts_only_with_all_smaller_ones():
    for samples, limits in RULE.most.items():
        assert all(later <= sooner for sooner, later in itertools.pairwise(limits)), samples
    holed = replace(RULE, most={128: (5, 2, 4, 1, 0)}, n=128)
    assert holed.certified(128 - 3, 128) == 0.0
    assert holed.certified(128 - 2, 128) == 0.5


def test_a_class_that_n_can_never_certify_is_given_up_at_once():
    assert stopping_rule(replace(SEQUENTIAL, n=9), 0.5).is_settled(0, 0)
    assert not stopping_rule(replace(SEQUENTIAL, n=10), 0.5).is_settled(0, 0)  # 2^-10 < 0.001 < 2^-9


def test_what_is_given_up_at_n_is_not_certified_there():
    for k in range(1001):
        held = RULE.certified(k, 1000)
        first_left = 0 if held is None else RULE.radii.index(held) + 1
        assert RULE.is_settled(k, 1000)
        assert first_left == len(RULE.radii) or 1000 - k >= RULE.hopeless[1000][first_left]


def test_few_of_the_images_that_n_would_certify_are_given_up():
    most = RULE.most[1000][2]
    tail = oracles.bisect(lambda q: 0.5 - stats.binomial_upper_tail(1000 - most, 1000, 1 - q), 0.0, 1.0)
    limits = {look: fewest[2] for look, fewest in RULE.hopeless.items() if look}

    def is_given_up(failures, samples):
        return samples < 1000 and failures >= limits.get(samples, samples + 1)

    def has_too_many(failures, samples):
        return is_given_up(failures, samples) or (samples == 1000 and failures > most)

    lost = oracles.probability_of_ever(has_too_many, 1000, tail) - 0.5
    assert 0.5 * boundaries.GIVEN_UP < lost <= boundaries.GIVEN_UP


def test_largest_radius_of_the_randomised_bound_is_that_of_the_luckiest_uniform():
    protocol = Protocol(n=64, alpha=0.1, bound="randomised")
    expected = stats.radius(stats.randomised_upper_tail(64, 64, 0.1, 0.0), 0.5)
    assert largest_radius(protocol, 0.5) == expected
    assert largest_radius(replace(protocol, estimation="sequential"), 0.5) == expected
