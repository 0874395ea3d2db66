"""The distribution of the lower bound of p_A: its relation to certified accuracy, what is unknown, what is drawn."""

from dataclasses import replace

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from scipy import special

from bench.report.comparison import compare
from bench.report.figures.lower_bounds import LEFT, lower_bounds_figure
from bench.report.figures.style import SETTINGS
from bench.report.lower_bounds import lower_bounds
from bench.report.metrics import certified_accuracy
from bench.report.tables.lower_bounds import lower_bounds_frame, lower_bounds_table
from bench.report.write import write_tables
from bench.smoothing.stats import radius
from bench.types import ABSTAIN
from tests.support.fake_runs import RADII, make_record, make_run
from tests.support.oracles import clopper_pearson_lower


def entry_of(*records, **header):
    run = make_run(methods=["rrcm"], sigmas=[0.5], images=len(records))
    records = tuple(replace(one, index=20 * place) for place, one in enumerate(records))
    [entry] = compare([replace(run, header=replace(run.header, **header), records=records)]).entries
    return entry


def counted(hits, *, n=40, label=0, selected=0, alpha=0.1):
    """Return a record of two classes whose class 0 was counted `hits` times among n, at sigma 0.5."""
    bound = clopper_pearson_lower(hits if selected == 0 else n - hits, n, alpha)
    reached = radius(1 - bound, 0.5)
    record = make_record(predict=selected if bound >= 0.5 else ABSTAIN, radius=reached, label=label)
    counts = tuple(pair for pair in ((0, hits), (1, n - hits)) if pair[1])
    return replace(
        record, n=n, counts_selection=((selected, 100),), counts_estimation=counts, samples=100 + n
    )


def test_at_phi_of_r_over_sigma_the_share_is_the_certified_accuracy_at_r():
    for entry in compare([make_run()]).entries:
        bounds = lower_bounds(entry)
        reached = [record.radius for record in entry.records if record.radius > 0]
        for wanted in (0.0, *RADII, *reached):
            share = bounds.within(float(special.ndtr(-wanted / entry.sigma)))
            assert share == certified_accuracy(entry.records, wanted)


def test_bounds_are_those_of_clopper_and_pearson_below_one_half_too():
    hits = [0, 5, 18, 30, 40]
    bounds = lower_bounds(entry_of(*(counted(k) for k in hits), n=40, alpha=0.1))
    expected = [clopper_pearson_lower(k, 40, 0.1) for k in reversed(hits) if k]
    assert [1 - tail for tail in bounds.tails] == pytest.approx(expected, rel=1e-9)
    assert (bounds.images, bounds.at_least(1e-9).count) == (5, 4)


def test_an_image_whose_label_selection_did_not_choose_has_none():
    wrong = counted(2, label=0, selected=1)
    skipped = replace(wrong, predict=ABSTAIN, radius=0.0, counts_estimation=(), samples=100)
    bounds = lower_bounds(entry_of(counted(40), wrong, skipped, n=40, alpha=0.1, estimation="skip-wrong"))
    assert (len(bounds.tails), bounds.images) == (1, 3)


def test_below_one_half_nothing_is_known_of_sequential_estimation_and_of_logs(tmp_path):
    records = [counted(40), counted(18)]
    bare = [replace(one, counts_selection=(), counts_estimation=()) for one in records]
    for entry in (
        entry_of(*records, n=40, alpha=0.1, estimation="sequential"),
        entry_of(*bare, n=40, alpha=0.1),
    ):
        assert not lower_bounds(entry).has_uncertified
        assert len(lower_bounds(entry).tails) == 1
    run = make_run(tmp_path, methods=["rrcm"], sigmas=[0.5])
    run = replace(run, header=replace(run.header, estimation="sequential"))
    table = lower_bounds_table(compare([run]))
    known = dict(zip(table.headers, table.blocks[0].rows[0], strict=True))
    assert (known["≥ 0.1"], known["≥ 0.25"]) == ("–", "–")
    assert known["≥ 0.5"].text != "–"


def test_a_column_that_n_samples_cannot_reach_is_left_out():
    assert lower_bounds_table(compare([make_run()])).headers[-1] == "≥ 0.99"  # 0.001^(1/1000) = 0.9931


def test_the_file_holds_each_value_with_the_images_that_have_at_least_it(tmp_path):
    comparison = compare([make_run()])
    write_tables(comparison, tmp_path)
    frame = pd.read_csv(tmp_path / "p_lower.csv")
    for entry in comparison.entries:
        rows = frame[(frame["method"] == entry.method) & (frame["sigma"] == entry.sigma)]
        assert rows["p_lower"].is_monotonic_decreasing
        assert (rows["tail"].diff().dropna() > 0).all()
        certifying = rows[rows["radius"] > 0]
        for row in certifying.itertuples():
            assert row.images_at_least == certified_accuracy(entry.records, row.radius - 1e-12).count
        assert rows["share"].tolist() == (rows["images_at_least"] / rows["images"]).tolist()


def test_no_certified_image_leaves_an_empty_file_and_a_drawn_panel(tmp_path):
    run = make_run()
    nothing = [replace(one, predict=ABSTAIN, radius=0.0, counts_estimation=()) for one in run.records]
    comparison = compare([replace(run, records=tuple(nothing))])
    assert lower_bounds_frame(comparison).empty
    assert len(lower_bounds_figure(comparison).axes) == 3


def test_a_drawn_line_is_the_share_and_ends_at_the_largest_bound():
    comparison = compare([make_run()])
    with matplotlib.style.context(["default", SETTINGS]):
        panels = lower_bounds_figure(comparison).axes
    for panel, sigma in zip(panels, comparison.sigmas, strict=True):
        assert panel.get_xscale() == "logit"
        lines = [line for line in panel.get_lines() if line.get_drawstyle() == "steps-pre"]
        for line, entry in zip(lines, comparison.at_sigma(sigma), strict=True):
            x, y = line.get_data()
            bounds = lower_bounds(entry)
            assert (x[0], x[-1]) == (pytest.approx(LEFT), 1 - bounds.tails[0])
            for bound in np.linspace(LEFT, x[-1] - 1e-9, 50):
                drawn = y[np.searchsorted(x, bound)]
                assert drawn == pytest.approx(100 * bounds.at_least(bound).value)
            assert panel.get_xlim()[1] > x[-1]


def test_the_radii_are_the_certified_ones_to_the_last_bit():
    run = make_run(methods=["rrcm"], sigmas=[0.12, 0.5])
    certified = {one.radius for one in run.records if one.is_correct}
    assert set(lower_bounds_frame(compare([run]))["radius"]) - {0.0} == certified - {0.0}
