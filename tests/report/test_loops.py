"""What columns of records give is what a loop over the records gives, to the last bit."""

import dataclasses
import math
import statistics
from collections import Counter

import numpy as np
import pytest

from bench.records.columns import columns_of
from bench.report import metrics
from bench.report.compared import restricted
from bench.report.comparison import compare
from bench.report.figures import samples
from bench.report.tables.cost import cost_frame
from bench.smoothing.stats import bernoulli_divergence, radius, upper_tail
from bench.types import ABSTAIN, PartBound, Record
from tests.support.fake_runs import make_run

CLASSES, N0, N, SIGMA, ALPHA = 4, 20, 100, 0.5, 0.01
KINDS = ("plain", "skipped", "log", "composed")


def counts(generator, samples):
    numbers = generator.multinomial(samples, generator.dirichlet(np.full(CLASSES, 0.3)))
    return tuple((label, int(number)) for label, number in enumerate(numbers) if number)


def random_record(generator, index, kind):
    selection, estimation = counts(generator, N0), counts(generator, N)
    drawn = 0 if kind == "skipped" else N
    made = Record(
        method="a",
        sigma=SIGMA,
        index=index,
        label=int(generator.integers(CLASSES)),
        predict=int(generator.integers(-1, CLASSES)),
        radius=float(generator.choice([0.0, 0.25, generator.uniform(0, 2)])),
        counts_selection=() if kind == "log" else selection,
        counts_estimation=estimation if kind in ("plain", "composed") else (),
        n0=N0,
        n=N,
        samples=N0 + drawn,
        seconds=float(generator.choice([0.0, generator.uniform(0, 2)])),
        clean=int(generator.integers(CLASSES)) if generator.random() < 0.95 else None,
    )
    bound = PartBound(
        name="class",
        sigma=0.25,
        share=0.5,
        num_classes=CLASSES,
        predict=0,
        radius=0.5,
        counts_selection=selection,
        counts_estimation=estimation,
    )
    composed = {"bounds": (bound, bound), "certified_sigma": 0.25, "samples": 2 * (N0 + N)}
    return dataclasses.replace(made, **composed) if kind == "composed" else made


@pytest.fixture(params=[(kind,) for kind in KINDS] + [KINDS[:2], KINDS, ("plain",)], ids=str)
def records(request):
    generator = np.random.default_rng(len(request.param))
    kinds = generator.choice(request.param, 60)
    indices = generator.permutation(1000)[:60].tolist()
    return tuple(random_record(generator, *pair) for pair in zip(indices, kinds, strict=True))


def mean(values):
    return float(np.mean(np.array(values))), float(np.array(values).std(ddof=1)) / math.sqrt(len(values))


def test_shares_and_means(records):
    images = len(records)
    certified = [one for one in records if one.is_correct]
    for given in (records, columns_of(records)):
        for wanted in (0.0, 0.25, 1.0):
            count = sum(one.radius >= wanted for one in certified)
            assert metrics.certified_accuracy(given, wanted) == metrics.Share(count=count, images=images)
        by_image = sorted((one.index, one.radius if one.is_correct else 0.0) for one in records)
        acr = metrics.acr(given)
        assert (acr.value, acr.standard_error) == mean([value for _, value in by_image])
        right = sum(one.clean == one.label for one in records)
        is_known = all(one.clean is not None for one in records)
        assert metrics.clean_accuracy(given) == (
            metrics.Share(count=right, images=images) if is_known else None
        )
        abstained = metrics.Share(count=sum(one.predict == ABSTAIN for one in records), images=images)
        is_skipped = any(one.is_skipped for one in records)
        assert metrics.abstention(given) == (None if is_skipped else abstained)


def test_accuracy_under_noise(records):
    found = metrics.noisy_accuracy(records)
    if not all(one.has_counts for one in records):
        assert math.isnan(found.value)
        return
    is_whole = all(one.samples == one.samples_asked for one in records)
    stages = [dict(one.counts_estimation if is_whole else one.counts_selection) for one in records]
    shares = [
        by_class.get(one.label, 0) / sum(by_class.values())
        for by_class, one in zip(stages, records, strict=True)
    ]
    assert (found.value, found.standard_error) == mean(shares)


