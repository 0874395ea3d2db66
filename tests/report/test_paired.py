"""Paired comparisons against scipy and by enumeration, and what certificates hold together."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from bench.errors import ProtocolError
from bench.report.comparison import compare
from bench.report.metrics import Share, acr, assured_accuracy, certified, certified_accuracy
from bench.report.paired import paired_differences
from bench.report.tables.paired import gap_frame, paired_frame, pairs_of
from bench.smoothing.stats import holm, most_failures, paired_interval
from bench.types import ABSTAIN
from tests.report.test_compared import trained
from tests.support.fake_runs import RADII, make_record, make_run
from tests.support.oracles import binomial_at_least, two_sided_p

COUNTS = [(0, 0, 5), (1, 0, 40), (0, 7, 40), (3, 9, 40), (20, 20, 40), (40, 0, 40), (39, 1, 40), (12, 5, 500)]


def mcnemar_records(both, only_first, only_second, neither):
    """Return records of two methods with these counts at radius 0.5."""
    outcomes = (
        [(0.5, 0.5)] * both + [(0.5, 0.49)] * only_first + [(0.0, 0.7)] * only_second + [(0.1, 0.2)] * neither
    )
    first = [make_record(radius=pair[0], index=index) for index, pair in enumerate(outcomes)]
    second = [make_record(radius=pair[1], index=index, method="dds") for index, pair in enumerate(outcomes)]
    return first, second


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (5, 1), (0, 9), (4, 4), (13, 29)])
def test_p_is_that_of_the_exact_binomial_test_on_the_images_that_differ(only_first, only_second):
    first, second = mcnemar_records(11, only_first, only_second, 5)
    found = paired_differences(certified(first), certified(second[::-1]), [0.5])[0]
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p == pytest.approx(two_sided_p(only_first, only_first + only_second), rel=1e-12)
    if only_first + only_second:
        reference = stats.binomtest(only_first, only_first + only_second).pvalue
        assert found.p == pytest.approx(reference, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_difference_is_that_of_the_certified_accuracies_at_every_radius(seed):
    run = make_run(methods=["rrcm", "dds"], sigmas=[0.5], seed=seed)
    first, second = (
        [record for record in run.records if record.method == method] for method in ("rrcm", "dds")
    )
    for found in paired_differences(certified(first), certified(second), [0.0, 0.3, 0.6, 1.0]):
        values = [certified_accuracy(records, found.radius).value for records in (first, second)]
        assert found.difference == pytest.approx(values[0] - values[1], abs=1e-12)
        low, high = found.interval()
        assert low <= found.difference <= high


def test_radii_that_one_of_two_runs_cannot_certify_are_not_tested():
    many, few = (make_run(Path(name), methods=["rrcm"], sigmas=[0.5]) for name in ("many", "few"))
    few = replace(
        few, header=replace(few.header, n=100), records=tuple(replace(one, radius=0.5) for one in few.records)
    )
    comparison = compare([many, few])
    frame = paired_frame(comparison, pairs_of(comparison))
    assert (
        frame["radius"].max()
        <= 0.5 * stats.norm.ppf(0.001 ** (1 / 100))
        < max(one.radius for one in many.records)
    )


def test_a_correct_abstention_and_a_wrong_class_are_not_certified():
    first = [make_record(predict=ABSTAIN, label=ABSTAIN), make_record(predict=1, index=1, radius=3.0)]
    second = [make_record(radius=0.5), make_record(radius=0.5, index=1)]
    found = paired_differences(certified(first), certified(second), [0.0])[0]
    assert (found.only_first, found.only_second) == (0, 2)


def test_methods_over_other_images_are_refused():
    with pytest.raises(
        ProtocolError, match="needs the same images on both sides, got 2 that only one of them"
    ):
        paired_differences(certified([make_record(index=0)]), certified([make_record(index=1)]), [0.5])


@pytest.mark.parametrize("p_values", [(), (0.03,), (0.01, 0.04, 0.03, 0.005), (0.2, 0.2, 0.2), (0.9, 0.001)])
def test_holm_rejects_exactly_what_the_step_down_procedure_rejects(p_values):
    adjusted = holm(p_values)
    for alpha in (0.0051, 0.011, 0.021, 0.031, 0.061, 0.3, 0.61):
        rejected = set()
        for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[place] > alpha / (len(p_values) - rank):
                break
            rejected.add(place)
        assert {place for place, p in enumerate(adjusted) if p <= alpha} == rejected


def test_holm_gives_the_worked_example():
    assert holm((0.01, 0.04, 0.03, 0.005)) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def score_of(only_first, only_second, images, difference):
    """Return the score of a difference, its nuisance share found by maximising the likelihood numerically."""
    if abs(difference) == 1:
        return -math.inf if difference > 0 else math.inf

    def loss(share):
        cells = ((only_first, share + difference), (only_second, share))
        rest = images - only_first - only_second
        both = 1 - 2 * share - difference
        return -sum(count * math.log(max(p, 1e-300)) for count, p in (*cells, (rest, both)) if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    share = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = images * (2 * share + difference * (1 - difference))
    return (only_first - only_second - images * difference) / math.sqrt(variance)


@pytest.mark.parametrize(("only_first", "only_second", "images"), COUNTS)
def test_paired_interval_ends_where_the_score_reaches_its_quantile(only_first, only_second, images):
    low, high = paired_interval(only_first, only_second, images)
    quantile = stats.norm.ppf(0.975)
    if only_second < images:
        assert score_of(only_first, only_second, images, low) == pytest.approx(quantile, abs=2e-3)
    if only_first < images:
        assert score_of(only_first, only_second, images, high) == pytest.approx(-quantile, abs=2e-3)


@pytest.mark.parametrize(("only_first", "only_second", "images"), COUNTS)
def test_paired_interval_of_the_exchanged_methods_is_its_mirror_image(only_first, only_second, images):
    low, high = paired_interval(only_first, only_second, images)
    mirrored = paired_interval(only_second, only_first, images)
    assert mirrored == pytest.approx((-high, -low), abs=1e-12)


def test_paired_interval_covers_by_enumeration():
    # Approximate interval: over a grid of shares it may fall a little short of 95%, on average not.
    images, coverages = 20, []
    for p_first, p_second in itertools.product((0.05, 0.1, 0.25, 0.4), repeat=2):
        true = p_first - p_second
        covered = 0.0
        for a, b in itertools.product(range(images + 1), repeat=2):
            if a + b <= images:
                low, high = paired_interval(a, b, images)
                if low <= true <= high:
                    rest = [a, b, images - a - b]
                    covered += stats.multinomial.pmf(
                        rest, images, [p_first, p_second, 1 - p_first - p_second]
                    )
        coverages.append(covered)
    assert min(coverages) > 0.93
    assert np.mean(coverages) > 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_interval(3, 3, 5), "paired counts need 0 <= only_first"),
        (lambda: paired_interval(0, 0, 0), "paired counts need 0 <= only_first"),
        (lambda: paired_interval(1, 1, 5, 1.0), "confidence must lie between 0 and 1"),
        (lambda: most_failures(5, 0.0, 0.9), "alpha and confidence must lie between 0 and 1"),
    ],
)
def test_counts_and_confidences_outside_their_ranges_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("images", "alpha", "confidence"), [(500, 0.001, 0.99), (40, 0.3, 0.9), (7, 0.01, 0.5)]
)
def test_failures_beyond_the_allowed_ones_are_as_improbable_as_asked_and_no_fewer_would_do(
    images, alpha, confidence
):
    most = most_failures(images, alpha, confidence)
    assert most == stats.binom.ppf(confidence, images, alpha)
    assert binomial_at_least(most + 1, images, alpha) <= 1 - confidence
    assert most == 0 or binomial_at_least(most, images, alpha) > 1 - confidence


@pytest.mark.parametrize("images", [40, 500, 10_000])
def test_assured_accuracy_lies_between_the_bound_of_cohen_et_al_and_the_accuracy(images):
    alpha, rho = 0.001, 0.01
    share = Share(count=images // 2, images=images)
    bernstein = (
        share.value
        - alpha
        - math.sqrt(2 * alpha * (1 - alpha) * math.log(1 / rho) / images)
        - math.log(1 / rho) / (3 * images)
    )
    assert bernstein <= assured_accuracy(share, alpha, 1 - rho).value <= share.value


def test_assured_accuracy_is_never_negative():
    assert assured_accuracy(Share(count=1, images=500), 0.1).count == 0


def test_gap_is_the_largest_value_minus_the_smallest_at_each_radius_and_in_acr():
    runs = [trained(str(seed), seed, methods=["rrcm"], sigmas=[0.5]) for seed in range(3)]
    frame = gap_frame(compare(runs))
    assert list(frame["radius"].dropna()) == list(RADII)
    for _, row in frame.iterrows():
        values = [
            acr(run.records).value
            if row["quantity"] == "ACR"
            else certified_accuracy(run.records, row["radius"]).value
            for run in runs
        ]
        assert (row["lowest"], row["highest"]) == (min(values), max(values))
        assert row["gap"] == pytest.approx(np.ptp(values))
