"""New radii from stored counts: the same at the same level, sound with fewer samples, and what is refused."""

from dataclasses import replace

import pytest

from bench.errors import UsageError
from bench.records.file import RecordsFile, read_run, write_run
from bench.records.recertify import recertify
from bench.smoothing import stats
from bench.smoothing.estimation import stopping_rule
from bench.smoothing.noise import image_uniform
from bench.types import PartBound
from tests.support.fake_runs import make_run

RUN = make_run(methods=("rrcm", "dds"), images=30)


def again(run=RUN, **changes):
    return recertify(run, replace(run.header.protocol, **changes), "bench recertify run")


def test_the_same_level_gives_the_same_certificates():
    new = again()
    assert [record.predict for record in new.records] == [record.predict for record in RUN.records]
    assert [record.radius for record in new.records] == pytest.approx(
        [record.radius for record in RUN.records]
    )
    assert new.costs == RUN.costs


def test_another_alpha_gives_the_bound_at_that_alpha():
    new = again(alpha=0.05)
    assert new.header.alpha == new.header.config["alpha"] == 0.05
    for record in new.records:
        selected = record.counts_selection[0][0]
        tail = stats.upper_tail(dict(record.counts_estimation).get(selected, 0), 1000, 0.05)
        assert record.radius == stats.radius(tail, record.sigma)


def test_the_randomised_bound_uses_and_records_each_images_uniform():
    for old, new in zip(RUN.records, again(bound="randomised").records, strict=True):
        assert new.uniform == image_uniform(0, new.index)
        assert new.radius >= old.radius - 1e-9


def test_fewer_samples_are_a_seeded_part_of_those_counted():
    new, repeated = again(n=300), again(n=300)
    assert new == repeated
    assert new.costs[0].samples_per_certificate == 400
    for old, record in zip(RUN.records, new.records, strict=True):
        counts, before = dict(record.counts_estimation), dict(old.counts_estimation)
        assert sum(counts.values()) == record.n == 300
        assert record.samples == 400
        assert all(counts[label] <= before[label] for label in counts)
    drawn = sum(dict(r.counts_estimation).get(r.counts_selection[0][0], 0) for r in new.records)
    expected = 0.3 * sum(dict(r.counts_estimation).get(r.counts_selection[0][0], 0) for r in RUN.records)
    assert drawn == pytest.approx(
        expected, abs=5.5 * (180 * 300 * 0.25 * 0.7) ** 0.5
    )  # false alarm below 1e-7


def test_each_image_draws_its_own_part():
    same = [
        replace(RUN.records[0], index=index, counts_estimation=((0, 600), (1, 400))) for index in range(4)
    ]
    new = again(replace(RUN, records=tuple(same)), n=300)
    assert len({record.counts_estimation for record in new.records}) > 1


def test_a_skipped_image_stays_incorrect():
    skipped = replace(RUN.records[0], predict=9, radius=0.0, counts_estimation=(), samples=100)
    run = replace(RUN, header=replace(RUN.header, estimation="skip-wrong"), records=(skipped,))
    assert again(run, n=500, alpha=0.5).records == (replace(skipped, n=500),)


STOPPED = replace(RUN.records[0], counts_selection=((0, 100),), counts_estimation=((0, 256),), samples=356)


def stopped_run(estimation):
    return replace(RUN, header=replace(RUN.header, estimation=estimation), records=(STOPPED,))


def test_records_that_stopped_early_keep_their_own_n():
    for estimation in ("sequential", "confidence-sequence"):
        with pytest.raises(UsageError, match=f"{estimation} records allow only their own n, 1000: when they"):
            again(stopped_run(estimation), n=500)


def test_records_of_a_confidence_sequence_keep_their_own_bound_and_its_half_of_alpha():
    run = stopped_run("confidence-sequence")
    with pytest.raises(UsageError, match="confidence-sequence records allow only their own bound, clopper-p"):
        again(run, bound="randomised")
    [new] = again(run, alpha=0.01).records
    assert new.radius == stats.radius(stats.sequence_tails(256, 256, 0.005)[1], STOPPED.sigma)


