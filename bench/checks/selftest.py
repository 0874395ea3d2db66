"""The certifier on classifiers whose truth is known: does it err more often than it promises, and is it vacuous?

Violations at alpha = 0.001 are too rare to tell a broken certifier from a sound one in a thousand trials, so the
check runs at a larger alpha: the code is the same at any level. Half-spaces make the bound tight, which shows a
bound that is too bold; slabs and balls have curved truth; the labeller at probability 1/2 shows a certifier that
selects and estimates on the same noise; the tails show noise that is not normal far out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from bench.checks.synthetic import TAIL_SHARE, Synthetic, ball, half_space, labeller, slab, tails
from bench.smoothing.certifier import Smoothed
from bench.smoothing.stats import binomial_upper_tail
from bench.types import ABSTAIN, Bound, Certificate, Estimation, Protocol

FALSE_ALARM = 1e-6
"""Probability, at most, that a sound certifier fails the self-test as a whole."""

SIGMA = 0.5

MODES: tuple[tuple[Estimation, Bound], ...] = (
    ("fixed", "clopper-pearson"),
    ("fixed", "randomised"),
    ("skip-wrong", "clopper-pearson"),
    ("sequential", "clopper-pearson"),
    ("sequential", "randomised"),
)
"""(estimation, bound) that are tested."""

TAILS_PROTOCOL, TAILS_TRIALS = Protocol(n0=1, n=2, alpha=0.29), 6
"""Of the classifier that looks at tails. With bounded noise each of its certificates is wrong; with normal noise all
of them are with probability TAIL_SHARE^18 = 6e-7 (a part of FALSE_ALARM)."""

PROTOCOL = Protocol(n0=20, n=300, alpha=0.05, radii=(0.0, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75))

STOPPING = Protocol(estimation="sequential")
"""Protocol at which the stopping rule is checked by `bench.checks.stopping`."""

LEAST_TRIALS = 20
"""Trials from which a mean radius is judged."""

Certify = Callable[[Smoothed, Tensor, int, Protocol, int | None], Certificate]
"""`Smoothed.certify`, or a certifier that is to be tested in its place."""

Predict = Callable[[Smoothed, Tensor, int, Protocol], int]
"""`Smoothed.predict`, or what is to be tested in its place."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a self-test is: the protocol of its certificates, but for their mode, and the trials of each check."""

    protocol: Protocol = PROTOCOL
    trials: int = 1000


DEFAULT = Size()


@dataclass(frozen=True, kw_only=True)
class Check:
    """One classifier under one mode.

    Attributes:
        violations: certificates with another class than the smoothed one, or beyond the true radius.
        allowed: the most violations that a sound certifier makes but for a chance of FALSE_ALARM over all checks.
        reach: mean certified radius over the true one, NaN where that is infinite or zero; of PREDICT the share
            of right answers.
        least_reach: what the mean must be at least, so that a certifier that certifies nothing does not pass; it is
            asked of LEAST_TRIALS or more, since the mean of a few is too uncertain.
    """

    name: str
    mode: str
    trials: int
    violations: int
    allowed: int
    reach: float
    least_reach: float

    @property
    def passes(self) -> bool:
        """True where there are no more violations than allowed, and the radii are not vacuous."""
        is_vacuous = self.trials >= LEAST_TRIALS and self.reach < self.least_reach
        return self.violations <= self.allowed and not is_vacuous


def run_selftest(
    size: Size = DEFAULT, certify: Certify = Smoothed.certify, predict: Predict = Smoothed.predict
) -> Iterator[Check]:
    """Yield the checks of a certifier and of a PREDICT, one after the other.

    Args:
        size: level, samples and trials.
        certify, predict: give your own to test them.
    """
    cases = list(itertools.product(_families(), MODES))
    checks = check_count()
    for (family, least_reach), (estimation, bound) in cases:
        protocol = replace(size.protocol, estimation=estimation, bound=bound)
        yield check_family(family, protocol, certify, size.trials, least_reach, checks)
    for family, least_reach in ((labeller(0.5, SIGMA), 0.0), (half_space(0.6, SIGMA), 0.9)):
        yield _check_predict(family, size.protocol, predict, size.trials, least_reach, checks)
    yield check_tails(certify)


