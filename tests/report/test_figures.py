"""Figures: files, labels, one line per method, fixed styles, and no text on other text."""

import itertools
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats

from bench.report.comparison import compare
from bench.report.figures import style as plot_style
from bench.report.figures.accuracy import (
    certified_accuracy_figure,
    draw_curve,
    envelope_figure,
    sigmas_figure,
)
from bench.report.figures.cost import accuracy_against_cost_figure, compared_radii, overview_figure
from bench.report.figures.differences import differences_figure
from bench.report.figures.samples import levels_figure, samples_figure
from bench.report.figures.style import FINEST, Style, drawn_steps
from bench.report.figures.write import FIGURES, make_figures
from bench.report.metrics import certified_accuracy, curve_of, group
from bench.types import ABSTAIN, PartBound
from tests.support.fake_runs import LABELS, METHODS, ONE_SIGMA, SIGMAS, make_run

BLUE, ORANGE, GREEN, PINK = "#0173b2", "#b86e00", "#00835c", "#a9489a"


@pytest.fixture(autouse=True)
def _style():
    with matplotlib.style.context(["default", plot_style.SETTINGS]):
        yield


@pytest.fixture(scope="module")
def comparison():
    return compare([make_run()])


def texts_of(figure):
    """Return every text that is drawn with its box in pixels; tick labels beyond the axes' limits are not."""
    figure.draw_without_rendering()
    unseen = {
        tick.label1 for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in beyond(axis)
    }
    texts = [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text() and text not in unseen
    ]
    return [(text.get_text(), Text.get_window_extent(text)) for text in texts]


def beyond(axis):
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [tick for tick in ticks if not low <= tick.get_loc() <= high]


def overlapping(texts):
    """Return the pairs of texts that lie on each other."""
    pairs = itertools.combinations(texts, 2)
    return [(first, second) for (first, a), (second, b) in pairs if a.padded(-0.5).overlaps(b.padded(-0.5))]


def step_lines(axes):
    return [line for line in axes.get_lines() if line.get_drawstyle() == "steps-pre"]


def test_a_figure_is_drawn_once_for_each_of_its_files(tmp_path, comparison, monkeypatch):
    drawn, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: drawn.append(1) or draw(self, renderer))
    paths = plot_style.save_figure(certified_accuracy_figure(comparison), tmp_path / "figure")
    assert len(drawn) == len(paths) == 2


def test_accuracy_has_a_panel_per_sigma_with_a_line_and_a_band_per_method(comparison):
    panels = certified_accuracy_figure(comparison).axes
    assert [panel.get_title() for panel in panels] == [rf"$\sigma$ = {sigma:g}" for sigma in SIGMAS]
    for panel in panels:
        assert [line.get_color() for line in step_lines(panel)] == [BLUE, ORANGE, GREEN, PINK]
        assert len(panel.collections) == len(METHODS)
        assert panel.get_xlabel() == plot_style.RADIUS_LABEL
    assert panels[0].get_ylabel() == plot_style.ACCURACY_LABEL
    reaches = [comparison.at_sigma(sigma)[0].reach for sigma in SIGMAS]
    assert [panel.get_xlim()[1] for panel in panels] == pytest.approx([1.03 * reach for reach in reaches])
    assert len({panel.get_ylim() for panel in panels}) == 1


def test_drawn_steps_are_the_certified_accuracies(comparison):
    panels = certified_accuracy_figure(comparison).axes
    groups = group(make_run().records)
    for panel, sigma in zip(panels, SIGMAS, strict=True):
        for line, method in zip(step_lines(panel), METHODS, strict=True):
            x, y = line.get_data()
            for radius in np.linspace(0, 2.4, 97):
                expected = 100 * certified_accuracy(groups[method, sigma], radius).value
                drawn = y[np.searchsorted(x, radius)] if radius <= x[-1] else 0.0
                assert drawn == pytest.approx(expected)


