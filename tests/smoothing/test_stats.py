"""Binomial bounds against their definition, their coverage by enumeration, and the radius against erfc."""

import functools
import itertools
import math

import numpy as np
import pytest

from bench.smoothing import stats
from tests.support import oracles

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


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.001), (2, 0.05), (30, 0.001), (10**7, 0.01)])
def test_bounds_of_many_counts_are_those_of_each(n, alpha):
    k = np.array([[n, 0, n // 2], [1, n - 1, n]])
    each = [[stats.upper_tail(int(one), n, alpha) for one in row] for row in k]
    assert stats.upper_tails(k, n, alpha).tolist() == each
    assert stats.upper_tails(np.array([], np.int64), n, alpha).tolist() == []
    for wrong in (-1, n + 1):
        with pytest.raises(ValueError, match="need 0 <= k <= n"):
            stats.upper_tails(np.array([0, wrong]), n, alpha)


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


@pytest.mark.parametrize("u", [0.1, 0.5, 0.97, 1.0])
@pytest.mark.parametrize(("k", "n", "alpha"), [case for case in SMALL if 0 < case[0] < case[1]])
def test_randomised_bound_solves_its_defining_equation(k, n, alpha, u):
    expected = oracles.randomised_lower(k, n, alpha, u)
    assert stats.randomised_upper_tail(k, n, alpha, u) == pytest.approx(1 - expected, rel=1e-10, abs=0)


@pytest.mark.parametrize("p", [0.3, 0.6, 0.9, 0.95])
def test_randomised_bound_fails_with_probability_alpha(p):
    uniforms = (np.arange(100) + 0.5) / 100
    wrong = math.fsum(
        oracles.binomial_pmf(k, 40, p)
        * np.mean([stats.randomised_upper_tail(k, 40, 0.05, u) < 1 - p for u in uniforms])
        for k in range(41)
    )
    assert 0.049 < wrong < 0.051  # a step of u is worth 0.01 P(X = k)


@pytest.mark.parametrize("n", [10, 10**7])
def test_randomised_bound_never_reaches_one_and_is_the_usual_one_at_u_1(n):
    for k in (n - 1, n):
        tails = [stats.randomised_upper_tail(k, n, 0.001, u) for u in (0.0, 0.001, 0.01, 0.5, 1.0)]
        assert 0 < tails[0] <= tails[1] < tails[2] < tails[3] < tails[4]
        assert tails[4] == pytest.approx(stats.upper_tail(k, n, 0.001), rel=1e-12, abs=0)
    assert stats.randomised_upper_tail(0, n, 0.001, 0.0) == 1.0


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (3, 10), (10, 10), (990, 1000), (10**5 - 3, 10**5)])
def test_confidence_sequence_ends_where_the_martingale_reaches_one_over_alpha(k, n):
    low, high = stats.sequence_tails(k, n, 0.01)
    assert low <= 1 - k / n <= high
    for tail in (low, high):
        if 0 < tail < 1:
            assert oracles.mixture_martingale(k, n, 1 - tail) == pytest.approx(100, rel=1e-6)
    assert (low == 0) == (k == n)
    assert (high == 1) == (k == 0)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.99])
def test_confidence_sequence_covers_at_all_counts_at_once(p):
    @functools.cache
    def misses(k, t):
        low, high = stats.sequence_tails(k, t, 0.1)
        return not low <= 1 - p <= high

    assert 0.002 < oracles.probability_of_ever(misses, 150, p) <= 0.1


@pytest.mark.parametrize("failures", [0, 1, 50, 10_000])
def test_many_draws_leave_the_sequence_on_the_safe_side(failures):
    mpmath = pytest.importorskip("mpmath")
    n, alpha = 10**7, 0.0005
    tails = stats.sequence_tails(n - failures, n, alpha)

    def log_evidence(tail):
        """Return log M_n with 40 digits."""
        with mpmath.workdps(40):
            k, p = mpmath.mpf(n - failures), mpmath.mpf(tail)
            beta = mpmath.log(mpmath.beta(k + 0.5, failures + mpmath.mpf("0.5")) / mpmath.beta(0.5, 0.5))
            return float(beta - k * mpmath.log(1 - p) - (failures * mpmath.log(p) if failures else 0))

    for tail, inward in zip(tails, (1 + 1e-6, 1 - 1e-6), strict=True):
        if tail > 0:
            assert log_evidence(tail) >= math.log(1 / alpha) > log_evidence(tail * inward)


@pytest.mark.parametrize("u", [-0.1, 1.1])
def test_impossible_uniform_is_refused(u):
    with pytest.raises(ValueError, match=r"uniform must lie in \[0,1\], got"):
        stats.randomised_upper_tail(1, 2, 0.001, u)


@pytest.mark.parametrize(("p", "q"), [(0.2, 0.7), (0.0, 0.3), (1.0, 0.9)])
def test_divergence_is_the_mean_log_likelihood_ratio(p, q):
    terms = [x * math.log(x / y) for x, y in ((p, q), (1 - p, 1 - q)) if x]
    assert stats.bernoulli_divergence(p, q) == pytest.approx(math.fsum(terms))
