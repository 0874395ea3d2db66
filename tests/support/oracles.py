"""Closed forms that import nothing of ours: what the code must agree with."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import integrate, special


def binomial_pmf(k: int, n: int, p: float) -> float:
    """Return P(X = k) for X ~ Binomial(n, p), n small."""
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def binomial_at_least(k: int, n: int, p: float) -> float:
    """Return P(X >= k) for X ~ Binomial(n, p), by summing n - k + 1 terms."""
    return math.fsum(binomial_pmf(i, n, p) for i in range(k, n + 1))


def clopper_pearson_lower(k: int, n: int, alpha: float) -> float:
    """Return the p with P(X >= k) = alpha, or 0 for k = 0: the definition of the bound."""
    return bisect(lambda p: binomial_at_least(k, n, p) - alpha, 0.0, 1.0) if k else 0.0


def two_sided_p(k: int, n: int) -> float:
    """Return the total probability, at p = 1/2, of all counts that are no likelier than k."""
    weights = [math.comb(n, i) for i in range(n + 1)]
    return sum(weight for weight in weights if weight <= weights[k]) / 2**n


def normal_tail(z: float) -> float:
    """Return P(Z > z) of a standard normal variable, at full relative precision for z > 0."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    """Return the zero of a rising function between low and high, to the last bit or so."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def randomised_lower(k: int, n: int, alpha: float, u: float) -> float:
    """Return the p with P(X > k) + u P(X = k) = alpha, for k >= 1."""
    return bisect(lambda p: binomial_at_least(k + 1, n, p) + u * binomial_pmf(k, n, p) - alpha, 0.0, 1.0)


def mixture_martingale(k: int, n: int, p: float) -> float:
    """Return the Beta(1/2, 1/2) mixture of likelihoods of k of n successes, over the likelihood of p."""
    mixture = math.lgamma(k + 0.5) + math.lgamma(n - k + 0.5) - math.lgamma(n + 1) - math.log(math.pi)
    return math.exp(mixture - k * math.log(p) - (n - k) * math.log1p(-p))


def probability_of_ever(happens: Callable[[int, int], bool], n: int, p: float) -> float:
    """Return P(happens(k, t) at some t <= n) for the count k of successes of t Bernoulli(p) draws, exactly."""
    alive, gone = {0: 1.0}, 0.0
    for t in range(1, n + 1):
        step: dict[int, float] = {}
        for k, mass in alive.items():
            step[k] = step.get(k, 0.0) + mass * (1 - p)
            step[k + 1] = step.get(k + 1, 0.0) + mass * p
        gone += math.fsum(mass for k, mass in step.items() if happens(k, t))
        alive = {k: mass for k, mass in step.items() if not happens(k, t)}
    return gone


def probability_when_over(
    is_over: Callable[[int, int], bool], happens: Callable[[int, int], bool], n: int, p: float
) -> float:
    """Return P(happens(k, t) at the first t at which is_over(k, t)) for the counts of Bernoulli(p) draws, n at most."""

    def ends(k: int, t: int) -> bool:
        return t == n or is_over(k, t)

    alive, found = {0: 1.0}, 0.0
    for t in range(1, n + 1):
        step: dict[int, float] = {}
        for k, mass in alive.items():
            step[k] = step.get(k, 0.0) + mass * (1 - p)
            step[k + 1] = step.get(k + 1, 0.0) + mass * p
        found += math.fsum(mass for k, mass in step.items() if ends(k, t) and happens(k, t))
        alive = {k: mass for k, mass in step.items() if not ends(k, t)}
    return found


def ball_probability(size: float, distance: float, sigma: float, dimensions: int) -> float:
    """Return P(|s e + sigma Z| <= size) for s = distance, by integrating over the coordinate along e."""

    def density(z: float) -> float:
        rest = (size**2 - (distance + sigma * z) ** 2) / sigma**2
        inside = float(special.gammainc((dimensions - 1) / 2, rest / 2)) if rest > 0 else 0.0
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi) * inside

    low, high = (-size - distance) / sigma, (size - distance) / sigma
    return float(integrate.quad(density, max(low, -9.0), min(high, 9.0))[0])