def test_band_spans_the_exact_interval_at_radius_zero(comparison):
    panel = certified_accuracy_figure(comparison).axes[0]
    low, high = certified_accuracy(group(make_run().records)["rrcm", 0.25], 0.0).interval()
    at_zero = {round(y, 9) for x, y in panel.collections[0].get_paths()[0].vertices if x == 0}
    assert at_zero == {round(100 * low, 9), round(100 * high, 9)}


def test_a_line_ends_at_the_largest_radius_that_n_samples_certify(comparison):
    for panel, sigma in zip(certified_accuracy_figure(comparison).axes, SIGMAS, strict=True):
        reach = sigma * stats.norm.ppf(0.001 ** (1 / 1000))
        for line, entry in zip(step_lines(panel), comparison.at_sigma(sigma), strict=True):
            x, y = line.get_data()
            assert x[-1] == pytest.approx(reach)
            assert y[-1] == pytest.approx(100 * entry.curve.at(reach * (1 - 1e-12)).value)  # no drop to zero


def test_eight_methods_stand_four_to_a_panel_in_colour_the_others_in_grey():
    run = make_run(methods=[*METHODS, "densepure", "consistency-model", "smoothadv", "macer"])
    figure = certified_accuracy_figure(compare([run]))
    assert len(figure.axes) == 2 * len(SIGMAS)
    shown = [{to_hex(line.get_color()) for line in step_lines(panel)} for panel in figure.axes]
    assert shown[0] & shown[3] == {to_hex(plot_style.FAINT)}
    assert len(shown[0] | shown[3]) == 9
    assert all(len(step_lines(panel)) == 8 for panel in figure.axes)


def test_envelope_has_one_line_per_method_and_marks_the_largest_radii(comparison):
    (axes,) = envelope_figure(comparison).axes
    assert len(step_lines(axes)) == len(METHODS)
    assert [text.get_text() for text in axes.texts] == [rf"$\sigma$ = {sigma:g}" for sigma in SIGMAS]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (plot_style.RADIUS_LABEL, plot_style.ACCURACY_LABEL)


def test_all_sigmas_of_a_method_stand_in_its_panel(comparison):
    panels = sigmas_figure(comparison).axes
    assert [panel.get_title() for panel in panels] == list(LABELS)
    for panel, label in zip(panels, LABELS, strict=True):
        ends = [line.get_xdata()[-1] for line in step_lines(panel)]
        assert ends == [one.reach for one in comparison.entries if one.label == label]


def test_differences_are_those_of_the_studied_method_with_their_paired_intervals(comparison):
    figure = differences_figure(comparison)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["rRCM − Gaussian", "rRCM − Consistency", "rRCM − DDS"]
    own, other = comparison.at_sigma(1.0)[0], comparison.at_sigma(1.0)[1]
    radii = [radius for radius in comparison.radii if radius <= own.reach]
    [drawn] = [one for one in figure.axes[2].containers if to_hex(one[0].get_color()) == ORANGE]
    expected = [100 * (own.curve.at(radius).value - other.curve.at(radius).value) for radius in radii]
    assert drawn[0].get_ydata() == pytest.approx(expected)


def test_all_samples_and_the_runs_alpha_give_the_measured_accuracy(comparison):
    for figure, place in ((samples_figure(comparison), 0), (levels_figure(comparison), 2)):
        for panel, entry in zip(figure.axes, comparison.at_sigma(0.5), strict=True):
            x, y = panel.get_lines()[place].get_data()
            for radius in (0.1, 0.6, 1.1):
                drawn = y[np.searchsorted(x, radius)] if place else np.interp(radius, x, y)
                assert drawn == pytest.approx(100 * entry.curve.at(radius).value, abs=0.01 if place else 5)


def test_figures_of_counts_are_left_out_where_there_are_none():
    run = make_run(sigmas=[0.5])
    bare = tuple(replace(one, counts_selection=(), counts_estimation=()) for one in run.records)
    assert samples_figure(compare([replace(run, records=bare)])) is None


def test_methods_whose_parameters_nobody_knows_are_named_alone(comparison):
    costs = tuple(replace(one, cost=replace(one.cost, parameters=0)) for one in comparison.costs)
    [legend] = accuracy_against_cost_figure(replace(comparison, costs=costs)).legends
    assert [text.get_text() for text in legend.get_texts()] == list(LABELS)
    assert legend.get_title().get_text() == ""


