"""Binomial bounds against their definition, their coverage by enumeration, and the radius against erfc."""

import itertools
import math

import numpy as np
import pytest

from bench import stats
from tests import oracles

SMALL = [(k, n, alpha) for n in (1, 2, 7, 30) for k in range(n + 1) for alpha in (0.001, 0.05)]


@pytest.mark.parametrize("n", [1, 10, 100, 1000, 100_000, 10**7])
def test_bound_of_all_successes_is_alpha_to_the_one_over_n(n):
    assert stats.clopper_pearson_lower(n, n, 0.001) == pytest.approx(0.001 ** (1 / n), rel=1e-14, abs=0)
    assert stats.upper_tail(n, n, 0.001) == pytest.approx(-math.expm1(math.log(0.001) / n), rel=1e-14, abs=0)


@pytest.mark.parametrize("n", [1, 10, 10**7])
def test_bound_of_no_success_is_zero(n):
    assert stats.clopper_pearson_lower(0, n, 0.001) == 0.0
    assert stats.upper_tail(0, n, 0.001) == 1.0


@pytest.mark.parametrize(("k", "n", "alpha"), SMALL)
def test_bound_solves_its_defining_equation(k, n, alpha):
    expected = oracles.clopper_pearson_lower(k, n, alpha)
    assert stats.clopper_pearson_lower(k, n, alpha) == pytest.approx(expected, rel=1e-10, abs=0)
    assert stats.upper_tail(k, n, alpha) == pytest.approx(1 - expected, rel=1e-10, abs=0)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("n", [1, 5, 40])
def test_worst_coverage_over_p_is_at_least_one_minus_alpha(n, alpha):
    bounds = [stats.clopper_pearson_lower(k, n, alpha) for k in range(n + 1)]
    grid = [*np.linspace(0, 1, 201), *(bound * (1 - 1e-12) for bound in bounds)]  # worst just below a bound
    for p in grid:
        wrong = math.fsum(oracles.binomial_pmf(k, n, p) for k in range(n + 1) if bounds[k] > p)
        assert wrong <= alpha * (1 + 1e-9)


@pytest.mark.parametrize("n", [1000, 10**7])
def test_tail_keeps_its_digits_when_one_draw_fails(n):
    tail = stats.upper_tail(n - 1, n, 0.001)
    at_least = math.exp((n - 1) * math.log1p(-tail)) * ((1 - tail) + n * tail)
    assert at_least == pytest.approx(0.001, rel=1e-11, abs=0)


def test_tail_falls_as_successes_grow():
    tails = [stats.upper_tail(k, 1000, 0.001) for k in range(1001)]
    assert all(before > after for before, after in itertools.pairwise(tails))


@pytest.mark.parametrize("z", [0.01, 1.0, 3.8, 7.0, 20.0])
def test_radius_inverts_the_normal_tail(z):
    assert stats.radius(oracles.normal_tail(z), 0.25) == pytest.approx(0.25 * z, rel=1e-9)


@pytest.mark.parametrize("tail", [0.5, 0.7, 1.0])
def test_radius_is_zero_where_nothing_is_certified(tail):
    assert stats.radius(tail, 0.5) == 0.0


def test_largest_radius_is_that_of_all_successes():
    expected = oracles.bisect(lambda z: 1 - 0.001 ** (1 / 1000) - oracles.normal_tail(z), 0, 10)
    assert stats.largest_radius(1000, 0.001, 0.5) == pytest.approx(0.5 * expected, rel=1e-10)


@pytest.mark.parametrize("n", [0, 1, 2, 11, 20])
def test_two_sided_test_sums_the_counts_no_likelier(n):
    for k in range(n + 1):
        assert stats.binomial_two_sided_p(k, n) == pytest.approx(oracles.two_sided_p(k, n), rel=1e-12, abs=0)


def test_two_sided_test_of_ten_million_draws_is_near_its_normal_limit():
    n, z = 10**7, 3.0
    k = round(n / 2 + z * math.sqrt(n) / 2)
    assert stats.binomial_two_sided_p(k, n) == pytest.approx(2 * oracles.normal_tail(z), rel=0.01)


@pytest.mark.parametrize("n", [1, 7, 30])
def test_interval_ends_solve_their_defining_equations(n):
    low, high = stats.proportion_interval(np.arange(n + 1), n, 0.9)
    expected = [oracles.clopper_pearson_lower(k, n, 0.05) for k in range(n + 1)]
    np.testing.assert_allclose(low, expected, rtol=1e-10)
    np.testing.assert_allclose(high, [1 - bound for bound in reversed(expected)], rtol=1e-10)


def test_interval_of_scalars_is_of_scalars():
    assert stats.proportion_interval(0, 0) == (0.0, 1.0)
    assert all(np.isscalar(end) for end in stats.proportion_interval(3, 10))


@pytest.mark.parametrize(("k", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(k, n):
    with pytest.raises(ValueError, match=f"0 <= k <= n and n >= 1, got k = {k}, n = {n}"):
        stats.clopper_pearson_lower(k, n, 0.001)
    with pytest.raises(ValueError, match=f"got k = {k}, n = {n}"):
        stats.upper_tail(k, n, 0.001)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, math.nan])
def test_impossible_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match=f"alpha must lie between 0 and 1, got {alpha}"):
        stats.upper_tail(1, 2, alpha)


@pytest.mark.parametrize("k", [-1, 4])
def test_two_sided_test_refuses_impossible_counts(k):
    with pytest.raises(ValueError, match=f"0 <= k <= n, got k = {k}, n = 3"):
        stats.binomial_two_sided_p(k, 3)


@pytest.mark.parametrize("k", [-1, 4])
def test_interval_refuses_impossible_counts(k):
    with pytest.raises(ValueError, match=f"0 <= k <= n, got k = {k}, n = 3"):
        stats.proportion_interval(k, 3)


def test_interval_refuses_impossible_confidence():
    with pytest.raises(ValueError, match=r"confidence must lie between 0 and 1, got 1.0"):
        stats.proportion_interval(1, 3, 1.0)