def check_count() -> int:
    """Return the number of checks of a self-test."""
    return len(_families()) * len(MODES) + 3


def _families() -> tuple[tuple[Synthetic, float], ...]:
    """Return the classifiers, each with the least share of the true radius that a useful certifier reaches."""
    return (
        (half_space(0.2, SIGMA), 0.3),
        (half_space(0.6, SIGMA), 0.5),
        (slab(0.6, SIGMA), 0.3),
        (ball(2.6, SIGMA), 0.1),
        (labeller(0.5, SIGMA), 0.0),
        (labeller(0.48, SIGMA), 0.0),
    )


def check_family(
    family: Synthetic, protocol: Protocol, certify: Certify, trials: int, least_reach: float, checks: int
) -> Check:
    """Return one check of `certify`, of `checks` that share FALSE_ALARM; a labeller gets thrice the trials."""
    trials *= 3 if family.name == "labeller" else 1
    smoothed = family.smoothed(batch_size=protocol.n)
    label = None if family.label == ABSTAIN else family.label
    certificates = [certify(smoothed, family.x, index, protocol, label) for index in range(trials)]
    is_finite = 0 < family.radius < math.inf
    return Check(
        name=_title(family),
        mode=f"{protocol.estimation}, {protocol.bound}",
        trials=trials,
        violations=sum(_is_violation(family, certificate) for certificate in certificates),
        allowed=allowed_violations(trials, protocol.alpha, _false_alarm(checks)),
        reach=sum(c.radius for c in certificates) / trials / family.radius if is_finite else math.nan,
        least_reach=least_reach,
    )


def check_tails(certify: Certify, trials: int = TAILS_TRIALS) -> Check:
    """Return the check of `certify` on a classifier that looks at the tails of the noise."""
    check = check_family(tails(SIGMA), TAILS_PROTOCOL, certify, trials, 0.0, 1)
    return replace(check, allowed=trials - 1)


def _check_predict(
    family: Synthetic, protocol: Protocol, predict: Predict, trials: int, least_reach: float, checks: int
) -> Check:
    smoothed = family.smoothed(batch_size=protocol.n)
    answers = [predict(smoothed, family.x, index, protocol) for index in range(trials)]
    return Check(
        name=_title(family),
        mode="PREDICT",
        trials=trials,
        violations=sum(answer not in (family.label, ABSTAIN) for answer in answers),
        allowed=allowed_violations(trials, protocol.alpha, _false_alarm(checks)),
        reach=sum(answer == family.label for answer in answers) / trials,
        least_reach=least_reach,
    )


def _false_alarm(checks: int) -> float:
    """Return the share of FALSE_ALARM of each check but that of the tails, whose own is fixed."""
    samples = TAILS_TRIALS * (TAILS_PROTOCOL.n0 + TAILS_PROTOCOL.n)
    return (FALSE_ALARM - TAIL_SHARE**samples) / max(1, checks - 1)


def _title(family: Synthetic) -> str:
    if family.name == "labeller":
        return "labeller, even" if family.label == ABSTAIN else "labeller, uneven"
    if family.name == "tails":
        return "tails of single coordinates"
    return f"{family.name}, radius {family.radius:.3f}"


def _is_violation(family: Synthetic, certificate: Certificate) -> bool:
    if certificate.predict == ABSTAIN:
        return False  # it claims nothing
    return certificate.predict != family.label or certificate.radius > family.radius


def allowed_violations(trials: int, alpha: float, false_alarm: float) -> int:
    """Return the largest count that Binomial(trials, alpha) exceeds with probability `false_alarm` at most."""
    count = 0
    while binomial_upper_tail(count + 1, trials, alpha) > false_alarm:
        count += 1
    return count
