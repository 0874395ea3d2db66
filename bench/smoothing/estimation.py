"""How estimation samples are spent, and what their counts certify; pure, float64, no torch.

`fixed` draws n samples. `skip-wrong` draws none for an image whose selected class is not its label. `sequential` looks
at the counts after whole blocks and stops as soon as each radius of the table is certified or given up; it certifies
one of these radii. `confidence-sequence` is what `sequential` was in files of schema version 1: half of alpha for a
confidence sequence, which holds at all sample counts at once, and half for the bound at n. It is read, and not run.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import special

from bench.errors import shown
from bench.smoothing import boundaries
from bench.smoothing.stats import radius, randomised_upper_tail, sequence_tails, upper_tail
from bench.types import ABSTAIN, PartBound, Protocol

ROUNDED_SUM = 1e-12
"""By which the sum of shares may exceed 1, since it is rounded."""


def certified_radius(
    k: int, samples: int, protocol: Protocol, sigma: float, uniform: float | None = None
) -> float | None:
    """Return the radius that counts certify, in pixel units; None where they certify no class, which is to abstain.

    With probability at least 1 - alpha over the samples, the selected class has the probability that the radius rests
    on. The result depends on these arguments alone, not on the order in which the samples came. With sequential
    estimation the guarantee holds at whichever look the samples stopped, and why: counts that stopped by the boundaries
    of one alpha may be tested at another one, or at other radii, that were chosen before they were seen.

    Args:
        k: samples given the selected class, 0 <= k <= samples.
        samples: samples drawn; protocol.n unless sequential estimation stopped before.
        protocol: which bound, at which level; for sequential estimation, at which radii.
        sigma: standard deviation of the noise, > 0; the radius has its unit.
        uniform: the image's own draw from [0,1), which the randomised bound needs.
    """
    if protocol.estimation == "sequential":
        return stopping_rule(protocol, sigma, uniform).certified(k, samples)
    tail = bound_tail(k, samples, protocol, uniform)
    return radius(tail, sigma) if tail <= 0.5 else None


def bound_tail(k: int, samples: int, protocol: Protocol, uniform: float | None = None) -> float:
    """Return an upper bound of the probability of any other class than the selected one, in (0, 1].

    Args: as in `certified_radius`, for any estimation but sequential, which tests radii instead.
    """
    assert protocol.estimation != "sequential"
    tails = [1.0]
    if samples == protocol.n:
        tails.append(_tail_at_n(k, protocol, uniform))
    if samples and protocol.estimation == "confidence-sequence":
        tails.append(sequence_tails(k, samples, _level(protocol))[1])
    return min(tails)


def largest_radius(protocol: Protocol, sigma: float) -> float:
    """Return the radius certified when all n draws agree (and the uniform is 0): no image can get more.

    Sequential estimation certifies those radii of the table that are at most this.
    """
    return radius(_tail_at_n(protocol.n, protocol, 0.0), sigma)


def _level(protocol: Protocol) -> float:
    return protocol.alpha / 2 if protocol.estimation == "confidence-sequence" else protocol.alpha


def _tail_at_n(k: int, protocol: Protocol, uniform: float | None) -> float:
    if protocol.bound == "randomised":
        assert uniform is not None
        return randomised_upper_tail(k, protocol.n, _level(protocol), uniform)
    return upper_tail(k, protocol.n, _level(protocol))


def table_tails(radii: Sequence[float], sigma: float) -> tuple[float, ...]:
    """Return the largest tail that certifies each radius: 1 - Phi(radius / sigma)."""
    return tuple(float(special.ndtr(-wanted / sigma)) for wanted in radii)


@dataclass(frozen=True, kw_only=True)
class StoppingRule:
    """When sequential estimation stops, and what it then certifies.

    A radius is certified when the failures, samples of another class than the selected one, are at most its number at
    this look, and so are those of all smaller radii: where a radius is the first that does not hold, certifying it or
    any larger one takes the success of its own test, whose level is alpha. No part of alpha is divided by the radii.

    Attributes:
        n: samples at the last look.
        radii: that can be certified, ascending; the first is 0, the class itself.
        most: samples at a look -> for each radius the most failures that certify it.
        hopeless: samples at a look -> for each radius the fewest failures that give it up.
    """

    n: int
    radii: tuple[float, ...]
    most: Mapping[int, tuple[int, ...]]
    hopeless: Mapping[int, tuple[int, ...]]

    def certified(self, k: int, samples: int) -> float | None:
        """Return the largest radius that k samples of the selected class certify; None: not even the class.

        Samples that are no look of the rule certify nothing.
        """
        held = self._held(samples - k, samples)
        return self.radii[held - 1] if held else None

    def is_settled(self, k: int, samples: int) -> bool:
        """Return whether every radius is certified, or the smallest that is not is given up."""
        if samples not in self.most and samples != 0:
            return False
        held = self._held(samples - k, samples)
        return held == len(self.radii) or samples - k >= self.hopeless[samples][held]

    def _held(self, failures: int, samples: int) -> int:
        """Return how many of the smallest radii are certified."""
        most = self.most.get(samples, ())
        return next((held for held, limit in enumerate(most) if failures > limit), len(most))


def stopping_rule(protocol: Protocol, sigma: float, uniform: float | None = None) -> StoppingRule:
    """Return the rule of sequential estimation; its boundaries are computed once and kept.

    Args: as in `certified_radius`. The uniform randomises the test at n alone: early looks have nothing to gain, since
        what the steps of the binomial distribution leave of alpha at one look is spent at the next.
    """
    radii = tuple(sorted({0.0, *protocol.radii}))
    if protocol.bound == "clopper-pearson":
        uniform = 1.0
    assert uniform is not None
    luck = max(uniform, 2 * protocol.alpha)  # as in `randomised_upper_tail`
    tails = table_tails(radii, sigma)
    found = [boundaries.boundary(protocol.n, protocol.alpha, tail) for tail in tails]
    is_lucky = tuple(luck <= one.luck for one in found)
    return _rule(protocol.n, protocol.alpha, radii, tails, is_lucky)


@functools.lru_cache(maxsize=256)
def _rule(
    n: int, alpha: float, radii: tuple[float, ...], tails: tuple[float, ...], is_lucky: tuple[bool, ...]
) -> StoppingRule:
    looks = boundaries.looks(n)
    most, hopeless = [], []
    for tail, lucky in zip(tails, is_lucky, strict=True):
        *early, at_n = boundaries.boundary(n, alpha, tail).most
        most.append((*early, at_n + lucky))
        hopeless.append(boundaries.hopeless(n, at_n + lucky))
    given_up = dict(zip(looks, zip(*hopeless, strict=True), strict=True))
    return StoppingRule(
        n=n,
        radii=radii,
        most=dict(zip(looks, zip(*most, strict=True), strict=True)),
        hopeless={0: tuple(0 if limits[-1] < 0 else n + 1 for limits in most)} | given_up,
    )


def composed(bounds: Sequence[PartBound]) -> tuple[int, float]:
    """Return the class and the radius that bounds, one or more, certify together; ABSTAIN and 0.0 where one abstains.

    The class is that of the last, the radius the smallest.
    """
    if any(one.predict == ABSTAIN for one in bounds):
        return ABSTAIN, 0.0
    return bounds[-1].predict, min(one.radius for one in bounds)


def bounds_fault(asked: Sequence[tuple[str, float]]) -> str | None:
    """Return why bounds of these names and shares of alpha cannot be those of one image; None where they can."""
    names, shares = [name for name, _ in asked], [share for _, share in asked]
    if len(set(names)) < len(names) or not all(names):
        return f"names are {shown(names)}, expected another for each"
    if not all(0 < share <= 1 for share in shares) or math.fsum(shares) > 1 + ROUNDED_SUM:
        return f"shares of alpha are {shown(shares)}, expected numbers above 0 that add up to at most 1"
    return None