def test_samples_used(records):
    radii, ratios = (0.0, 0.25, 0.5), []
    for one in records:
        if one.counts_estimation and not one.bounds:
            drawn = sum(number for _, number in one.counts_estimation)
            share = dict(one.counts_estimation).get(one.selected, 0) / drawn
            thresholds = np.array([0.5 * math.erfc(-wanted / SIGMA / math.sqrt(2)) for wanted in radii])
            nearest = min(bernoulli_divergence(np.array(share), thresholds))
            ratios.append(drawn * nearest / math.log(1 / ALPHA))
    found = metrics.samples_used(records, ALPHA, radii)
    assert found.used == sum(one.samples for one in records)
    assert found.asked == sum(one.samples_asked for one in records)
    expected = statistics.median(ratios) if ratios else math.nan
    assert found.median_ratio == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_lower_bounds():
    run = make_run(methods=["a"], sigmas=[SIGMA])
    generator = np.random.default_rng(0)
    records = tuple(random_record(generator, index, "plain") for index in run.header.indices)
    header = dataclasses.replace(run.header, n0=N0, n=N, alpha=ALPHA)
    comparison = compare([dataclasses.replace(run, header=header, records=records)])
    tails = []
    for one in records:
        hits = dict(one.counts_estimation).get(one.label, 0)
        if one.is_correct:
            tails.append(0.5 * math.erfc(one.radius / SIGMA / math.sqrt(2)))
        elif one.selected == one.label and hits:
            tails.append(upper_tail(hits, N, ALPHA))
    assert comparison.entries[0].lower_bounds.tails == pytest.approx(sorted(tails), rel=1e-14)
    assert radius(min(tails), SIGMA) == pytest.approx(max(one.radius for one in records if one.is_correct))


def test_seconds_of_certificates(records):
    run = make_run(methods=["a"], sigmas=[SIGMA], with_costs=False)
    frame = cost_frame(compare([dataclasses.replace(run, records=records)]))
    seconds = [one.seconds for one in sorted(records, key=lambda one: one.index)]
    if not any(seconds):
        seconds = [math.nan]  # a log without times
    assert frame["seconds_mean"][0] == pytest.approx(np.mean(seconds), nan_ok=True, abs=0)
    assert frame["seconds_p90"][0] == pytest.approx(np.percentile(seconds, 90), nan_ok=True, abs=0)


def test_only_the_methods_and_sigmas_asked_for_are_kept_in_the_order_of_the_file():
    run = make_run()
    mixed = tuple(np.random.default_rng(0).permutation(np.array(run.records, dtype=object)))
    [kept] = restricted([dataclasses.replace(run, records=mixed)], "dds,rrcm", "0.25,1")
    asked = [one for one in mixed if one.method in ("dds", "rrcm") and one.sigma in (0.25, 1.0)]
    assert list(kept.records) == asked


def test_common_images_are_kept_whatever_the_order_of_the_records():
    run = make_run(methods=["rrcm", "dds"], sigmas=[SIGMA])
    generator = np.random.default_rng(0)
    kept = [one for one in run.records if generator.random() < 0.7]
    generator.shuffle(kept)
    times = Counter(one.index for one in kept)
    for entry in compare([dataclasses.replace(run, records=tuple(kept))]).entries:
        expected = [one for one in kept if one.method == entry.method and times[one.index] == 2]
        assert list(entry.records) == sorted(expected, key=lambda one: one.index)
        assert entry.indices == {one.index for one in expected}


@pytest.mark.parametrize(
    ("alpha", "written"),
    [(0.001, "0.001"), (1e-5, "$10^{-5}$"), (2e-5, r"$2 \cdot 10^{-5}$"), (5e-5, r"$5 \cdot 10^{-5}$")],
)
def test_a_level_is_written_as_it_is(alpha, written):
    assert samples._level(alpha) == written