def test_sequential_records_are_tested_at_another_level_by_the_boundaries_of_that_level():
    run = stopped_run("sequential")
    for alpha in (0.001, 0.05):
        [new] = again(run, alpha=alpha).records
        rule = stopping_rule(replace(run.header.protocol, alpha=alpha), STOPPED.sigma)
        assert new.radius == rule.certified(256, 256)
        assert (new.predict, new.samples) == (0, 356)
    changed = again(run, alpha=0.05)
    assert changed.header.drawn_alpha == run.header.alpha  # which replay refuses
    assert again(changed, alpha=run.header.alpha).header.drawn_alpha is None
    assert [one.radius for one in again(run, bound="randomised").records] == [
        one.radius for one in again(run).records
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0, expected 0 < alpha < 1"),
        ({"n": 1001}, "n is 1001, expected 1 to 1000: the run holds no more samples per image"),
        ({"n": 0}, "n is 0, expected 1 to 1000"),
    ],
)
def test_a_level_out_of_range_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        again(**change)


def test_records_without_counts_are_refused():
    run = replace(RUN, records=(replace(RUN.records[0], counts_selection=(), counts_estimation=()),))
    with pytest.raises(UsageError, match=r"image 0 of rrcm holds no counts, so no other bound can follow"):
        again(run)


def test_a_part_of_the_samples_stays_marked_when_images_are_added(tmp_path):
    part = again(n=300)
    write_run(tmp_path, part)
    indices = (*part.header.indices, 1999)
    with RecordsFile.create_or_resume(tmp_path, replace(part.header, indices=indices, drawn_n=None)):
        pass
    assert read_run(tmp_path).header.indices == indices
    assert read_run(tmp_path).header.drawn_n == 1000


def test_an_image_that_was_skipped_has_the_draw_of_a_randomised_bound(tmp_path):
    first = RUN.records[0]
    wrong = (first.selected + 1) % 10
    skipped = replace(first, label=wrong, predict=-1, radius=0.0, counts_estimation=(), samples=100)
    run = replace(RUN, header=replace(RUN.header, estimation="skip-wrong"), records=(skipped,))
    write_run(tmp_path, again(run, bound="randomised"))
    assert read_run(tmp_path).records[0].uniform == image_uniform(0, skipped.index)


def test_an_image_that_no_samples_could_certify_stays_so_at_a_larger_alpha(tmp_path):
    hopeless = replace(STOPPED, n=9, predict=-1, radius=0.0, counts_estimation=(), samples=100)
    header = replace(RUN.header, estimation="sequential", n=9, radii=(0.5,))
    write_run(tmp_path, again(replace(RUN, header=header, records=(hopeless,)), alpha=0.5))
    assert read_run(tmp_path).records[0].radius == 0.0


def test_a_part_of_more_samples_than_numpy_draws_from_is_refused():
    run = replace(RUN, header=replace(RUN.header, n=10**9))
    with pytest.raises(UsageError, match="a part of 1000000000 samples, and parts are drawn of fewer than"):
        again(run, n=10)


def test_costs_are_of_as_many_samples_as_the_bounds_of_a_certificate_ask_for():
    [one] = [record for record in RUN.records if record.method == "rrcm"][:1]
    part = PartBound(
        name="a",
        sigma=one.sigma,
        share=0.5,
        num_classes=10,
        predict=one.predict,
        radius=one.radius,
        counts_selection=one.counts_selection,
        counts_estimation=one.counts_estimation,
    )
    composed = replace(one, bounds=(part, replace(part, name="b")), certified_sigma=one.sigma, samples=2200)
    costs = tuple(measured for measured in RUN.costs if measured.method == "rrcm")
    new = again(replace(RUN, records=(composed,), costs=costs), alpha=0.01)
    assert {measured.samples_per_certificate for measured in new.costs} == {2200}
