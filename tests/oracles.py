"""Closed forms that import nothing of ours: what the code must agree with."""

from __future__ import annotations

import math
from collections.abc import Callable


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
