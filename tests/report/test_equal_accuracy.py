"""Cost joined with certificates: expectations by enumeration, equal accuracy, the points that nothing beats."""

import dataclasses
import itertools

import pytest

from bench.errors import ProtocolError, RecordsError, UsageError
from bench.report import metrics
from bench.report.equal_accuracy import (
    Curve,
    at_equal_accuracy,
    curves,
    equal_accuracy_table,
    expected_accuracy,
    least_count,
    pareto,
    write_equal_accuracy,
)
from bench.report.figures.pareto import write_pareto
from bench.smoothing.certifier import certificate_of
from bench.smoothing.stats import radius, upper_tail
from bench.types import Protocol, Record
from tests.support.fake_runs import make_run


def record(index, hits, n, *, label=0, selection=(5, 0), sigma=0.5, alpha=0.1, method="a"):
    """Return a real certificate of two classes whose first was counted `hits` times among n."""
    protocol = Protocol(n=n, alpha=alpha)
    certificate = certificate_of(selection, (hits, n - hits), sigma=sigma, protocol=protocol)
    return Record(
        method=method,
        sigma=sigma,
        index=index,
        label=label,
        n0=sum(selection),
        n=n,
        seconds=1.0,
        **vars(certificate),
    )


@pytest.mark.parametrize("wanted", [0.0, 0.2, 0.5, 5.0])
def test_the_least_count_is_the_first_whose_radius_suffices(wanted):
    n, alpha, sigma = 40, 0.01, 0.5
    enough = [k for k in range(n + 1) if upper_tail(k, n, alpha) <= 0.5]
    enough = [k for k in enough if radius(upper_tail(k, n, alpha), sigma) >= wanted]
    assert least_count(n, alpha, wanted, sigma) == min(enough, default=n + 1)


def test_the_expectation_is_the_mean_over_all_subsets_of_the_samples():
    hits, total, n, wanted, alpha = 6, 8, 4, 0.05, 0.1
    certified = [
        record(0, sum(chosen), n, alpha=alpha)
        for chosen in itertools.combinations([1] * hits + [0] * (total - hits), n)
    ]
    by_hand = metrics.certified_accuracy(certified, wanted).value
    assert 0 < by_hand < 1
    assert expected_accuracy([record(0, hits, total)], n, alpha, wanted) == pytest.approx(by_hand)


def test_with_all_samples_it_is_the_certified_accuracy():
    records = [record(i, hits, 50) for i, hits in enumerate((50, 48, 40, 30, 10))]
    records.append(record(9, 45, 50, label=1, selection=(4, 1)))
    for wanted in (0.0, 0.1, 0.3, 0.6):
        share = metrics.certified_accuracy(records, wanted).value
        assert expected_accuracy(records, 50, 0.1, wanted) == pytest.approx(share)


def test_an_image_whose_selection_was_wrong_counts_as_incorrect_at_any_n():
    wrong = record(0, 50, 50, selection=(0, 5), label=0)
    assert expected_accuracy([wrong], 50, 0.1, 0.0) == 0.0


def test_sigma_is_the_best_one_for_the_samples(tmp_path):
    run = make_run(tmp_path)
    (found, *_) = curves(run, 0.5)
    few = max(n for n in found.samples if least_count(n, run.header.alpha, 0.5, 0.25) > n)
    assert 100 < few < 400  # too few for a radius of two sigma, enough for one of one sigma
    assert found.sigmas[found.samples.index(few)] != 0.25
    assert found.accuracy[found.samples.index(few)] > 0


def curve(method, accuracy, seconds):
    samples = tuple(range(1, len(accuracy) + 1))
    return Curve(
        method=method,
        samples=samples,
        sigmas=(0.5,) * len(samples),
        accuracy=tuple(accuracy),
        seconds=tuple(seconds),
    )


def test_methods_are_compared_at_the_lower_accuracy_with_the_fewest_samples_each():
    base = curve("dds", (0.2, 0.4, 0.5), (10.0, 20.0, 30.0))
    better = curve("a", (0.5, 0.6, 0.7), (1.0, 2.0, 3.0))
    worse = curve("b", (0.1, 0.3, 0.4), (1.0, 2.0, 4.0))
    same, one, other = at_equal_accuracy([base, better, worse])
    assert (same.accuracy, same.speedup) == (0.5, 1.0)
    assert (one.accuracy, one.samples, one.reference_samples, one.speedup) == (0.5, 1, 3, 30.0)
    assert (other.accuracy, other.samples, other.reference_samples, other.speedup) == (0.4, 3, 2, 5.0)


def test_the_front_holds_the_points_that_no_other_beats():
    found = [
        curve("a", (0.2, 0.3), (1.0, 4.0)),
        curve("dds", (0.25, 0.6), (2.0, 8.0)),
        curve("c", (0.1,), (3.0,)),
    ]
    assert pareto(found) == [(1.0, 0.2, "a"), (2.0, 0.25, "dds"), (4.0, 0.3, "a"), (8.0, 0.6, "dds")]


def test_curves_of_a_run_end_at_its_accuracy_and_cost_and_are_written(tmp_path):
    run = make_run(tmp_path)
    found = curves(run, 0.5)
    assert [one.method for one in found] == list(run.header.methods)
    for one in found:
        records = [r for r in run.records if (r.method, r.sigma) == (one.method, one.sigmas[-1])]
        assert one.samples[-1] == run.header.n
        assert one.accuracy[-1] == pytest.approx(metrics.certified_accuracy(records, 0.5).value)
        assert one.seconds[-1] / one.seconds[0] == pytest.approx(
            (run.header.n0 + run.header.n) / (run.header.n0 + 1)
        )
    compared = at_equal_accuracy(found)
    table = equal_accuracy_table(run, compared, 0.5, "bench cost --run here")
    written = write_equal_accuracy(table, compared, tmp_path / "out")
    written += write_pareto(found, 0.5, "a device", tmp_path / "out")
    assert all(path.stat().st_size for path in written)
    assert "Made by: bench cost --run here" in written[1].read_text()


def test_what_cannot_be_compared_is_refused(tmp_path):
    run = make_run(tmp_path)

    def changed(**changes):
        return dataclasses.replace(run, header=dataclasses.replace(run.header, **changes))

    with pytest.raises(UsageError, match=r"--radius is -1, expected radius >= 0"):
        curves(run, -1.0)
    with pytest.raises(ProtocolError, match="has sequential estimation and the clopper-pearson bound"):
        curves(changed(estimation="sequential"), 0.5)
    bare = tuple(dataclasses.replace(one, counts_selection=(), counts_estimation=()) for one in run.records)
    with pytest.raises(ProtocolError, match="holds records without counts"):
        curves(dataclasses.replace(run, records=bare), 0.5)
    with pytest.raises(RecordsError, match="no method with certificates and a measured cost"):
        curves(dataclasses.replace(run, costs=()), 0.5)
    with pytest.raises(RecordsError, match="no certificates and measured cost of dds"):
        at_equal_accuracy([curve("a", (0.5,), (1.0,))])
