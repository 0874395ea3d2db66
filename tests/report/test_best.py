"""Which accuracies lead, which radii are out of reach, the table of the best over sigma, and names of one's own."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from bench.config.labels import Labels, read_labels
from bench.errors import UsageError
from bench.report.comparison import compare
from bench.report.markup import as_cell
from bench.report.tables.accuracy import accuracy_frame, main_table
from bench.report.tables.best import best_frame, best_table
from bench.report.write import write_tables
from tests.support.fake_runs import LABELS, METHODS, RADII, SIGMAS, make_run


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables") / "made"
    return folder, write_tables(compare([make_run()]), folder)[1]


def markdown_rows(text):
    rows = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] not in ("method", "---")]


def test_bold_marks_what_is_not_significantly_below_the_highest_of_its_column():
    comparison = compare([make_run(images=200)])
    frame = accuracy_frame(comparison)
    is_bold = {(row["block"], row["label"], row["radius"]): row["is_leading"] for _, row in frame.iterrows()}
    for block, table in zip(frame["block"].unique(), main_table(comparison).blocks, strict=True):
        assert table.title == f"{block} (200 images)"
        shown = [[as_cell(cell).is_best for cell in row[1:]] for row in table.rows]
        assert shown == [[is_bold[block, label, radius] for radius in RADII] for label in LABELS]
    found = set()
    for sigma, radius in itertools.product(SIGMAS, RADII):
        entries = {entry.label: entry for entry in comparison.at_sigma(sigma)}
        counts = {label: entry.curve.at(radius).count for label, entry in entries.items()}
        top = max(counts, key=counts.get)
        others = [label for label, count in counts.items() if 0 < count < counts[top]]
        raw = [mcnemar(entries[top].records, entries[label].records, radius) for label in others]
        for label, p in zip(others, raw, strict=True):
            expected = p * (1 + sum(other > p for other in raw)) >= 0.05
            if len(set(raw)) == len(raw) and sorted(raw).index(p) == 0:  # Holm's first step
                assert is_bold[f"σ = {sigma:g}", label, radius] == expected
                found.add(expected)
        assert is_bold[f"σ = {sigma:g}", top, radius] == (counts[top] > 0)
    assert found == {True, False}


def mcnemar(first, second, radius):
    """Return the exact two-sided p-value, by scipy, that two methods certify equally often."""
    pairs = [
        (a.is_correct and a.radius >= radius, b.is_correct and b.radius >= radius)
        for a, b in zip(first, second, strict=True)
    ]
    ours, theirs = pairs.count((True, False)), pairs.count((False, True))
    return stats.binomtest(ours, ours + theirs).pvalue


def test_a_radius_beyond_what_n_samples_certify_is_a_dash_everywhere(written):
    frame = pd.read_csv(written[0] / "certified_accuracy.csv")
    limits = {sigma: sigma * stats.norm.ppf(0.001 ** (1 / 1000)) for sigma in SIGMAS}
    fixed = frame[frame["selection"] == "fixed"]
    assert list(fixed["is_reachable"]) == [
        row["radius"] <= limits[row["sigma"]] for _, row in fixed.iterrows()
    ]
    beyond = frame[~frame["is_reachable"]]
    assert len(beyond) > 0
    assert (beyond[["accuracy", "low", "high"]] == 0).all(axis=None)
    cells = [
        cell for row in markdown_rows((written[0] / "certified_accuracy.md").read_text()) for cell in row[1:]
    ]
    assert [cell == "–" for cell in cells] == list(~frame["is_reachable"])
    assert "–: beyond R\\_max" in (written[0] / "certified_accuracy.md").read_text()


def test_the_best_table_holds_the_best_rows_with_the_clean_accuracy_of_their_sigma(written):
    frame = pd.read_csv(written[0] / "best.csv").set_index(["method", "radius"])
    clean = pd.read_csv(written[0] / "acr.csv").set_index(["method", "sigma"])["clean_accuracy"]
    rows = markdown_rows((written[0] / "best.md").read_text())
    assert [row[0] for row in rows] == list(LABELS)
    for method, row in zip(METHODS, rows, strict=True):
        for radius, cell in zip(RADII[1:], row[1:], strict=False):
            best = frame.loc[method, radius]
            expected = f"{100 * best['accuracy']:.1f} ({100 * clean[method, best['sigma']]:.1f})"
            assert cell.replace("*", "") == expected
    latex = (written[0] / "best.tex").read_text()
    numbers = re.findall(r"\$\^\{\(([\d.]+)\)\}(?:\\mathbf\{)?([\d.]+)", latex)
    assert [f"{number} ({aside})" for aside, number in numbers] == [
        cell.replace("*", "") for row in rows for cell in row[1 : len(RADII)]
    ]


def test_the_caption_bounds_the_intervals_that_the_best_table_leaves_out(written):
    frame = pd.read_csv(written[0] / "best.csv").query("is_reachable")
    widest = 100 * max((frame["accuracy"] - frame["low"]).max(), (frame["high"] - frame["accuracy"]).max())
    assert f"at most {widest:.1f} points" in (written[0] / "best.md").read_text()


def test_records_without_a_clean_class_leave_the_parentheses_out():
    run = make_run()
    run = replace(run, records=tuple(replace(one, clean=None) for one in run.records))
    comparison = compare([run])
    table = best_table(best_frame(comparison, accuracy_frame(comparison)), comparison)
    assert {as_cell(cell).aside for row in table.blocks[0].rows for cell in row} == {""}
    assert "parentheses" not in table.caption


def test_names_of_ones_own_stand_in_tables_and_not_in_csv_files(tmp_path):
    labels = Labels(methods={"rrcm": "Ours"}, dataset="Digits")
    write_tables(compare([make_run()], labels), tmp_path)
    for name in ("certified_accuracy.md", "best.tex", "acr.tex", "cost.md"):
        text = (tmp_path / name).read_text()
        assert "Ours" in text
        assert "rRCM" not in text
    assert "on Digits" in (tmp_path / "best.md").read_text()
    assert set(pd.read_csv(tmp_path / "certified_accuracy.csv")["method"]) == set(METHODS)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["rrcm"], "expected METHOD=NAME"),
        (["rrcm=A", "rrcm=B"], "twice"),
        (["rcm=A"], "did you mean"),
        (["rrcm=DDS"], "would all be called 'DDS'"),
    ],
)
def test_labels_that_name_nothing_or_two_things_are_refused(texts, message):
    with pytest.raises(UsageError, match=message):
        compare([make_run(Path("run"))], read_labels(texts, None))
