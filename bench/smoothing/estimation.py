"""How estimation samples are spent, and what their counts certify; pure, float64, no torch.

`fixed` draws n samples. `skip-wrong` draws none for an image whose selected class is not its label. `sequential`
stops as soon as the verdict at every radius of the table is settled; half of alpha goes to a confidence sequence,
which holds at all sample counts at once, and half to the bound at n, so that either may be used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

from bench.smoothing.stats import radius, randomised_upper_tail, sequence_tails, upper_tail
from bench.types import Bound, Estimation


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How counts become a bound.

    Attributes:
        n: samples at most.
        alpha: probability that the bound is wrong, at most; in (0, 1).
        estimation: how the samples are spent.
        bound: the bound at n samples.
        uniform: the image's own draw from [0,1), which the randomised bound needs; else unused.
    """

    n: int
    alpha: float
    estimation: Estimation = "fixed"
    bound: Bound = "clopper-pearson"
    uniform: float = 0.0

    @property
    def level(self) -> float:
        """alpha of each bound: sequential estimation splits it between two."""
        return self.alpha / 2 if self.estimation == "sequential" else self.alpha


def bound_tail(k: int, samples: int, rule: Rule) -> float:
    """Return an upper bound of the probability of any other class than the selected one, in (0, 1].

    Args:
        k: samples given the selected class, 0 <= k <= samples.
        samples: samples drawn; rule.n unless sequential estimation stopped before.
        rule: which bound, at which level.
    """
    tails = [1.0]
    if samples == rule.n:
        tails.append(_tail_at_n(k, rule))
    if samples and rule.estimation == "sequential":
        tails.append(sequence_tails(k, samples, rule.level)[1])
    return min(tails)


def largest_radius(rule: Rule, sigma: float) -> float:
    """Return the radius certified when all n draws agree (and the uniform is 0): no image can get more."""
    return radius(bound_tail(rule.n, rule.n, dataclasses.replace(rule, uniform=0.0)), sigma)


def _tail_at_n(k: int, rule: Rule) -> float:
    if rule.bound == "randomised":
        return randomised_upper_tail(k, rule.n, rule.level, rule.uniform)
    return upper_tail(k, rule.n, rule.level)


def table_tails(radii: Sequence[float], sigma: float) -> tuple[float, ...]:
    """Return the largest tail that certifies each radius: 1 - Phi(radius / sigma)."""
    return tuple(float(special.ndtr(-wanted / sigma)) for wanted in radii)


def is_settled(k: int, samples: int, rule: Rule, tails: Sequence[float]) -> bool:
    """Return whether more samples cannot or will hardly change the verdict at any radius of the table.

    A radius is settled as certified when the confidence sequence certifies it; as not certified when the
    sequence excludes it, or when n samples could not certify it even if all that are left succeed.

    Args:
        k: samples given the selected class among the first `samples`.
        samples: samples drawn so far.
        rule: of sequential estimation.
        tails: from `table_tails`.
    """
    most = _tail_at_n(k + rule.n - samples, rule)
    if samples == 0:
        return all(most > tail for tail in tails)
    low, high = sequence_tails(k, samples, rule.level)
    return all(high <= tail or low > tail or most > tail for tail in tails)
