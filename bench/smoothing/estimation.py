"""How estimation samples are spent, and what their counts certify; pure, float64, no torch.

`fixed` draws n samples. `skip-wrong` draws none for an image whose selected class is not its label. `sequential`
stops as soon as the verdict at every radius of the table is settled; half of alpha goes to a confidence sequence,
which holds at all sample counts at once, and half to the bound at n, so that either may be used.
"""

from __future__ import annotations

from collections.abc import Sequence

from scipy import special

from bench.smoothing.stats import radius, randomised_upper_tail, sequence_tails, upper_tail
from bench.types import Protocol


def level(protocol: Protocol) -> float:
    """Return the level of each bound: alpha, which sequential estimation splits between two."""
    return protocol.alpha / 2 if protocol.estimation == "sequential" else protocol.alpha


def bound_tail(k: int, samples: int, protocol: Protocol, uniform: float | None = None) -> float:
    """Return an upper bound of the probability of any other class than the selected one, in (0, 1].

    Args:
        k: samples given the selected class, 0 <= k <= samples.
        samples: samples drawn; protocol.n unless sequential estimation stopped before.
        protocol: which bound, at which level.
        uniform: the image's own draw from [0,1), which the randomised bound needs.
    """
    tails = [1.0]
    if samples == protocol.n:
        tails.append(_tail_at_n(k, protocol, uniform))
    if samples and protocol.estimation == "sequential":
        tails.append(sequence_tails(k, samples, level(protocol))[1])
    return min(tails)


def certified_radius(
    k: int, samples: int, protocol: Protocol, sigma: float, uniform: float | None = None
) -> float | None:
    """Return the radius that k of some samples certify for the selected class, >= 0; None: nothing, abstain.

    It is what a certificate is made with, and what a record is checked against.

    Args:
        k, samples, protocol, uniform: as in `bound_tail`.
        sigma: standard deviation of the noise, > 0; the radius has its unit.
    """
    tail = bound_tail(k, samples, protocol, uniform)
    return radius(tail, sigma) if tail <= 0.5 else None


def largest_radius(protocol: Protocol, sigma: float) -> float:
    """Return the radius certified when all n draws agree (and the uniform is 0): no image can get more."""
    return radius(bound_tail(protocol.n, protocol.n, protocol, 0.0), sigma)


def _tail_at_n(k: int, protocol: Protocol, uniform: float | None) -> float:
    if protocol.bound == "randomised":
        assert uniform is not None
        return randomised_upper_tail(k, protocol.n, level(protocol), uniform)
    return upper_tail(k, protocol.n, level(protocol))


def table_tails(radii: Sequence[float], sigma: float) -> tuple[float, ...]:
    """Return the largest tail that certifies each radius: 1 - Phi(radius / sigma)."""
    return tuple(float(special.ndtr(-wanted / sigma)) for wanted in radii)


def is_settled(
    k: int, samples: int, protocol: Protocol, tails: Sequence[float], uniform: float | None = None
) -> bool:
    """Return whether more samples cannot or will hardly change the verdict at any radius of the table.

    A radius is settled as certified when the confidence sequence certifies it; as not certified when the
    sequence excludes it, or when n samples could not certify it even if all that are left succeed.

    Args:
        k: samples given the selected class among the first `samples`.
        samples: samples drawn so far.
        protocol: with sequential estimation.
        tails: from `table_tails`.
        uniform: as in `bound_tail`.
    """
    most = _tail_at_n(k + protocol.n - samples, protocol, uniform)
    if samples == 0:
        return all(most > tail for tail in tails)
    low, high = sequence_tails(k, samples, level(protocol))
    return all(high <= tail or low > tail or most > tail for tail in tails)
