"""Sequential estimation by exact recursion over all its paths: wrong with probability alpha at most, and near it."""

from dataclasses import replace

import pytest

from bench.checks.stopping import JUST_ABOVE, worst_failure, wrong_probability
from bench.smoothing import boundaries
from bench.smoothing.estimation import stopping_rule, table_tails
from bench.types import Protocol
from tests.support import oracles

RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
PROTOCOL = Protocol(estimation="sequential", radii=RADII)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("n", [1000, 10_000])
def test_all_radii_at_once_fail_with_probability_alpha_at_most_and_alpha_is_spent(n, alpha):
    assert 0.9 * alpha < worst_failure(replace(PROTOCOL, n=n, alpha=alpha), 1.0) <= alpha


@pytest.mark.parametrize("n", [1, 100, 128, 129, 300])
@pytest.mark.parametrize("sigma", [0.12, 0.5])
def test_few_samples_and_small_noise_fail_with_probability_alpha_at_most(n, sigma):
    assert worst_failure(replace(PROTOCOL, n=n, alpha=0.02), sigma) <= 0.02


def test_counts_tested_at_other_radii_and_levels_than_they_stopped_by_fail_with_that_level_at_most():
    protocol = replace(PROTOCOL, n=1000)
    stopped = stopping_rule(protocol, 1.0)
    for other in (replace(protocol, alpha=0.05), replace(protocol, radii=(0.1, 0.6, 1.2), alpha=0.01)):
        tested = stopping_rule(other, 1.0)

        class Mixed:
            n, radii, is_settled, certified = 1000, tested.radii, stopped.is_settled, tested.certified

        for tail in table_tails(tested.radii, 1.0):
            assert 0 < wrong_probability(Mixed, 1.0, tail * JUST_ABOVE) <= other.alpha


def test_the_recursion_is_that_over_single_draws():
    rule = stopping_rule(replace(PROTOCOL, n=300, alpha=0.05), 1.0)
    for radius, tail in zip(rule.radii[1:4], table_tails(rule.radii[1:4], 1.0), strict=True):
        wrong = oracles.probability_when_over(
            rule.is_settled,
            lambda k, samples, radius=radius: (rule.certified(k, samples) or -1.0) >= radius,
            300,
            1 - tail * JUST_ABOVE,
        )
        assert wrong_probability(rule, 1.0, tail * JUST_ABOVE) == pytest.approx(wrong, rel=1e-9)


def test_the_randomised_test_at_n_spends_what_is_left_of_alpha():
    n, alpha, tail = 300, 0.05, 0.3
    found = boundaries.boundary(n, alpha, tail)
    limits = dict(zip(boundaries.looks(n), found.most, strict=True))

    def within(more):
        return oracles.probability_of_ever(
            lambda failures, samples: failures <= limits.get(samples, -1) + more * (samples == n), n, tail
        )

    spent = (1 - found.luck) * within(0) + found.luck * within(1)
    assert spent == pytest.approx(alpha, rel=2e-6)
    assert spent <= alpha
