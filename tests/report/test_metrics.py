"""Certified accuracy, ACR, abstention and curves, against closed forms and by enumeration."""

import itertools
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest

from bench.errors import ProtocolError, RecordsError
from bench.report.metrics import (
    Curve,
    abstention,
    acr,
    certified_accuracy,
    clean_accuracy,
    curve,
    envelope,
    group,
    noisy_accuracy,
    samples_used,
)
from bench.types import ABSTAIN
from tests.support.fake_runs import make_record, make_run
from tests.support.oracles import normal_tail


def random_records(seed, images=57):
    """Return records of mixed outcomes, some of them with equal radii."""
    generator = np.random.default_rng(seed)
    outcomes = generator.choice([0, 1, ABSTAIN], images, p=[0.6, 0.2, 0.2])
    radii = generator.choice([0.25, 0.5, *generator.uniform(0, 2, images)], images)
    return [
        make_record(predict=int(predict), radius=float(radius), index=index)
        for index, (predict, radius) in enumerate(zip(outcomes, radii, strict=True))
    ]


@pytest.mark.parametrize("seed", range(20))
def test_acr_is_the_area_under_the_certified_accuracy_curve(seed):
    records = random_records(seed)
    grid = sorted({0.0, *(record.radius for record in records)})
    area = sum(
        (right - left) * certified_accuracy(records, right).value for left, right in itertools.pairwise(grid)
    )
    assert acr(records).value == pytest.approx(area, abs=1e-12)
    assert curve(records).area() == pytest.approx(area, abs=1e-12)


def test_accuracy_never_rises_with_the_radius():
    records = random_records(1)
    counts = [certified_accuracy(records, radius).count for radius in np.linspace(0, 2.1, 200)]
    assert counts == sorted(counts, reverse=True)


def test_certified_accuracy_counts_correct_images_at_the_radius_or_beyond_over_all_images():
    records = [
        make_record(radius=0.5, index=0),
        make_record(radius=0.49, index=1),
        make_record(predict=1, radius=9.0, index=2),
        make_record(predict=ABSTAIN, index=3),
    ]
    share = certified_accuracy(records, 0.5)
    assert (share.count, share.images, share.value) == (1, 4, 0.25)


def test_abstention_is_never_correct_whatever_the_label():
    record = make_record(predict=ABSTAIN, label=ABSTAIN)
    assert certified_accuracy([record], 0.0).count == 0
    assert clean_accuracy([replace(record, clean=0)]).count == 0
    assert abstention([record]).count == 1
    assert acr([record]).value == 0.0


def test_clean_accuracy_counts_the_class_without_noise_whatever_is_certified():
    records = [
        replace(make_record(predict=ABSTAIN, label=1), clean=1),
        replace(make_record(predict=2, label=2, index=1), clean=0),
        replace(make_record(predict=0, label=3, index=2), clean=3),
    ]
    share = clean_accuracy(records)
    assert (share.count, share.images) == (2, 3)


def test_clean_accuracy_is_unknown_where_one_record_is_from_before_it_was_kept():
    assert clean_accuracy([replace(make_record(), clean=0), make_record(index=1)]) is None


def test_interval_is_the_closed_form_where_all_images_count():
    share = certified_accuracy([make_record(index=index) for index in range(40)], 0.5)
    low, high = share.interval()
    assert low == pytest.approx(0.025 ** (1 / 40), rel=1e-12)
    assert high == 1.0


def test_standard_error_of_the_acr_is_deviation_over_root_of_images():
    records = random_records(3)
    radii = [record.radius if record.predict == record.label else 0.0 for record in records]
    mean = acr(records)
    error = statistics.stdev(radii) / math.sqrt(len(radii))
    assert mean.standard_error == pytest.approx(error)
    assert mean.interval() == pytest.approx(
        (mean.value - 1.95996398 * error, mean.value + 1.95996398 * error)
    )
    assert mean.images == len(records)


def test_standard_error_of_one_image_is_unknown():
    assert math.isnan(acr([make_record()]).standard_error)


