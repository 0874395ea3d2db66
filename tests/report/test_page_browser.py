"""The page in a real browser: it loads cleanly, sorts, filters, and shows the numbers of the CSV files."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from bench.report.comparison import compare
from bench.report.markup import format_radius
from bench.report.metrics import certified_accuracy, group
from bench.report.page import pictures
from bench.report.page.write import write_page
from bench.report.write import write_tables
from bench.types import ABSTAIN
from tests.support.page_runs import CLASSES, HOSTILE, IMAGES, hostile_run, picture_split

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXECUTABLE = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason=f"no Chromium here: none of {', '.join(BROWSERS)}")

METHOD_OF = {HOSTILE: HOSTILE, "DDS": "dds"}

PATIENCE = 60_000
"""Milliseconds until a step of the browser counts as failed."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The run, and the folder with its page and its CSV files."""
    folder = tmp_path_factory.mktemp("page")
    run = hostile_run(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(pictures, "load", lambda *args, **options: picture_split())
        write_page(compare([run]), folder)
    write_tables(compare([run]), folder)
    return run, folder


@pytest.fixture(scope="module")
def loaded(made):
    """The loaded page and everything that the browser complained of or asked for."""
    seen = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=EXECUTABLE, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=PATIENCE
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: seen.append(message.text) if message.type != "info" else None)
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url))
        page.goto(f"file://{made[1]}/report.html")
        page.wait_for_selector("html[data-ready=true]", state="attached")
        yield page, seen
        browser.close()


@pytest.fixture
def page(loaded):
    """The page with all filters back at their start."""
    page = loaded[0]
    page.fill("#search", "")
    page.select_option("#sigma", "all")
    page.select_option("#radius", "all")
    for box in page.locator("#methods input").all():
        box.check()
    return page


def values(page, key, which=""):
    """Return the numbers of a column as they stand in the rows, or in those of a selector."""
    return [
        float(cell)
        for cell in page.eval_on_selector_all(
            f'#board tr{which} td[data-key="{key}"][data-value]',
            "cells => cells.map((cell) => cell.dataset.value)",
        )
    ]


def rows(page):
    return page.eval_on_selector_all(
        "#board tbody tr", "rows => rows.map((row) => [row.dataset.label, row.dataset.sigma])"
    )


def test_it_loads_without_errors_and_asks_for_nothing_but_itself(loaded):
    page, seen = loaded
    trouble = [text for text in seen if "[bokeh" not in text and not text.startswith("data:")]
    assert trouble == [page.url]
    assert page.locator("#plots canvas").count() > 0


def test_hostile_names_are_shown_as_they_are_and_run_nothing(page):
    assert page.evaluate("window.hacked") is None
    assert page.locator("#board tbody th").first.inner_text().strip() == HOSTILE
    page.select_option("#subset", "all")
    assert CLASSES[0] in page.locator("#certificates tbody").inner_text()
    assert page.evaluate("window.hacked") is None


def test_numbers_of_the_table_are_those_of_the_csv_files(page, made):
    accuracy = pd.read_csv(made[1] / "certified_accuracy.csv")
    accuracy["sigma"] = accuracy["sigma"].map("{:g}".format).where(accuracy["selection"] == "fixed", "best")
    expected = accuracy.set_index(["method", "sigma", "radius"])
    shown = rows(page)
    assert len(shown) == 6
    for place, radius in enumerate(made[0].header.radii):
        wanted = [expected.loc[(METHOD_OF[label], sigma, radius), "accuracy"] for label, sigma in shown]
        assert values(page, f"r{place}") == wanted
    for file, column, key in (
        ("acr.csv", "acr", "acr"),
        ("acr.csv", "clean_accuracy", "clean"),
        ("acr.csv", "abstention", "abstention"),
        ("cost.csv", "seconds_per_certificate_median", "seconds"),
        ("cost.csv", "speedup_relative_to_dds_median", "speedup"),
    ):
        at_sigma = values(page, key, ':not([data-sigma="best"])')
        assert sorted(set(at_sigma)) == sorted(set(pd.read_csv(made[1] / file)[column]))


def test_a_column_sorts_both_ways_by_mouse_and_by_keyboard(page):
    page.click('th[data-key="acr"] button')
    assert values(page, "acr") == sorted(values(page, "acr"), reverse=True)
    assert page.get_attribute('th[data-key="acr"]', "aria-sort") == "descending"
    page.keyboard.press("Enter")  # the heading keeps the focus
    assert values(page, "acr") == sorted(values(page, "acr"))
    page.click('th[data-key="label"] button')
    assert [label for label, _ in rows(page)] == [HOSTILE] * 3 + ["DDS"] * 3


