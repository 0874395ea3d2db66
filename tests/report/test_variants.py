"""Variants over several trainings: intervals that hold what another seed would change, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.errors import RecordsError
from bench.records.file import write_run
from bench.report.comparison import compare
from bench.report.figures.variants import variants_figure
from bench.report.markup import as_cell
from bench.report.tables.paired import gap_frame, gap_table
from bench.report.tables.variants import variants_frame, variants_table
from bench.report.variants import at_radius, certified_radius, estimate, pooled_variance, scores, variant_of
from bench.smoothing.stats import holm
from tests.report.test_compared import trained
from tests.support.fake_runs import make_record, make_run
from tests.support.tiny import bench

NAMES = ("plain-0", "plain-1", "changed-0", "changed-1")


def made_runs(names=NAMES):
    return [trained(name, seed, methods=["rrcm"], sigmas=[0.5]) for seed, name in enumerate(names)]


def make_runs_that_differ(names=NAMES):
    """Return trainings of which those of "changed" certify nothing beyond radius 0.5."""
    return [
        run
        if run.folder.name.startswith("plain")
        else replace(run, records=tuple(replace(one, radius=min(one.radius, 0.5)) for one in run.records))
        for run in made_runs(names)
    ]


def test_an_interval_by_hand():
    # Images' means 1 and 1/2, trainings' means 1/2 and 1: both have variance 1/8, and 1/16 as a mean of two. With
    # equal parts the degrees of freedom are 2, where t_0.975 = 4.302652...
    one = estimate(np.array([[1.0, 0.0], [1.0, 1.0]]))
    half = 4.302652729911275 * (1 / 8) ** 0.5
    assert (one.value, one.low, one.high) == pytest.approx((0.75, 0.75 - half, 0.75 + half))


def test_a_difference_is_covered_over_images_and_trainings_and_not_by_images_alone():
    """Crossed random effects of images and trainings, true difference 0.

    2000 draws of a 95% interval cover less than 90% with probability below 1e-15. The trainings vary more than
    the images do, so that intervals of one training each cover far less: below 60% of them, as a check of the test.
    """
    generator = np.random.default_rng(0)
    covered, covered_once, covered_by_images = 0, 0, 0
    for _ in range(2000):
        image = generator.normal(size=100)
        first, second = (
            image + 0.5 * generator.normal(size=(3, 1)) + generator.normal(size=(3, 100)) for _ in range(2)
        )
        others = [0.5 * generator.normal(size=(3, 1)) + generator.normal(size=(3, 100)) for _ in range(2)]
        both, alone = estimate(first, second), estimate(first[:1], second[:1])
        assert (both.holds, alone.holds) == ("images and training runs", "images")
        covered += both.low <= 0 <= both.high
        covered_by_images += alone.low <= 0 <= alone.high
        pooled = pooled_variance([second, *others])
        once = estimate(first[:1], second, pooled)
        assert once.holds == "images and training runs, pooled"
        covered_once += once.low <= 0 <= once.high
    assert min(covered, covered_once) >= 1800
    assert covered_by_images < 1200


def test_a_variant_trained_once_borrows_the_pooled_variance_by_hand():
    # Trainings' means 0, 1 and 1/4, 1/4, 1: squared deviations 1/2 and 3/8, over 1 + 2 degrees of freedom.
    several = [np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 0.5], [0.25, 0.25], [1.0, 1.0]])]
    pooled = pooled_variance([np.array([[0.3, 0.7]]), *several])
    assert (pooled.variance, pooled.freedom) == (pytest.approx((1 / 2 + 3 / 8) / 3), 3)
    # Against the first of them, whose images' means are equal: nothing is left but 7/24 (1/1 + 1/2) with 3 degrees.
    found = estimate(np.array([[1.0, 1.0]]), several[0], pooled)
    half = 3.182446305284263 * (7 / 24 * 1.5) ** 0.5
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert found.p == pytest.approx(2 * stats.t.sf(0.5 / (7 / 24 * 1.5) ** 0.5, 3))
    assert pooled_variance([np.array([[0.3, 0.7]])]) is None


def test_where_no_variant_was_trained_several_times_the_interval_is_over_images_and_never_bold():
    better = make_runs_that_differ(("plain-0", "changed-0"))
    comparison = compare(better)
    frame = variants_frame(comparison, "plain")
    assert set(frame["mean_interval_holds"]) == {"images"}
    assert (frame["p_holm"].dropna() < 0.05).any()  # it would be bold
    table = variants_table(frame, comparison, "plain")
    assert not any(as_cell(cell).is_best for block in table.blocks for row in block.rows for cell in row)
    assert "Trained once: plain, changed." in " ".join(table.notes)
    assert "hold images only" in " ".join(table.notes)


def test_bold_is_corrected_for_every_difference_of_the_table():
    comparison = compare(make_runs_that_differ())
    frame = variants_frame(comparison, "plain")
    tested = frame[frame["variant"] == "changed"]
    assert tested["p_holm"].tolist() == pytest.approx(holm(tested["p"].tolist()))
    assert frame[frame["variant"] == "plain"]["p_holm"].isna().all()
    table = variants_table(frame, comparison, "plain")
    [row] = [row for block in table.blocks for row in block.rows if row[0] == "Δ vs. plain"]
    assert [cell.is_best for cell in row[2:]] == (tested["p_holm"] < 0.05).tolist()
    assert {cell.is_best for cell in row[2:]} == {True, False}
    assert f"for all {len(tested)} differences of this table" in " ".join(table.notes)


def test_scores_are_those_of_certified_accuracy_and_acr_in_the_images_order():
    wrong = make_record(predict=1, radius=0.9, index=2)
    records = [wrong, make_record(radius=0.5, index=1), make_record(radius=0.2, index=0)]
    assert scores([records], at_radius(0.5)).tolist() == [[0, 1, 0]]
    assert scores([records], certified_radius).tolist() == [[0.2, 0.5, 0]]
    with pytest.raises(RecordsError, match="different images"):
        scores([records, records[:2]], certified_radius)
    with pytest.raises(RecordsError, match="needs two at least"):
        scores([records[:1]], certified_radius)


@pytest.mark.parametrize(
    ("run", "variant"),
    [
        ("scratch-12", "scratch"),
        ("no-views-0", "no-views"),
        ("mnist5k", "mnist5k"),
        ("weight-0.5", "weight-0.5"),
    ],
)
def test_a_variant_is_the_folders_name_without_the_number_of_the_training(run, variant):
    assert variant_of(run) == variant


def test_a_frame_holds_each_variants_mean_and_its_difference_to_the_reference():
    runs = made_runs()
    comparison = compare(runs)
    frame = variants_frame(comparison, "plain").set_index(["variant", "quantity", "radius"])
    accuracy = [entry.curve.at(0.5).value for entry in comparison.entries]
    changed = frame.loc[("changed", "certified accuracy", 0.5)]
    assert changed["mean"] == pytest.approx((accuracy[2] + accuracy[3]) / 2)
    assert changed["difference"] == pytest.approx((sum(accuracy[2:]) - sum(accuracy[:2])) / 2)
    assert (changed["difference_interval_holds"], changed["trainings"]) == ("images and training runs", 2)
    assert np.isnan(frame.loc[("plain", "certified accuracy", 0.5)]["difference"])
    reach = max(record.radius for run in runs for record in run.records)
    assert frame.reset_index()["radius"].max() <= reach < runs[0].header.radii[-1] + 0.25


def test_a_variant_trained_once_is_said_to_borrow_from_those_trained_several_times():
    comparison = compare(made_runs(NAMES[:3]))
    frame = variants_frame(comparison, "plain")
    held = frame.groupby("variant")["mean_interval_holds"].agg(set)
    assert held["plain"] == {"images and training runs"}
    assert held["changed"] == {"images and training runs, pooled"}
    assert set(frame["difference_interval_holds"].dropna()) == {"images and training runs, pooled"}
    notes = " ".join(variants_table(frame, comparison, "plain").notes)
    assert "Intervals of plain hold images and training runs (" in notes
    assert "Trained once: changed. Their intervals" in notes


def test_the_lower_bounds_that_sequential_estimation_leaves_of_the_acr_are_not_compared():
    runs = [replace(run, header=replace(run.header, estimation="sequential")) for run in made_runs()]
    for frame in (variants_frame(compare(runs), "plain"), gap_frame(compare(runs))):
        assert set(frame["quantity"]) == {"certified accuracy"}
    for table in (
        variants_table(variants_frame(compare(runs), "plain"), compare(runs), "plain"),
        gap_table(frame),
    ):
        assert "ACR" not in (table.caption, *table.headers)
        assert {len(row) for block in table.blocks for row in block.rows} == {len(table.headers)}


def test_what_is_no_training_of_its_own_or_lacks_the_reference_is_refused():
    runs = made_runs()
    same = replace(runs[1], header=replace(runs[1].header, checkpoints=runs[0].header.checkpoints))
    with pytest.raises(
        RecordsError, match=r"plain-0 and plain-1 hold the same checkpoint of rrcm at sigma 0.5"
    ):
        variants_frame(compare([runs[0], same]), "plain")
    other = make_run(runs[2].folder, methods=["rrcm", "dds"], sigmas=[0.5])
    with pytest.raises(RecordsError, match=r"no run of 'plain' holds dds at sigma 0.5: give --methods"):
        variants_frame(compare([runs[0], other]), "plain")


def test_the_command_prints_and_writes_variants(tmp_path, monkeypatch, capsys):
    folders = [tmp_path / name for name in NAMES]
    for folder, run in zip(folders, made_runs(), strict=True):
        write_run(folder, run)
    out = tmp_path / "out"
    assert bench(monkeypatch, "compare", *folders, "--against", "plain", "--out", out) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("Variants over their training runs", "Δ vs. plain"))
    assert not any(text in shown for text in ("Paired", "Between training runs"))
    assert {path.name for path in out.glob("variants.*")} == {
        f"variants.{kind}" for kind in ("csv", "md", "tex", "png", "pdf")
    }


def test_the_figure_ends_at_the_largest_radius_and_shows_the_differences_of_the_table():
    comparison = compare(make_runs_that_differ())
    frame = variants_frame(comparison, "plain")
    means, differences = variants_figure(comparison, "plain").axes
    reach = max(entry.reach for entry in comparison.entries)
    lines = [line for line in means.get_lines() if line.get_drawstyle() == "steps-pre"]
    assert [line.get_xdata()[-1] for line in lines] == pytest.approx([reach] * 2)
    assert lines[1].get_ydata()[-1] == 0  # nothing of "changed" is certified beyond 0.5
    rows = frame[(frame["variant"] == "changed") & (frame["quantity"] == "certified accuracy")]
    [bars] = differences.containers
    assert list(bars.lines[0].get_ydata()) == pytest.approx(list(100 * rows["difference"]))
    assert means.get_title() == r"rRCM, $\sigma$ = 0.5"


def test_variants_of_one_method_each_are_one_group_whatever_the_method():
    """As the same runs under one method, but for the column `method`."""
    named = [("control-0", "gaussian"), ("control-1", "gaussian"), ("whole-0", "rrcm"), ("whole-1", "rrcm")]
    several = compare(of_methods(named))
    one = variants_frame(compare(of_methods([(name, "rrcm") for name, _ in named])), "control")
    frame = variants_frame(several, "control")
    assert frame["method"].tolist() == [dict(named)[f"{name}-0"] for name in frame["variant"]]
    assert frame.drop(columns="method").equals(one.drop(columns="method"))
    [block] = variants_table(frame, several, "control").blocks
    assert block.title == "σ = 0.5 (40 images)"
    assert [row[0] for row in block.rows] == ["control", "whole", "Δ vs. control"]
    assert [axes.get_title() for axes in variants_figure(several, "control").axes] == [r"$\sigma$ = 0.5", ""]


def test_where_nothing_varies_the_interval_is_the_exact_one_over_images_and_p_that_of_the_sign_test():
    ones, zeros = np.ones((2, 40)), np.zeros((2, 40))
    mean = estimate(ones)
    assert (mean.low, mean.high) == pytest.approx((stats.beta.ppf(0.025, 40, 1), 1))
    other = 1 - stats.beta.ppf(0.025, 40, 1)
    gap = estimate(ones[:, :2], zeros[:, :2])
    assert (gap.value, gap.high, gap.p) == (1, 1, 0.5)
    same = estimate(ones, ones)
    assert (same.low, same.high, same.p) == pytest.approx((-other, other, 1))
    radius = estimate(2 * ones, most=2.5)
    assert (radius.low, radius.high) == pytest.approx((2 - 2 * other, 2 + 0.5 * other))
    assert all(one.is_exact for one in (mean, gap, same, radius))
    assert not estimate(np.array([[1.0, 0.0]])).is_exact


def of_methods(names):
    """Return runs that differ, each renamed to one of (folder, method)."""
    runs = make_runs_that_differ(("plain-0", "plain-1", "changed-0", "changed-1"))[: len(names)]
    return [
        replace(
            run,
            folder=run.folder.with_name(name),
            header=replace(run.header, methods=(method,)),
            records=tuple(replace(one, method=method) for one in run.records),
        )
        for run, (name, method) in zip(runs, names, strict=True)
    ]


def test_a_variant_trained_once_borrows_nothing_of_another_method():
    runs = of_methods([("control-0", "gaussian"), ("control-1", "gaussian"), ("whole-0", "rrcm")])
    comparison = compare(runs)
    frame = variants_frame(comparison, "control").set_index("variant")
    assert set(frame.loc["whole", "difference_interval_holds"]) == {"images"}
    notes = " ".join(variants_table(frame.reset_index(), comparison, "control").notes)
    assert "Methods: Gaussian in control; rRCM in whole." in notes
    assert "Trained once: whole." in notes


def test_a_variant_trained_once_borrows_of_its_own_method_in_differences_to_another():
    names = [
        ("control-0", "gaussian"),
        ("control-1", "gaussian"),
        ("ablated-0", "rrcm"),
        ("ablated-1", "rrcm"),
    ]
    once = replace(of_methods([("x", "rrcm")])[0], folder=Path("whole-0"))
    once = replace(once, header=replace(once.header, checkpoints={"rrcm/0.5": "another"}))
    frame = variants_frame(compare([*of_methods(names), once]), "control").set_index("variant")
    ways = {name: set(frame.loc[name, "difference_interval_holds"]) for name in ("whole", "ablated")}
    assert ways == {"whole": {"images and training runs, pooled"}, "ablated": {"images and training runs"}}


def test_each_of_two_methods_has_its_own_variance_between_training_runs():
    first, second = np.array([[1.0, 0, 1, 1], [1, 0, 0, 1]]), np.array([[0.0, 1, 1, 0]])
    other = pooled_variance([np.array([[0.0, 0, 0, 0], [1, 0, 0, 1]])])
    found = estimate(first, second, (None, other))
    # Images' means differ by 1, -1, -1/2, 1; runs' means: 3/4 and 1/2 of two, 0 and 1/2 in what is borrowed for one.
    parts = [(np.var([1, -1, -0.5, 1], ddof=1) / 4, 3), (1 / 32 / 2, 1), (1 / 8, 1)]
    total = sum(part for part, _ in parts)
    freedom = total**2 / sum(part**2 / degrees for part, degrees in parts)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, freedom) * total**0.5)
    assert estimate(first, second, (other, None)).holds == "images"


def test_variants_of_several_methods_have_the_methods_colours():
    names = [("control-0", "gaussian"), ("control-1", "gaussian"), ("ablated-0", "rrcm"), ("rrcm-0", "rrcm")]
    figure = variants_figure(compare(of_methods(names)), "control")
    colors = {line.get_label(): line.get_color() for line in figure.legends[0].get_lines()}
    assert (colors["control"], colors["rrcm"]) == ("#b86e00", "#0173b2")
    assert len(set(colors.values())) == 3


def test_where_no_radius_is_reached_the_comparison_says_so():
    runs = [
        replace(
            run,
            header=replace(run.header, estimation="sequential", radii=(0.5, 1.0)),
            records=tuple(replace(one, radius=0.0, predict=-1) for one in run.records),
        )
        for run in made_runs()
    ]
    with pytest.raises(RecordsError, match="no certificate reaches a radius of the table"):
        variants_frame(compare(runs), "plain")


def test_panels_of_differences_have_one_scale():
    names = [(f"{name}-0", "rrcm") for name in ("plain", "b", "c", "d")]
    runs = [*of_methods(names), *of_methods([("e-0", "rrcm"), ("f-0", "rrcm")])]
    runs = [
        replace(run, header=replace(run.header, checkpoints={"rrcm/0.5": run.folder.name})) for run in runs
    ]
    _, *differences = variants_figure(compare(runs), "plain").axes
    assert len(differences) == 2
    assert len({axes.get_ylim() for axes in differences}) == 1


@pytest.mark.parametrize("images", [50, 100, 500])
@pytest.mark.parametrize("value", [0.9987654, 0.1, 1 / 3])
def test_scores_that_differ_by_rounding_alone_do_not_vary(images, value):
    found = estimate(np.full((1, images), value), most=1.2)
    assert found.is_exact
    assert found.low < found.value < found.high


def test_radii_that_a_group_cannot_certify_are_neither_tested_nor_given_a_number():
    runs = [trained(name, seed, methods=["rrcm"], sigmas=[0.25, 1.0]) for seed, name in enumerate(NAMES)]
    comparison = compare(runs)
    frame = variants_frame(comparison, "plain")
    reach = {entry.sigma: entry.reach for entry in comparison.entries}
    held = frame[frame["quantity"] == "certified accuracy"]
    assert (held["radius"] <= held["sigma"].map(reach)).all()
    table = variants_table(frame, comparison, "plain")
    first, _ = table.blocks
    beyond = [column for column, name in enumerate(table.headers[2:-1], 2) if float(name) > reach[0.25]]
    assert beyond
    assert {as_cell(row[column]).text for row in first.rows for column in beyond} == {"–"}
    assert any("beyond R_max" in note for note in table.notes)


def test_settings_named_like_training_runs_are_told():
    runs = made_runs()
    given = [{"rrcm": {"depth": depth}} for depth in (2, 2, 2, 4)]
    runs = [
        replace(run, header=replace(run.header, config={**run.header.config, "options": options}))
        for run, options in zip(runs, given, strict=True)
    ]
    notes = variants_table(variants_frame(compare(runs), "plain"), compare(runs), "plain").notes
    [told] = [note for note in notes if "differ in" in note]
    assert told.startswith(
        "The runs changed-0, changed-1, ... count as training runs of changed by their names, but"
    )
    assert "differ in depth" in told
