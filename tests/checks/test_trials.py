"""What trials allow to say: nothing where intervals overlap, and rarely a wrong accusation."""

import numpy as np
import pytest

from bench.checks.doctor.trials import (
    AT_ITS_NOISE,
    CANNOT_TELL,
    Answer,
    Trial,
    Verdict,
    accuracy,
    collapse,
    fit_order,
    judge,
    judge_collapse,
    known_orders,
    mean_error,
)
from tests.support.oracles import binomial_pmf


def trial(reading, low, high, *, condition="clean", error=False):
    score = (low + high) / 2
    return Trial(
        reading=reading,
        condition=condition,
        score=score,
        low=low,
        high=high,
        images=64,
        lower_is_better=error,
    )


@pytest.mark.parametrize("n", [32, 64])
def test_right_declaration_is_accused_by_an_equal_alternative_with_probability_below_two_in_a_thousand(n):
    trials = [accuracy("", "", k, n) for k in range(n + 1)]
    disjoint = np.array([[b.beats(a) for b in trials] for a in trials])
    rates = []
    for p in np.linspace(0.01, 0.99, 99):
        pmf = np.array([binomial_pmf(k, n, p) for k in range(n + 1)])
        rates.append(float(pmf @ disjoint @ pmf))
    assert 0.001 < max(rates) < 0.002


def test_verdicts_follow_from_disjoint_intervals_alone():
    ours = trial("ours", 0.8, 0.9)
    below, above, same = trial("below", 0.1, 0.79), trial("above", 0.91, 1), trial("same", 0.7, 0.85)
    assert judge([ours, below], "ours") == Verdict(kind="as declared")
    assert judge([ours, below, same], "ours") == Verdict(kind="cannot tell", readings=("same",))
    assert judge([ours, below, same, above], "ours") == Verdict(kind="looks like", readings=("above",))


def test_alternatives_that_cannot_be_told_apart_are_all_named():
    trials = [trial("ours", 0.1, 0.2), trial("a", 0.7, 0.9), trial("b", 0.8, 1), trial("c", 0.3, 0.6)]
    assert judge(trials, "ours").readings == ("a", "b")


def test_conditions_add_up_and_contradictions_say_nothing():
    clean = [trial("ours", 0.8, 0.9), trial("a", 0.1, 0.2), trial("b", 0.8, 0.9)]
    noisy = [trial("ours", 0.8, 0.9), trial("a", 0.8, 0.9), trial("b", 0.1, 0.2)]
    noisy = [trial(t.reading, t.low, t.high, condition="noisy") for t in noisy]
    assert judge([*clean, *noisy], "ours") == Verdict(kind="as declared")
    against = [trial("ours", 0.1, 0.2, condition="noisy"), trial("a", 0.8, 0.9, condition="noisy")]
    assert judge([*clean[:2], *against], "ours") == Verdict(kind="cannot tell", readings=("a",))


def test_without_a_declaration_only_the_best_of_all_counts():
    a, b, c = trial("a", 0.8, 0.9), trial("b", 0.1, 0.2), trial("c", 0.85, 0.95)
    assert judge([a, b], None) == Verdict(kind="looks like", readings=("a",))
    assert judge([a, b, c], None).kind == "cannot tell"
    assert judge([a], None).kind == "cannot tell"


def test_errors_are_better_where_smaller_and_margins_are_factors():
    ours, other = trial("ours", 0.30, 0.40, error=True), trial("other", 0.10, 0.16, error=True)
    assert judge([ours, other], "ours").readings == ("other",)
    assert judge([ours, other], "ours", margin=2.0) == Verdict(kind="cannot tell", readings=("other",))


def test_mean_error_has_students_interval():
    found = mean_error("", "", np.array([1.0, 2.0, 3.0]))
    assert found.score == 2
    half = (
        4.302652729911275 / 3**0.5
    )  # the 97.5% point of t with 2 degrees of freedom, times the error of the mean
    assert found.high == pytest.approx(2 + half)
    assert found.low == 0


def test_collapse_accuses_only_a_level_that_lost_half():
    levels = [trial("clean", 0.9, 1), trial("s1", 0.5, 0.6), trial("s2", 0.3, 0.44), trial("s3", 0.1, 0.2)]
    assert judge_collapse(levels, "s1").kind == "cannot tell"
    assert judge_collapse(levels, "s2") == Verdict(kind="looks like", readings=("s1 or less",))
    assert judge_collapse(levels, "s3") == Verdict(kind="looks like", readings=("s1 or less",))


def test_fitted_order_is_the_permutation_behind_the_predictions():
    order = np.array([2, 0, 3, 1])
    outputs = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
    labels = order[outputs]
    labels[0] = 1  # one wrong prediction
    assert fit_order(outputs, labels, 4).tolist() == order.tolist()


def test_outputs_that_no_image_tells_keep_their_class():
    assert fit_order(np.array([0]), np.array([2]), 4).tolist() == [2, 1, 0, 3]


def test_known_orders_give_the_class_of_each_output():
    orders = known_orders(("shoe", "bag", "coat", "belt"))
    assert orders["one higher (a background class first)"].tolist() == [3, 0, 1, 2]
    assert orders["one lower"].tolist() == [1, 2, 3, 0]
    assert orders["alphabetical by class name"].tolist() == [1, 3, 2, 0]
    assert orders["reversed"].tolist() == [3, 2, 1, 0]
    twelve = known_orders(tuple(f"{k:02}" for k in range(12)))
    assert twelve["sorted as text (0, 1, 10, 11, ..., 2)"].tolist()[:4] == [0, 1, 10, 11]
    assert "alphabetical by class name" not in twelve


@pytest.mark.parametrize(("noisy", "is_told"), [((60, 8), True), ((60, 57), False)])
def test_a_classifier_that_noise_makes_guess_is_told_of_with_both_accuracies(noisy, is_told):
    names = ("clean images", "sigma 0.12", "sigma 0.25")
    trials = tuple(
        accuracy(name, AT_ITS_NOISE, right, 64) for name, right in zip(names, (61, *noisy), strict=True)
    )
    answer = Answer(question="sigma", declared=None, trials=trials, verdict=CANNOT_TELL, by="accuracy lost")
    told = collapse(answer)
    assert bool(told) == is_told
    assert not is_told or "right on 95.3% of clean images and on 12.5% at sigma 0.25: do not certify" in told
