"""Cost joined with certificates: expectations by enumeration, fixed shares of the reference, intervals that cover."""

import dataclasses
import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.errors import ProtocolError, RecordsError
from bench.records.file import write_run
from bench.report import metrics
from bench.report.comparison import compare
from bench.report.equal_accuracy import (
    SHARES,
    Curve,
    at_equal_accuracy,
    chances_of_at_least,
    curves,
    least_count,
)
from bench.report.figures.cost import compared_radii
from bench.report.figures.equal_accuracy import equal_accuracy_figure
from bench.smoothing.certifier import certificate_of
from bench.smoothing.stats import radius, upper_tail
from bench.types import Protocol, Record
from tests.support.fake_runs import make_run
from tests.support.tiny import bench


def record(index, hits, n, *, alpha):
    """Return a real certificate of two classes, of label 0, which was counted `hits` times among n."""
    certificate = certificate_of((5, 0), (hits, n - hits), sigma=0.5, protocol=Protocol(n=n, alpha=alpha))
    about = {"method": "a", "sigma": 0.5, "index": index, "label": 0, "n0": 5, "n": n, "seconds": 1.0}
    return Record(**about, **vars(certificate))


@pytest.mark.parametrize("wanted", [0.0, 0.2, 0.5, 5.0])
def test_the_least_count_is_the_first_whose_radius_suffices(wanted):
    n, alpha, sigma = 40, 0.01, 0.5
    enough = [k for k in range(n + 1) if upper_tail(k, n, alpha) <= 0.5]
    enough = [k for k in enough if radius(upper_tail(k, n, alpha), sigma) >= wanted]
    assert least_count(n, alpha, wanted, sigma) == min(enough, default=n + 1)


@pytest.mark.parametrize(("total", "drawn"), [(9, 1), (9, 4), (9, 9), (60, 17)])
def test_chances_are_the_hypergeometric_tails_by_enumeration(total, drawn):
    hits = np.arange(total + 1).repeat(2)
    for needed in range(drawn + 2):
        ways = [
            sum(comb(kind, x) * comb(total - kind, drawn - x) for x in range(needed, drawn + 1))
            for kind in hits.tolist()
        ]
        expected = [float(Fraction(way, comb(total, drawn))) for way in ways]
        assert chances_of_at_least(needed, hits, total, drawn) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("drawn", [130, 5_000, 99_000])
