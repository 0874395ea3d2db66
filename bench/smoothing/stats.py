"""Binomial bounds, intervals and tests, and the radius that a bound certifies; float64, no torch.

Near p = 1 a bound p_lower loses digits in float64, so the certifier carries the tail 1 - p_lower instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

OUTWARD = 1 + 1e-11
"""Factor by which a root is moved to the safe side: more than the root finder's error."""

FAR = 700.0
"""Logit beyond every root: exp(-FAR) is the smallest tail that float64 tells from 0."""


def clopper_pearson_lower(k: int, n: int, alpha: float) -> float:
    """Return the one-sided Clopper-Pearson lower bound of a success probability.

    With probability at least 1 - alpha over the n draws, the true probability is at least this bound.

    Args:
        k: successes, 0 <= k <= n.
        n: draws, >= 1.
        alpha: failure probability of the bound, in (0, 1).

    Returns:
        The bound in [0, 1): 0 for k = 0, alpha^(1/n) for k = n.

    Raises:
        ValueError: k, n or alpha lies outside its range.
    """
    _check_counts(k, n, alpha)
    if k == 0:
        return 0.0
    if k == n:
        return math.exp(math.log(alpha) / n)
    return float(special.betaincinv(k, n - k + 1, alpha))


def upper_tail(k: int, n: int, alpha: float) -> float:
    """Return 1 - `clopper_pearson_lower(k, n, alpha)`, at full precision also where the bound is near 1.

    Args, Raises: as in `clopper_pearson_lower`.

    Returns:
        An upper bound, at level alpha, of the failure probability, in (0, 1].
    """
    _check_counts(k, n, alpha)
    if k == 0:
        return 1.0
    if k == n:
        return -math.expm1(math.log(alpha) / n)
    return float(special.betainccinv(n - k + 1, k, alpha))


def upper_tails(k: NDArray[np.int64], n: int, alpha: float) -> NDArray[np.float64]:
    """Return `upper_tail(k, n, alpha)` for each of many numbers of successes, in their shape."""
    if k.size:
        _check_counts(int(k.min()), n, alpha)
        _check_counts(int(k.max()), n, alpha)
    inner = np.clip(k, 1, max(1, n - 1))
    tails = special.betainccinv(np.maximum(1, n - inner + 1), inner, alpha)
    return np.where(k == n, -math.expm1(math.log(alpha) / n), np.where(k == 0, 1.0, tails))


def randomised_upper_tail(k: int, n: int, alpha: float, uniform: float) -> float:
    """Return 1 - p_lower of the randomised Clopper-Pearson bound (arXiv 2406.17830).

    p_lower solves P(X > k) + u P(X = k) = alpha for X ~ Binomial(n, p). With u uniform in [0,1] and drawn
    independently of k, the bound fails with probability alpha exactly; it is never below the usual one.
    Deviation: u is kept at 2 alpha or above. Below alpha, k = n would give p_lower = 1 and an infinite radius;
    a larger u only lowers the bound.

    Args:
        k, n, alpha: as in `clopper_pearson_lower`.
        uniform: u, in [0,1].

    Returns:
        An upper bound, at level alpha, of the failure probability, in (0, 1].

    Raises:
        ValueError: k, n, alpha or uniform lies outside its range.
    """
    _check_counts(k, n, alpha)
    if not 0 <= uniform <= 1:
        raise ValueError(f"uniform must lie in [0,1], got {uniform!r}")
    u = min(1.0, max(uniform, 2 * alpha))
    if k == 0:
        return 1.0
    if k == n:
        return -math.expm1(min(math.log(alpha) - math.log(u), math.log(0.5)) / n)
    low, high = upper_tail(k + 1, n, alpha), upper_tail(k, n, alpha)

    def excess(log_tail: float) -> float:
        tail = math.exp(log_tail)
        more, at_least = special.betaincc(n - k, k + 1, tail), special.betaincc(n - k + 1, k, tail)
        return float((1 - u) * more + u * at_least) - alpha

    if excess(math.log(high)) >= 0:  # u = 1, up to rounding
        return high
    if excess(math.log(low)) <= 0:  # u next to 0, up to rounding
        return min(high, OUTWARD * low)
    return min(high, OUTWARD * math.exp(_root(excess, math.log(low), math.log(high), xtol=1e-13)))