def test_radii_against_cost_follow_from_the_protocol_alone(comparison):
    run = make_run()
    nothing = replace(run, records=tuple(replace(one, predict=ABSTAIN, radius=0.0) for one in run.records))
    assert compared_radii(compare([nothing])) == compared_radii(comparison) == (0.5, 1.0, 1.5)


def area(scatter):
    """Return the area of a marker in square points: that of its outline at its size."""
    (path,), (matrix,) = scatter.get_paths(), scatter.get_transforms()
    x, y = path.to_polygons()[0].T
    return abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 * np.linalg.det(matrix[:2, :2])


def test_marker_areas_against_cost_are_proportional_to_parameters(comparison):
    figure = accuracy_against_cost_figure(comparison)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    scatters = [one for one in axes.collections if isinstance(one, PathCollection)]
    areas = np.array([area(one) for one in scatters])  # the largest first, so that none hides another
    assert areas / areas[1] == pytest.approx([26 / 19, 1, 7 / 19, 7 / 19])
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "s / image (1,100 samples)"
    assert [panel.get_title() for panel in figure.axes] == ["$r$ = 0.5", "$r$ = 1", "$r$ = 1.5"]
    named = ["rRCM, 1.9M", "Gaussian, 700k", "Consistency, 700k", "DDS, 2.6M"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == named


def test_cost_at_the_nearest_measured_sigma_stands_in(comparison):
    run = make_run()
    run = replace(run, costs=tuple(cost for cost in run.costs if cost.sigma == 0.25))
    assert len(accuracy_against_cost_figure(compare([run])).legends[0].get_texts()) == len(METHODS)


CASES = {
    "default": {},
    "one of each": {"methods": ["rrcm"], "sigmas": [0.5]},
    "many": {"methods": [*METHODS, "densepure", "purify", "mine"], "sigmas": [0.12, 0.25, 0.5, 1.0]},
    "long names": {"methods": ["a-method-with-a-rather-long-name", "another-one-whose-name-is-long", "dds"]},
    "one image": {"images": 1, "sigmas": [0.5]},
}


@pytest.mark.parametrize("case", CASES)
def test_no_text_lies_on_another_or_leaves_its_figure(case):
    for figure in make_figures(compare([make_run(**CASES[case])])).values():
        texts = texts_of(figure)
        assert overlapping(texts) == []
        assert [text for text, box in texts if not within(box, figure.bbox.padded(1))] == []


def within(box, frame):
    return frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1


def test_a_long_legend_leaves_the_panel_its_height():
    figure = envelope_figure(compare([make_run(methods=[f"method-number-{i}" for i in range(9)])]))
    figure.draw_without_rendering()
    assert figure.axes[0].get_window_extent().height / figure.dpi > 1.3


@pytest.mark.parametrize(("labels", "panels"), [(4, 2), (5, 3), (8, 3), (9, 0)])
def test_the_overview_has_a_second_panel_of_curves_where_one_would_be_crowded(labels, panels):
    made = overview_figure(compare([make_run(methods=["dds", *(f"m{i}" for i in range(labels - 1))])]))
    assert len(made.axes if made else ()) == panels


def test_figures_on_cost_are_left_out_without_costs():
    found = set(make_figures(compare([make_run(with_costs=False)])))
    assert found == set(FIGURES) - {"overview", "accuracy_against_cost"}


def test_figures_of_the_best_sigma_are_left_out_where_no_sigma_is_shared():
    run = make_run()
    kept = tuple(one for one in run.records if (one.sigma == 0.25) == (one.method == "dds"))
    found = set(make_figures(compare([replace(run, records=kept)])))
    assert not found & {"overview", "envelope", "accuracy_against_cost"}


def test_nothing_certified_is_drawn_all_the_same():
    run = make_run(sigmas=[0.5])
    run = replace(run, records=tuple(replace(one, predict=ABSTAIN, radius=0.0) for one in run.records))
    assert set(make_figures(compare([run]))) == set(ONE_SIGMA)
    assert certified_accuracy_figure(compare([run])).axes[0].get_xlim()[1] > 1.2


def test_styles_of_the_known_methods_do_not_depend_on_who_else_is_there():
    alone, together = (
        plot_style.styles(compare([make_run(methods=methods)]))["Consistency"]
        for methods in (["consistency"], ["mine", "consistency", "rrcm"])
    )
    assert alone == together
    assert to_hex(alone.color) == GREEN


def test_styles_tell_all_methods_and_runs_apart():
    runs = [make_run(Path(name), methods=[*METHODS, "x", "y"]) for name in ("a", "b")]
    styles = plot_style.styles(compare(runs))
    assert len({(one.color, one.marker, one.line, one.is_hollow) for one in styles.values()}) == 12
    assert styles["x (a)"].color == styles["x (b)"].color
    assert {label for label, style in styles.items() if style.is_hollow} == {
        f"{method} (b)" for method in (*LABELS, "x", "y")
    }


def test_hostile_names_are_shown_as_they_are():
    run = make_run(methods=["$a_b$%", "_hidden", "<i>", "dds"], sigmas=[0.5])
    for figure in make_figures(compare([run])).values():
        figure.draw_without_rendering()
    legend = certified_accuracy_figure(compare([run])).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [r"\$a_b\$%", "_hidden", "<i>", "DDS"]


@pytest.mark.parametrize("steps", [1, 2, FINEST, FINEST + 1, 50_000])
def test_of_many_steps_those_are_drawn_that_a_print_can_show(steps):
    places = np.sort(np.random.default_rng(0).beta(0.3, 0.3, steps))
    kept = drawn_steps(places)
    assert len(kept) == steps if steps <= FINEST else len(kept) <= FINEST + 2
    width = np.ptp(places) / FINEST
    following = places[kept[np.searchsorted(kept, np.arange(steps))]]  # where each step is drawn
    assert np.all((following - places >= 0) & (following - places <= 1.001 * width))


def test_a_line_of_many_steps_is_nowhere_above_the_curve_and_ends_where_it_does():
    radii = np.random.default_rng(0).uniform(0, 1, 30_000)
    steps, panel = curve_of(radii), Figure().subplots()
    style = Style(color=ORANGE, line="-", marker="o", is_hollow=False)
    draw_curve(panel, steps, style, (), 1.0, has_band=False)
    x, y = panel.get_lines()[0].get_data()
    assert len(x) <= 2 * FINEST
    exact = [100 * steps.at(radius).value for radius in x]
    assert y[:-2] == pytest.approx(exact[:-2])  # a step takes its value from its right end, where it is exact
    assert (x[0], x[-1], y[-1]) == (0.0, 1.0, 0.0)


def test_differences_that_no_sigma_reaches_are_left_out():
    run = make_run(sigmas=[0.25, 1.0])
    far = replace(run, header=replace(run.header, radii=(2.0,)))  # beyond what n samples certify at 0.25
    near, wide = differences_figure(compare([far])).axes
    assert (len(near.containers), len(wide.containers)) == (0, 3)


def test_figures_of_counts_are_left_out_for_several_bounds_and_for_runs_of_unlike_n():
    run = make_run(sigmas=[0.5])
    composed = tuple(
        replace(one, bounds=(half_of(one), half_of(one)), certified_sigma=0.5, samples=2200)
        for one in run.records
    )
    more = replace(run, folder=Path("more"), header=replace(run.header, n=2000))
    for runs in ([replace(run, records=composed)], [run, more]):
        assert (samples_figure(compare(runs)), levels_figure(compare(runs))) == (None, None)
    assert samples_figure(compare([run, replace(run, folder=Path("same"))])) is not None


def half_of(record):
    return PartBound(
        name="class",
        sigma=record.sigma,
        share=0.5,
        num_classes=10,
        predict=record.predict,
        radius=record.radius,
        counts_selection=record.counts_selection,
        counts_estimation=record.counts_estimation,
    )