def test_chances_of_many_samples_are_those_of_scipy(drawn):
    hits = np.array([0, 3, 49_000, 50_000, 51_000, 90_000, 99_990, 100_000])
    for needed in (0, 1, drawn // 2, int(0.9 * drawn), drawn - 2, drawn):
        expected = stats.hypergeom.sf(needed - 1, 100_000, hits, drawn)
        assert chances_of_at_least(needed, hits, 100_000, drawn) == pytest.approx(expected, abs=1e-8)


def test_the_expectation_is_the_mean_over_all_subsets_of_the_samples():
    hits, total, n, wanted, alpha = 6, 8, 4, 0.05, 0.1
    certified = [
        record(0, sum(chosen), n, alpha=alpha)
        for chosen in itertools.combinations([1] * hits + [0] * (total - hits), n)
    ]
    by_hand = metrics.certified_accuracy(certified, wanted).value
    assert 0 < by_hand < 1
    needed = least_count(n, alpha, wanted, 0.5)
    assert chances_of_at_least(needed, np.array([hits]), total, n) == pytest.approx([by_hand])


@pytest.mark.parametrize("wanted", [0.0, 0.5, 1.0])
def test_curves_of_a_run_end_at_its_best_accuracy_and_at_its_cost(tmp_path, wanted):
    comparison = compare([make_run(tmp_path)])
    found = curves(comparison, wanted)
    assert [comparison.name_of(one.method) for one in found] == list(comparison.labels)
    for one in found:
        (accuracy,), (seconds,) = one.accuracy()
        label = comparison.name_of(one.method)
        best = comparison.best_at(label, wanted)
        assert one.samples[-1] == best.header.n
        assert accuracy[-1] == pytest.approx(best.curve.at(wanted).value)
        cost = comparison.cost_near(label, best.sigma)
        rate = np.median(cost.samples_per_repetition / np.array(cost.repetition_seconds))
        assert one.seconds[list(one.sigmas).index(best.sigma)] == pytest.approx((100 + one.samples) / rate)
        assert seconds[-1] in one.seconds[:, -1]


def test_an_image_whose_selection_was_wrong_is_certified_at_no_n(tmp_path):
    run = make_run(tmp_path, methods=["dds"], sigmas=[0.5])
    wrong = tuple(dataclasses.replace(one, counts_selection=((11, 100),)) for one in run.records)
    (found,) = curves(compare([dataclasses.replace(run, records=wrong)]), 0.0)
    assert not found.chances.any()
    assert at_equal_accuracy([found], 0.0) == ()


def test_sigma_is_the_best_one_for_the_samples(tmp_path):
    found = curves(compare([make_run(tmp_path)]), 0.5)[0]
    few = max(n for n in found.samples if least_count(int(n), 0.001, 0.5, 0.25) > n)
    assert 100 < few < 400  # too few for a radius of two sigma, enough for one of one sigma
    place = list(found.samples).index(few)
    by_sigma = found.chances.mean(axis=2)[:, place]
    assert found.sigmas[by_sigma.argmax()] != 0.25
    assert found.accuracy()[0][0, place] == pytest.approx(by_sigma.max())


def curve(method, accuracy, seconds, images=100):
    """Return a curve at one sigma whose first images are certified for certain, the others never."""
    chances = np.array([np.arange(images) < share * images for share in accuracy], dtype=float)
    return Curve(
        method=method,
        samples=np.arange(1, len(accuracy) + 1),
        sigmas=np.array([0.5]),
        seconds=np.array([seconds]),
        chances=chances[None],
    )


def test_methods_are_compared_at_fixed_shares_of_the_accuracy_of_the_reference():
    base = curve("dds", (0.40, 0.78, 0.80), (10.0, 20.0, 30.0))  # 95% is 0.76, 99% is 0.792
    better = curve("a", (0.77, 0.85, 0.90), (1.0, 2.0, 3.0))
    worse = curve("b", (0.50, 0.76, 0.78), (1.0, 2.0, 4.0))
    found = {(one.share, one.method): one for one in at_equal_accuracy([base, better, worse], 0.5)}
    assert {share for share, _ in found} == set(SHARES) == {0.95, 0.99}
    assert (found[0.95, "dds"].samples, found[0.95, "dds"].speedup) == (2, 1.0)
    assert (found[0.95, "a"].samples, found[0.95, "a"].speedup) == (1, 20.0)
    assert (found[0.95, "b"].samples, found[0.95, "b"].speedup) == (2, 10.0)
    assert (found[0.99, "a"].samples, found[0.99, "a"].speedup) == (2, 15.0)
    assert (found[0.99, "b"].samples, found[0.99, "b"].speedup) == (None, None)  # it ends below
    assert found[0.99, "dds"].interval == (1.0, 1.0)


SLOW, FAST = stats.beta(4, 1.6), stats.beta(6, 1.2)
"""Distributions over images of the probability of the label, for a reference and for a better method."""

GRID = (np.arange(4000) + 0.5) / 4000
ALPHA, N0, RATE = 0.01, 10, 4.0


def sample_counts(n, count=60):
    return np.unique(np.round(np.geomspace(1, n, count)).astype(int))


def least_counts(samples):
    return np.array([least_count(int(few), ALPHA, 0.0, 0.5) for few in samples])


def drawn_curve(method, p, n, rate, generator):
    samples, hits = sample_counts(n), generator.binomial(n, p)
    chances = [
        chances_of_at_least(int(k), hits, n, int(few))
        for k, few in zip(least_counts(samples), samples, strict=True)
    ]
    return Curve(
        method=method,
        samples=samples,
        sigmas=np.array([0.5]),
        seconds=(N0 + samples)[None] / rate,
        chances=np.array(chances)[None],
    )


def accuracies_of(samples, *populations):
    """Return the certified accuracy with each number of samples, of populations of p, by the binomial distribution."""
    needed = least_counts(samples)[:, None]
    return [stats.binom.sf(needed - 1, samples[:, None], p).mean(axis=1) for p in populations]


def true_speedups(n, count=60):
    samples = sample_counts(n, count)
    slow, fast = accuracies_of(samples, SLOW.ppf(GRID), FAST.ppf(GRID))
    firsts = [[N0 + samples[np.argmax(one >= share * slow[-1])] for one in (slow, fast)] for share in SHARES]
    return [RATE * first / other for first, other in firsts]


def test_intervals_cover_the_speedup_of_the_population_that_the_images_are_from():
    """An interval that covers 95% covers fewer than 42 of 60 draws with a probability below 1e-9."""
    generator, n = np.random.default_rng(0), 200
    truth, covered, widths = true_speedups(n), np.zeros(2, int), []
    for _ in range(60):
        hardness = generator.random(150)  # an image that is hard for one is hard for the other
        base = drawn_curve("dds", SLOW.ppf(hardness), n, 1.0, generator)
        other = drawn_curve("a", FAST.ppf(hardness), n, RATE, generator)
        found = [one for one in at_equal_accuracy([base, other], 0.0, resamples=200) if one.method == "a"]
        widths += [one.interval[1] / one.interval[0] for one in found]
        covered += [
            one.interval[0] - 1e-9 <= true <= one.interval[1] + 1e-9
            for one, true in zip(found, truth, strict=True)
        ]
    assert covered.min() >= 42
    assert np.median(widths) < 4  # and not because anything would be covered


def test_the_ratio_does_not_grow_with_n_by_construction():
    """Ten times the samples change the ratio at 95% by a third; at the reference's full accuracy by nearly ten."""
    assert true_speedups(100_000, 200)[0] / true_speedups(10_000, 200)[0] < 1.5

    def at_full_accuracy(n):
        samples = np.arange(n % 20 or 20, n + 1, 20)
        slow, fast = accuracies_of(samples, SLOW.ppf(GRID[::20]), FAST.ppf(GRID[::20]))
        return (N0 + samples[slow.argmax()]) / (N0 + samples[np.argmax(fast >= slow.max())])

    assert at_full_accuracy(4_000) / at_full_accuracy(400) > 5


def test_the_command_compares_at_every_radius_that_the_reference_certifies(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run", methods=["rrcm", "dds"], sigmas=[0.5], images=20)
    write_run(tmp_path / "run", run)
    assert bench(monkeypatch, "cost", "--run", tmp_path / "run", "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "Made by: bench cost --run" in shown
    assert "radius 0.00: DDS certifies" in shown
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv", ".md", ".png", ".pdf"}
    frame, comparison = pd.read_csv(tmp_path / "out" / "equal_accuracy.csv"), compare([run])
    certified = [one for one in comparison.radii if comparison.best_at("DDS", one).curve.at(one).count]
    assert list(dict.fromkeys(frame["radius"])) == certified
    assert len(frame) == len(certified) * len(SHARES) * len(comparison.labels)
    for row in frame.itertuples():
        assert row.target == pytest.approx(row.share * row.reference_accuracy)
        assert np.isnan(row.speedup) or row.speedup == pytest.approx(row.reference_seconds / row.seconds)
        assert np.isnan(row.speedup) == (row.accuracy < row.target - 1e-9)


def test_a_line_is_drawn_to_the_accuracy_at_n_and_never_falls(tmp_path):
    comparison = compare([make_run(tmp_path)])
    found = {wanted: curves(comparison, wanted) for wanted in (0.0, *compared_radii(comparison))}
    panels = equal_accuracy_figure(comparison, found).axes
    assert [panel.get_title() for panel in panels] == [f"$r$ = {one:g}" for one in compared_radii(comparison)]
    for panel, wanted in zip(panels, compared_radii(comparison), strict=True):
        drawn = found[wanted]
        lines = [line for line in panel.get_lines() if line.get_drawstyle() == "steps-post"]
        for line, one in zip(lines, drawn, strict=True):
            y = line.get_ydata()
            assert np.all(np.diff(y[~np.isnan(y)]) >= 0)
            assert line.get_xdata()[-1] == one.accuracy()[1][0, -1]


def test_what_cannot_be_compared_is_refused(tmp_path):
    run = make_run(tmp_path)
    changed = dataclasses.replace(run, header=dataclasses.replace(run.header, estimation="sequential"))
    with pytest.raises(ProtocolError, match="has sequential estimation and the clopper-pearson bound"):
        curves(compare([changed]), 0.5)
    bare = tuple(dataclasses.replace(one, counts_selection=(), counts_estimation=()) for one in run.records)
    with pytest.raises(ProtocolError, match="holds records without counts"):
        curves(compare([dataclasses.replace(run, records=bare)]), 0.5)
    with pytest.raises(RecordsError, match="no method with certificates and a measured cost"):
        curves(compare([dataclasses.replace(run, costs=())]), 0.5)
    with pytest.raises(RecordsError, match="no certificates and measured cost of dds"):
        at_equal_accuracy([curve("a", (0.5,), (1.0,))], 0.5)