@pytest.mark.parametrize("seed", range(5))
def test_curve_equals_certified_accuracy_at_its_steps_and_between_them(seed):
    records = random_records(seed)
    steps = curve(records)
    between = [(left + right) / 2 for left, right in itertools.pairwise(steps.radii)]
    for radius in [*steps.radii, *between, steps.radii[-1] + 0.1]:
        assert steps.at(radius) == certified_accuracy(records, radius)


def test_curve_of_nothing_certified_is_zero_everywhere():
    steps = curve([make_record(predict=ABSTAIN)])
    assert (steps.radii, steps.counts, steps.area()) == ((0.0,), (0,), 0.0)
    assert steps.at(1.0).count == 0


def test_envelope_is_the_maximum_over_sigma_at_every_radius():
    groups = group(make_run(methods=["rrcm"]).records).values()
    curves = [curve(records) for records in groups]
    upper = envelope(curves)
    for radius in np.linspace(0, 3, 301):
        assert upper.at(radius).count == max(one.at(radius).count for one in curves)


def test_envelope_refuses_curves_over_different_numbers_of_images():
    curves = [Curve(radii=(0.0,), counts=(0,), images=images) for images in (3, 4)]
    with pytest.raises(
        ProtocolError, match=r"an envelope needs curves over the same images, got \[3, 4\] images"
    ):
        envelope(curves)


def test_group_orders_each_methods_records_by_image():
    records = [make_record(index=index, sigma=sigma) for index in (3, 1, 2) for sigma in (0.5, 1.0)]
    groups = group(records)
    assert {key: [record.index for record in value] for key, value in groups.items()} == {
        ("rrcm", 0.5): [1, 2, 3],
        ("rrcm", 1.0): [1, 2, 3],
    }


def test_an_image_certified_twice_is_refused():
    with pytest.raises(ProtocolError, match=r"image 7 was certified twice by rrcm at sigma 0\.5; remove one"):
        group([make_record(index=7), make_record(index=7)])


@pytest.mark.parametrize(
    "measure", [lambda none: certified_accuracy(none, 0.5), clean_accuracy, abstention, acr, curve]
)
def test_no_records_are_refused(measure):
    with pytest.raises(RecordsError, match="no records to count: certify at least one image first"):
        measure([])


def test_accuracy_under_noise_is_the_share_of_samples_given_the_label():
    counts = [((0, 1000),), ((0, 250), (1, 750)), ((1, 1000),)]
    records = [replace(make_record(index=i), counts_estimation=each) for i, each in enumerate(counts)]
    mean = noisy_accuracy(records)
    assert mean.value == pytest.approx(1.25 / 3)
    assert mean.standard_error == pytest.approx(np.std([1, 0.25, 0], ddof=1) / np.sqrt(3))


def test_accuracy_under_noise_comes_from_selection_where_an_image_was_not_fully_estimated():
    whole = make_counted(selection=((0, 80), (1, 20)), estimation=((0, 1000),))
    assert noisy_accuracy([whole]).value == 1.0
    skipped = make_counted(selection=((0, 40), (1, 60)), estimation=())
    assert noisy_accuracy([whole, skipped]).value == pytest.approx(0.6)


def test_abstention_is_unknown_where_an_image_was_skipped():
    whole = make_counted(selection=((0, 100),), estimation=((0, 1000),))
    skipped = make_counted(selection=((0, 40), (1, 60)), estimation=())
    assert abstention([whole]).count == 0
    assert abstention([whole, skipped]) is None


def test_samples_used_counts_what_was_drawn_beside_the_least_that_a_test_needs():
    records = [
        make_counted(selection=((0, 100),), estimation=((0, 256),)),
        make_counted(selection=((1, 100),), estimation=()),
    ]
    used = samples_used(records, 0.001, (0.0, 0.25, 2.0))  # the last one needs more than n = 1,000
    assert (used.images, used.used, used.asked) == (2, 456, 2200)
    assert used.saved == pytest.approx(1 - 456 / 2200)
    threshold = 1 - normal_tail(0.25 / 0.5)
    least = math.log(1000) / -math.log(threshold)
    assert used.median_ratio == pytest.approx(256 / least)


def make_counted(*, selection, estimation):
    """Return a record of label 0 at sigma 0.5 with these counts."""
    samples = sum(count for _, count in (*selection, *estimation))
    return replace(make_record(), counts_selection=selection, counts_estimation=estimation, samples=samples)