def sequence_tails(k: int, n: int, alpha: float) -> tuple[float, float]:
    """Return the interval of 1 - p of a confidence sequence: it holds at all n at once with probability 1 - alpha.

    {p : M_n(p) < 1 / alpha} of the mixture martingale M_n(p) = B(1/2 + k, 1/2 + n - k) / (B(1/2, 1/2) p^k
    (1 - p)^(n - k)), which has mean 1 at the true p (Ville's inequality; arXiv 2010.09686).

    Args:
        k: successes among the first n draws, 0 <= k <= n.
        n: draws so far, >= 1.
        alpha: probability that the interval ever misses, in (0, 1).

    Returns:
        (low, high) with 0 <= low <= 1 - k/n <= high <= 1, at full precision near 0.

    Raises:
        ValueError: k, n or alpha lies outside its range.
    """
    _check_counts(k, n, alpha)
    evidence = float(special.betaln(0.5 + k, 0.5 + n - k) - special.betaln(0.5, 0.5)) + math.log(alpha)
    evidence -= 8 * np.finfo(float).eps * float(special.gammaln(n + 1))  # at least what betaln may lose

    def excess(logit: float) -> float:
        """Return log M_n + log(alpha) at the tail 1 / (1 + exp(-logit)): convex, negative at 1 - k/n."""
        return evidence + k * float(np.logaddexp(0, logit)) + (n - k) * float(np.logaddexp(0, -logit))

    middle = math.log((n - k) / k) if 0 < k < n else math.copysign(FAR, -k)
    low = 0.0 if k == n else float(special.expit(_root(excess, -FAR, middle, xtol=1e-13)))
    high = 1.0 if k == 0 else float(special.expit(_root(excess, middle, FAR, xtol=1e-13)))
    return low / OUTWARD, min(1.0, high * OUTWARD)


def _root(function: Callable[[float], float], low: float, high: float, xtol: float) -> float:
    """Return the root between two points by Brent's method."""
    from scipy import optimize  # here, since few runs need it, and it takes as long to import as all else

    return float(optimize.brentq(function, low, high, xtol=xtol))


def _check_counts(k: int, n: int, alpha: float) -> None:
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"k successes of n draws need 0 <= k <= n and n >= 1, got k = {k}, n = {n}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha!r}")


def radius(tail: float, sigma: float) -> float:
    """Return the certified L2 radius sigma * Phi^-1(1 - tail) (arXiv 1902.02918, Eq. 3 with p_B = 1 - p_A).

    Args:
        tail: upper bound 1 - p_lower of the probability of any other class, in [0, 1].
        sigma: standard deviation of the noise, > 0; the radius has its unit.

    Returns:
        The radius, >= 0; 0.0 where tail >= 1/2, which certifies nothing.
    """
    return -float(sigma) * float(special.ndtri(tail)) if tail < 0.5 else 0.0


def largest_radius(n: int, alpha: float, sigma: float) -> float:
    """Return the radius certified when all n draws agree: no run of n draws can certify more.

    Raises:
        ValueError: n < 1, or alpha lies outside (0, 1).
    """
    return radius(upper_tail(n, n, alpha), sigma)