def test_filters_leave_the_chosen_methods_noise_level_and_radius(page):
    page.select_option("#sigma", "1")
    assert {sigma for _, sigma in rows(page)} == {"1"}
    assert page.locator("#plots .plot:visible").count() == 1
    page.locator("#methods input").first.uncheck()
    assert rows(page) == [["DDS", "1"]]
    page.select_option("#radius", "2")
    assert [
        key
        for key in page.eval_on_selector_all(
            "#board th[data-key]", "all => all.map((one) => one.dataset.key)"
        )
        if key.startswith("r")
    ] == ["r2"]


def test_a_figure_holds_the_certified_accuracies_and_hides_what_is_filtered_out(page, made):
    records = group(made[0].records)[HOSTILE, 0.25]
    source = """panels.find((one) => one.panel?.dataset.sigma === "0.25").figure.renderers
        .find((one) => one.name === VALUES).data_source"""
    radii, accuracies = (
        page.evaluate(f"Array.from({source}.get_column('{name}'))") for name in ("radius", "accuracy0")
    )
    assert len(radii) > 3
    for radius, accuracy in zip(radii, accuracies, strict=True):
        assert accuracy == pytest.approx(100 * certified_accuracy(records, radius).value, abs=1e-9)
    page.locator("#methods input").first.uncheck()
    shown = "panels[0].figure.renderers.filter((one) => one.visible).map((one) => one.name)"
    assert set(page.evaluate(shown)) == {"DDS", " values"}


def test_the_drill_down_shows_each_certificate_of_an_image(page, made):
    page.select_option("#subset", "all")
    page.select_option("#image-sigma", "0.25")
    page.click("#next")
    index = made[0].header.indices[1]
    assert f"Image {index} of the test split, 2 of {IMAGES} here" in page.inner_text("#position")
    lines = page.locator("#certificates tbody tr").all_inner_texts()
    for method, line in zip((HOSTILE, "dds"), lines, strict=True):
        record = next(r for r in group(made[0].records)[method, 0.25] if r.index == index)
        assert format_radius(record.radius, 3) in line
        name = "abstains" if record.predict == ABSTAIN else CLASSES[record.predict]
        assert name in line
        assert all(f"{CLASSES[label]}: {count}" in line for label, count in record.counts_estimation)
    assert page.evaluate("['clean', 'noisy'].map((id) => byId(id).naturalWidth)") == [28, 28]
    page.focus("#image")
    page.keyboard.press("ArrowRight")
    assert f"3 of {IMAGES} here" in page.inner_text("#position")


def test_dark_and_light_change_the_colours_of_page_and_figures(page):
    colours = """[getComputedStyle(document.body).backgroundColor,
        JSON.stringify(panels[0].figure.below[0].major_label_text_color)]"""
    light = page.evaluate(colours)
    page.click("#theme")
    dark = page.evaluate(colours)
    page.click("#theme")
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    assert page.evaluate(colours) == light


AXE = (
    Path(find_spec("axe_playwright_python").origin).with_name("axe.min.js")
    if find_spec("axe_playwright_python")
    else None
)


@pytest.mark.skipif(AXE is None, reason="axe-playwright-python is not installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390, 320])
def test_axe_finds_no_violation(loaded, made, width, scheme):
    size = {"width": width, "height": 900}
    fresh = loaded[0].context.browser.new_page(viewport=size, color_scheme=scheme)
    fresh.set_default_timeout(PATIENCE)
    fresh.goto(f"file://{made[1]}/report.html")
    fresh.wait_for_selector("html[data-ready=true]", state="attached")
    for choice in ("best", "all"):
        fresh.select_option("#sigma", choice)
        fresh.evaluate(AXE.read_text())
        found = fresh.evaluate("axe.run().then((all) => all.violations)")
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []
    fresh.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_tooltip_can_be_read_in_both_themes(page, theme):
    if page.get_attribute("html", "data-theme") != theme:
        page.click("#theme")
    page.evaluate("byId('curves').scrollIntoView()")
    box = page.locator("#plots .plot:visible").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + 150)
    page.wait_for_selector(".bk-Tooltip", state="visible")
    background, text, name = page.eval_on_selector(
        ".bk-Tooltip >> visible=true",
        """(tip) => [tip, tip, tip.shadowRoot.querySelector(".bk-tooltip-row-label")].map((one, place) =>
            getComputedStyle(one)[place === 0 ? "backgroundColor" : "color"])""",
    )
    assert contrast(background, text) >= 4.5
    assert contrast(background, name) >= 4.5
    page.mouse.move(1, 1)
    page.evaluate("scrollTo(0, 0)")
    if theme == "dark":
        page.click("#theme")


def contrast(*colours):
    """Return the contrast of two colours "rgb(...)" by WCAG 2."""
    lights = []
    for colour in colours:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_wide_window_scrolls_down_only(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    # Figures shrink after the event; the page's policy forbids a predicate of the browser's own.
    for _ in range(200):
        if page.evaluate("document.documentElement.scrollWidth") <= width:
            break
        page.wait_for_timeout(50)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1280, "height": 900})


