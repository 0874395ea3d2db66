"""Trials of several readings of one checkpoint, and what they allow to say: as declared, looks like X, cannot tell.

A reading is one way to use a network: another input range, other labels, another noise level. Nothing is said
where the intervals of two readings overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from bench.smoothing.stats import proportion_interval

CONFIDENCE = 0.95
"""Confidence of every interval of a trial."""

IMAGES_PER_CLASS = 3
"""Images per class, on average, that a fitted order of labels needs at least."""

AT_ITS_NOISE = "accuracy at its noise"
"""Condition of the accuracies of a classifier at several noise levels."""

Kind = Literal["as declared", "looks like", "cannot tell"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One reading under one condition.

    Attributes:
        reading: how the network was used.
        condition: on what, and what was measured, as "accuracy under noise 0.25"; only trials of the same
            condition are compared.
        score: an accuracy in [0,1], or an error.
        low, high: its interval at CONFIDENCE over images.
        images: how many images it rests on.
        lower_is_better: True of errors.
    """

    reading: str
    condition: str
    score: float
    low: float
    high: float
    images: int
    lower_is_better: bool = False

    def beats(self, other: Trial, margin: float = 1.0) -> bool:
        """Return whether this reading is the better one: the intervals are disjoint, by a factor `margin`."""
        if self.lower_is_better:
            return self.high * margin < other.low
        return self.low > other.high * margin


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What trials allow to say.

    Attributes:
        kind: one of three.
        readings: what it looks like, several where these cannot be told apart; of "cannot tell", those that the
            declared reading cannot be told from; else empty.
    """

    kind: Kind
    readings: tuple[str, ...] = ()


CANNOT_TELL = Verdict(kind="cannot tell")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One question: what was tried, and what that allows to say.

    Attributes:
        declared: the declared reading; None where nothing is declared.
        by: what the verdict rests on.
    """

    question: str
    declared: str | None
    trials: tuple[Trial, ...]
    verdict: Verdict
    by: str


def collapse(answer: Answer) -> str:
    """Return a sentence where noise takes more than half of the accuracy on clean images, for certain; "" elsewhere.

    Args:
        answer: on sigma, its accuracies by ascending noise, clean images first.
    """
    accuracies = [one for one in answer.trials if one.condition == AT_ITS_NOISE]
    for one in accuracies[1:]:
        if one.high < accuracies[0].low / 2:
            return (
                f"It is right on {accuracies[0].score:.1%} of clean images and on {one.score:.1%} at {one.reading}: do "
                "not certify it from there on, unless behind a denoiser."
            )
    return ""


def accuracy(reading: str, condition: str, correct: int, images: int) -> Trial:
    """Return the trial of `correct` right answers on `images` images, with its exact two-sided interval."""
    low, high = proportion_interval(correct, images, CONFIDENCE)
    score = correct / images
    return Trial(
        reading=reading, condition=condition, score=score, low=float(low), high=float(high), images=images
    )


def mean_error(reading: str, condition: str, errors: NDArray[np.float64]) -> Trial:
    """Return the trial of one error per image, (n,) with n >= 2: the mean and its interval by Student's t."""
    mean = float(errors.mean())
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(errors) - 1))
    half = quantile * float(errors.std(ddof=1)) / math.sqrt(len(errors))
    return Trial(
        reading=reading,
        condition=condition,
        score=mean,
        low=max(0.0, mean - half),
        high=mean + half,
        images=len(errors),
        lower_is_better=True,
    )


def is_better(trials: Sequence[Trial], one: str, other: str, margin: float = 1.0) -> bool:
    """Return whether reading `one` beats `other` under some condition, and is beaten by it under none."""
    pairs = [
        (a, b)
        for a in trials
        for b in trials
        if (a.reading, b.reading) == (one, other) and a.condition == b.condition
    ]
    return any(a.beats(b, margin) for a, b in pairs) and not any(b.beats(a, margin) for a, b in pairs)


def judge(trials: Sequence[Trial], declared: str | None, *, margin: float = 1.0) -> Verdict:
    """Return what the trials say of the declared reading.

    "Looks like" needs a reading that is better than the declared one (`is_better`), "as declared" a declared one that
    is better than all others. A right declaration whose accuracy no other reading exceeds is accused by one other
    reading under one condition with probability 0.2% at most if their counts were independent (by enumeration, 64
    images); on the same images and noise, as here, the counts move together, and it is less.

    Args:
        trials: of every reading, under the same conditions.
        declared: a reading among them; None: nothing is declared, and only a reading that is better than all others
            counts.
        margin: factor by which intervals must be disjoint.
    """
    names = tuple(dict.fromkeys(trial.reading for trial in trials))
    if declared is None:
        best = tuple(
            a
            for a in names
            if len(names) > 1 and all(is_better(trials, a, b, margin) for b in names if b != a)
        )
        return Verdict(kind="looks like", readings=best) if best else CANNOT_TELL
    others = [name for name in names if name != declared]
    if found := [name for name in others if is_better(trials, name, declared, margin)]:
        likely = tuple(name for name in found if not any(is_better(trials, rival, name) for rival in found))
        return Verdict(kind="looks like", readings=likely)
    rivals = tuple(name for name in others if not is_better(trials, declared, name, margin))
    if rivals or not others:
        return Verdict(kind="cannot tell", readings=rivals)
    return Verdict(kind="as declared")


def judge_collapse(trials: Sequence[Trial], declared: str) -> Verdict:
    """Return what accuracy at rising noise levels says of the level that a network was trained at.

    Every classifier loses accuracy with noise, but one that loses half of it on the way to the level that it was
    declared for was trained below. A right declaration is not "as declared" by this: a network that was trained
    at more noise, or on an easier task, keeps its accuracy too.

    Args:
        trials: accuracies, a reading per noise level, ascending.
        declared: the level's reading.
    """
    kept = not_collapsed(trials)
    if declared in kept:
        return CANNOT_TELL
    return Verdict(kind="looks like", readings=(f"{kept[-1]} or less",))


def not_collapsed(trials: Sequence[Trial]) -> list[str]:
    """Return the readings, in order, whose accuracy is not clearly below half of the best."""
    best = max(trial.low for trial in trials)
    return [trial.reading for trial in trials if trial.high >= best / 2]


def fit_order(predicted: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Return the order of labels, (K,) int64 from output to class, under which most predictions are right.

    The assignment is the best of all permutations (Hungarian algorithm); outputs that no image tells keep their
    own class where it is free.

    Args:
        predicted, labels: (n,) classes in 0..K-1.
    """
    agreement = np.zeros((num_classes, num_classes))
    np.add.at(agreement, (predicted, labels), 1.0)
    agreement += 1e-6 * np.eye(num_classes)
    _, classes = optimize.linear_sum_assignment(agreement, maximize=True)
    return classes.astype(np.int64)


def known_orders(class_names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Return the orders in which class names often come, by name: each (K,) int64 from output to class.

    Orders that equal the data set's own are left out.
    """
    count = len(class_names)
    own = list(range(count))
    orders = {
        "one higher (a background class first)": [(k - 1) % count for k in own],
        "one lower": [(k + 1) % count for k in own],
        "alphabetical by class name": sorted(own, key=lambda k: class_names[k]),
        "sorted as text (0, 1, 10, 11, ..., 2)": sorted(own, key=str),
        "reversed": own[::-1],
    }
    different: dict[str, list[int]] = {}
    for name, order in orders.items():
        if order not in (own, *different.values()):
            different[name] = order
    return {name: np.array(order, np.int64) for name, order in different.items()}