def binomial_two_sided_p(k: int, n: int) -> float:
    """Return the p-value of the exact two-sided binomial test of k successes in n draws against p = 1/2.

    Args:
        k: successes, 0 <= k <= n.
        n: draws; 0 draws give 1.0, no evidence.

    Raises:
        ValueError: k lies outside 0..n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"k successes of n draws need 0 <= k <= n, got k = {k}, n = {n}")
    fewer = min(k, n - k)
    if 2 * fewer == n:
        return 1.0
    return min(1.0, 2.0 * float(special.betainc(n - fewer, fewer + 1, 0.5)))


def binomial_upper_tail(k: int, n: int, p: float) -> float:
    """Return P(X >= k) for X ~ Binomial(n, p), at full relative precision, for 0 <= k <= n and p in [0,1]."""
    return 1.0 if k == 0 else float(special.betainc(k, n - k + 1, p))


def proportion_interval(
    k: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the exact two-sided Clopper-Pearson interval of a proportion.

    Each interval covers the true proportion with probability at least `confidence`.

    Args:
        k: successes, scalar or array, 0 <= k <= n.
        n: draws, broadcast with k; 0 draws give (0, 1).
        confidence: in (0, 1).

    Returns:
        (low, high), float64 of the broadcast shape; numpy scalars for scalar input.

    Raises:
        ValueError: k, n or confidence lies outside its range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    successes, draws = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(n, np.float64))
    failures = draws - successes
    if not np.all((successes >= 0) & (failures >= 0)):
        raise ValueError(f"k successes of n draws need 0 <= k <= n, got k = {k!r}, n = {n!r}")
    side = (1 - confidence) / 2
    low = special.betaincinv(np.maximum(successes, 1), failures + 1, side)
    high = special.betainccinv(successes + 1, np.maximum(failures, 1), side)
    return np.where(successes == 0, 0.0, low)[()], np.where(failures == 0, 1.0, high)[()]


def paired_interval(
    only_first: int, only_second: int, images: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the score interval of the difference of two shares over the same images (Tango 1998, doi
    10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B).

    It holds the differences that the score test of paired shares does not reject: approximate, but close to its
    confidence also where few images tell the two apart.

    Args:
        only_first: images that have the property in the first sample alone.
        only_second: images that have it in the second alone.
        images: images in all, >= only_first + only_second, >= 1.
        confidence: in (0, 1).

    Returns:
        (low, high) of first minus second, in [-1,1].

    Raises:
        ValueError: a count or the confidence lies outside its range.
    """
    if min(only_first, only_second) < 0 or not 1 <= images >= only_first + only_second:
        raise ValueError(
            f"paired counts need 0 <= only_first + only_second <= images and images >= 1, got {only_first}, "
            f"{only_second} of {images}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    critical = float(special.ndtri((1 + confidence) / 2))
    low = -_highest_difference(only_second, only_first, images, critical)
    return low, _highest_difference(only_first, only_second, images, critical)


def _highest_difference(only_first: int, only_second: int, images: int, critical: float) -> float:
    """Return the largest difference whose score is at least -critical."""
    found = only_first - only_second
    if found == images:
        return 1.0
    if only_first == only_second == 0:  # the score is -sqrt(images d / (1 - d))
        return critical**2 / (images + critical**2)
    if found == -images:  # the score is -sqrt(images (1 + d) / (1 - d))
        return 2 * critical**2 / (images + critical**2) - 1

    def excess(difference: float) -> float:
        """Return score^2 - critical^2, times the variance, which is least at the constrained estimate."""
        linear = (2 * images - found) * difference - only_first - only_second
        constant = -only_second * difference * (1 - difference)
        root = math.sqrt(max(0.0, linear**2 - 8 * images * constant))
        share = max(0.0, root - linear) / (4 * images)  # only in the second, given the difference
        variance = images * (2 * share + difference * (1 - difference))
        return (found - images * difference) ** 2 - critical**2 * variance

    low, high = found / images, 1.0  # the excess is negative at the estimate, and positive at 1
    while high - low > 1e-14:  # scipy.optimize takes longer to import than a table's intervals take to bisect
        middle = (low + high) / 2
        if excess(middle) <= 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p-values adjusted for their number (Holm 1979), in their order, each in [0,1].

    Rejecting where the adjusted value is at most alpha makes any false rejection at most alpha likely, however
    the tests depend on each other.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return tuple(adjusted)


def most_failures(trials: int, alpha: float, confidence: float) -> int:
    """Return the fewest failures that are not exceeded with probability `confidence`.

    Args:
        trials: independent trials, each failing with probability alpha at most; >= 0.
        alpha, confidence: in (0, 1).

    Raises:
        ValueError: alpha or confidence lies outside (0, 1).
    """
    if not (0 < alpha < 1 and 0 < confidence < 1):
        raise ValueError(f"alpha and confidence must lie between 0 and 1, got {alpha!r} and {confidence!r}")
    failures = 0
    while failures < trials and binomial_upper_tail(failures + 1, trials, alpha) > 1 - confidence:
        failures += 1
    return failures


def bernoulli_divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return KL(p, q) = p ln(p/q) + (1 - p) ln((1 - p)/(1 - q)) in nats, for p in [0,1] and q in (0,1), broadcast."""
    return np.asarray(special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q))