def test_it_opens_with_one_ranked_row_per_method(made, loaded):
    fresh = loaded[0].context.browser.new_page()
    fresh.goto(f"file://{made[1]}/report.html")
    fresh.wait_for_selector("html[data-ready=true]", state="attached")
    accuracy = pd.read_csv(made[1] / "certified_accuracy.csv").query("selection == 'best' and radius == 0.5")
    by_accuracy = accuracy.sort_values("accuracy", ascending=False, kind="stable")["method"]
    assert [[METHOD_OF[label], sigma] for label, sigma in rows(fresh)] == [
        [one, "best"] for one in by_accuracy
    ]
    assert fresh.locator("#board td.rank").all_inner_texts() == ["1", "2"]
    fresh.close()


def test_the_choice_is_in_the_address_and_comes_back_with_it(page, made):
    page.select_option("#sigma", "0.25")
    page.select_option("#radius", "2")
    page.fill("#search", "dds")
    address = page.evaluate("location.href")
    other = page.context.browser.new_page()
    other.goto(address)
    other.wait_for_selector("html[data-ready=true]", state="attached")
    assert rows(other) == rows(page) == [["DDS", "0.25"]]
    assert other.input_value("#radius") == "2"
    other.close()


def test_intervals_are_seen_without_a_pointer(page, made):
    page.select_option("#sigma", "0.25")
    csv = pd.read_csv(made[1] / "certified_accuracy.csv")
    row = csv.query("method == 'dds' and sigma == 0.25 and radius == 0.5 and selection == 'fixed'").iloc[0]
    shown = page.locator('tr[data-label="DDS"] td[data-key="r2"] small').first
    assert shown.inner_text() == f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    assert shown.is_visible()


def test_values_of_the_curves_are_read_by_keyboard(page, made):
    page.select_option("#sigma", "0.25")
    page.fill("#reading", "0.3")
    page.focus("#reading")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#reading-at") == "0.31"
    share = certified_accuracy(group(made[0].records)["dds", 0.25], 0.31)
    low, high = (f"{100 * end:.1f}" for end in share.interval())
    line = page.locator("#readout tbody tr").last.inner_text()
    assert f"{100 * share.value:.1f} [{low}, {high}]" in " ".join(line.split())


def test_what_is_downloaded_is_what_the_tables_hold(page, made):
    for name, same in (("certified_accuracy.csv", "certified_accuracy.csv"), ("tables.tex", "best.tex")):
        with page.expect_download() as waiting:
            page.click(f"#downloads button:text-is('{name}')")
        assert (made[1] / same).read_text() in waiting.value.path().read_text()
    assert "arXiv" in page.evaluate("data.downloads['methods.bib']")


def test_a_section_stops_below_the_bar_of_filters(page):
    for name in ("curves", "paired", "images"):
        page.click(f'nav a[href="#{name}"]')
        page.wait_for_timeout(100)
        bottom = page.evaluate("byId('filters').getBoundingClientRect().bottom")
        assert page.evaluate(f"byId('{name}-title').getBoundingClientRect().top") >= bottom
    page.evaluate("scrollTo(0, 0)")


def test_without_a_matching_image_no_picture_is_left(page):
    for box in page.locator("#methods input").all():
        box.uncheck()
    page.select_option("#subset", "disagree")
    assert "No matching images." in page.inner_text("#position")
    assert not page.locator("#clean").is_visible()


def test_a_column_can_be_left_out(page):
    page.click("#leaderboard details:has(#columns) summary")
    page.uncheck('#columns input[value="acr"]')
    assert page.locator('#board th[data-key="acr"]').count() == 0
    page.check('#columns input[value="acr"]')
    assert page.locator('#board th[data-key="acr"]').count() == 1
    page.click("#leaderboard details:has(#columns) summary")


def test_everything_is_reached_by_touch_on_a_phone(loaded, made):
    settings = {"has_touch": True, "is_mobile": True, "viewport": {"width": 390, "height": 844}}
    phone = loaded[0].context.browser.new_context(**settings).new_page()
    phone.goto(f"file://{made[1]}/report.html")
    phone.wait_for_selector("html[data-ready=true]", state="attached")
    phone.tap('th[data-key="acr"] button')
    assert values(phone, "acr") == sorted(values(phone, "acr"), reverse=True)
    phone.select_option("#sigma", "0.25")
    assert phone.locator('tr[data-label="DDS"] td[data-key="r2"] small').first.is_visible()
    phone.tap("#reading")  # its middle
    low, high, at = (float(phone.get_attribute("#reading", name)) for name in ("min", "max", "step"))
    assert float(phone.input_value("#reading")) == pytest.approx((low + high) / 2, abs=2 * at)
    assert phone.inner_text("#reading-at") == f"{float(phone.input_value('#reading')):.2f}"
    phone.select_option("#subset", "all")
    before = phone.inner_text("#position")
    phone.tap("#next")
    assert phone.inner_text("#position") != before
    phone.tap("#methods label >> nth=0")
    assert {label for label, _ in rows(phone)} == {"DDS"}
    phone.context.close()
