"""How samples are spent: the split of alpha, when an image is settled, and the level of the whole procedure."""

import functools
import itertools

import pytest

from bench.smoothing import estimation, stats
from bench.smoothing.estimation import bound_tail, is_settled, table_tails
from bench.types import Protocol
from tests.support import oracles

SEQUENTIAL = Protocol(n=64, alpha=0.1, estimation="sequential")
TAILS = table_tails((0.0, 0.25, 0.5), 0.5)


def test_table_tails_are_normal_tails_of_radius_over_sigma():
    expected = [oracles.normal_tail(z) for z in (0.0, 0.5, 1.0)]
    assert list(TAILS) == pytest.approx(expected, rel=1e-12)


def test_fixed_estimation_gives_the_whole_alpha_to_the_bound_at_n():
    assert bound_tail(60, 64, Protocol(n=64, alpha=0.1)) == stats.upper_tail(60, 64, 0.1)
    randomised = Protocol(n=64, alpha=0.1, bound="randomised")
    assert bound_tail(60, 64, randomised, uniform=0.4) == stats.randomised_upper_tail(60, 64, 0.1, 0.4)


def test_sequential_estimation_gives_half_of_alpha_to_the_sequence_and_half_to_the_bound_at_n():
    assert bound_tail(30, 32, SEQUENTIAL) == stats.sequence_tails(30, 32, 0.05)[1]
    assert bound_tail(60, 64, SEQUENTIAL) == stats.upper_tail(60, 64, 0.05)
    assert stats.upper_tail(60, 64, 0.05) < stats.sequence_tails(60, 64, 0.05)[1]


@pytest.mark.parametrize("p", [0.3, 0.5, 0.69, 0.8, 0.84, 0.95])
def test_sequential_estimation_as_a_whole_is_wrong_with_probability_alpha_at_most(p):
    @functools.cache
    def ends_wrong(k, samples):
        is_over = samples == 64 or (samples % 8 == 0 and is_settled(k, samples, SEQUENTIAL, TAILS))
        return is_over and bound_tail(k, samples, SEQUENTIAL) < 1 - p

    @functools.cache
    def ends_right(k, samples):
        return samples % 8 == 0 and is_settled(k, samples, SEQUENTIAL, TAILS) and not ends_wrong(k, samples)

    # A path that ended right goes on in the oracle, but can only add to what is counted as wrong.
    wrong = oracles.probability_of_ever(ends_wrong, 64, p)
    assert wrong <= 0.1
    assert oracles.probability_of_ever(ends_right, 64, p) > 0


def test_what_is_settled_is_what_the_bounds_then_say():
    for samples, k in itertools.product(range(8, 64, 8), range(65)):
        if k > samples or not is_settled(k, samples, SEQUENTIAL, TAILS):
            continue
        most = stats.upper_tail(k + 64 - samples, 64, 0.05)
        low, _ = stats.sequence_tails(k, samples, 0.05)
        for tail in TAILS:
            is_certified = bound_tail(k, samples, SEQUENTIAL) <= tail
            assert is_certified or low > tail or most > tail


def test_radii_that_n_can_never_certify_are_settled_at_once():
    beyond = estimation.largest_radius(SEQUENTIAL, 0.5) + 1e-6
    assert is_settled(0, 0, SEQUENTIAL, table_tails((beyond,), 0.5))
    assert not is_settled(0, 0, SEQUENTIAL, table_tails((beyond - 2e-6,), 0.5))


def test_largest_radius_of_the_randomised_bound_is_that_of_the_luckiest_uniform():
    protocol = Protocol(n=64, alpha=0.1, bound="randomised")
    assert estimation.largest_radius(protocol, 0.5) == stats.radius(
        stats.randomised_upper_tail(64, 64, 0.1, 0.0), 0.5
    )
