"""Tables: rounding, bold, notes and escaping, and that Markdown and LaTeX hold the CSV's numbers."""

import csv
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.report.comparison import compare
from bench.report.markup import (
    Block,
    Cell,
    Table,
    as_cell,
    escape_markdown,
    format_percent,
    format_radius,
    format_significant,
    to_markdown,
)
from bench.report.tables.accuracy import accuracy_frame, main_table
from bench.report.tables.latex import escape_latex, to_latex
from bench.report.write import write_tables
from bench.types import ABSTAIN
from tests.support.fake_runs import LABELS, METHODS, RADII, SIGMAS, make_run

NAMES = ["certified_accuracy.csv", "certified_accuracy.md", "certified_accuracy.tex"]
BEST_NAMES = ["best.csv", "best.md", "best.tex"]
OTHERS = ["acr.csv", "acr.md", "acr.tex", "cost.csv", "cost.md", "cost.tex", "p_lower.csv", "p_lower.md"]
HOSTILE = r"a_b|c*d`e&f$g#h{i}~j^k<l>%m[n](o)\p"
NUMBER = r"(\d+\.\d)"


def markdown_rows(text):
    """Return the cells of every pipe table's rows, headers and rules left out."""
    rows = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] not in ("method", "---")]


def expected_numbers(frame):
    """Return accuracy and interval as they are written, of the cells within R_max."""
    return [
        tuple(f"{100 * row[name]:.1f}" for name in ("accuracy", "low", "high"))
        for _, row in frame[frame["is_reachable"]].iterrows()
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables") / "made"
    return folder, write_tables(compare([make_run()]), folder)[1]


def test_every_table_is_written_and_its_path_returned(written):
    folder, paths = written
    assert paths == [folder / name for name in (*NAMES, *BEST_NAMES, *OTHERS)]
    assert all(path.stat().st_size > 0 for path in paths)


def test_peak_memory_is_shown_on_a_gpu_alone_where_it_is_that_of_the_method(written, tmp_path):
    assert "memory" not in (written[0] / "cost.md").read_text()
    run = make_run(sigmas=[0.5])
    write_tables(compare([replace(run, header=replace(run.header, device_type="cuda"))]), tmp_path)
    assert "| peak memory (MiB) |" in (tmp_path / "cost.md").read_text()


def test_csv_has_one_row_per_block_method_and_radius_at_full_precision(written):
    rows = list(csv.DictReader((written[0] / "certified_accuracy.csv").read_text("utf-8").splitlines()))
    assert len(rows) == (len(SIGMAS) + 1) * len(METHODS) * len(RADII)
    frame = accuracy_frame(compare([make_run()])).drop(columns=["block", "label", "is_leading"])
    assert list(rows[0]) == list(frame)
    for name in ("sigma", "radius", "certified", "images", "accuracy", "low", "high"):
        assert [float(row[name]) for row in rows] == frame[name].tolist()
    lows = {float(row["low"]) for row in rows if row["certified"] == row["images"]}
    assert list(lows) == [pytest.approx(0.025 ** (1 / 40), rel=1e-12)]


def test_best_rows_are_the_maximum_over_sigma_and_marked_optimistic(written):
    frame = pd.read_csv(written[0] / "certified_accuracy.csv")
    fixed, best = (frame[frame["selection"] == selection] for selection in ("fixed", "best"))
    maxima = fixed.groupby(["method", "radius"])["certified"].max()
    for _, row in best.iterrows():
        assert row["certified"] == maxima[row["method"], row["radius"]]
        chosen = fixed[(fixed["sigma"] == row["sigma"]) & (fixed["method"] == row["method"])]
        assert row["certified"] == chosen.set_index("radius")["certified"][row["radius"]]
    assert best["interval_is_optimistic"].all()
    assert not fixed["interval_is_optimistic"].any()


def test_one_sigma_leaves_nothing_to_choose_so_nothing_is_optimistic():
    frame = accuracy_frame(compare([make_run(sigmas=[0.5])]))
    assert not frame["interval_is_optimistic"].any()


def test_markdown_holds_the_numbers_of_the_csv(written):
    rows = markdown_rows((written[0] / "certified_accuracy.md").read_text("utf-8"))
    pattern = rf"(?:\*\*)?{NUMBER}(?:\*\*)? \[{NUMBER}, {NUMBER}\]"
    numbers = [re.fullmatch(pattern, cell).groups() for row in rows for cell in row[1:] if cell != "–"]
    assert numbers == expected_numbers(pd.read_csv(written[0] / "certified_accuracy.csv"))


def test_latex_holds_the_numbers_of_the_csv(written):
    text = (written[0] / "certified_accuracy.tex").read_text("utf-8")
    pattern = rf"\$(?:\\mathbf{{)?{NUMBER}}}?_{{{NUMBER}}}\^{{{NUMBER}}}\$"
    assert re.findall(pattern, text) == expected_numbers(pd.read_csv(written[0] / "certified_accuracy.csv"))
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_markdown_and_latex_print_the_same_cells_in_bold(written):
    markdown = (written[0] / "certified_accuracy.md").read_text("utf-8")
    latex = (written[0] / "certified_accuracy.tex").read_text("utf-8")
    expected = [
        cell for block in main_table(compare([make_run()])).blocks for row in block.rows for cell in row
    ]
    expected = [cell.text for cell in expected if as_cell(cell).is_best]
    assert re.findall(rf"\*\*{NUMBER}\*\*", markdown) == expected
    assert re.findall(rf"\\mathbf{{{NUMBER}}}", latex) == expected


def test_one_sigma_makes_one_block_without_a_word_on_the_best():
    table = main_table(compare([make_run(sigmas=[0.5])]))
    assert len(table.blocks) == 1
    assert not any("best over" in note.lower() for note in table.notes)


def test_ties_are_all_bold():
    run = make_run(methods=["rrcm", "dds"], sigmas=[0.5])
    twins = tuple(replace(record, method="dds") for record in run.records if record.method == "rrcm")
    run = replace(run, records=(*(record for record in run.records if record.method == "rrcm"), *twins))
    first, second = main_table(compare([run])).blocks[0].rows
    assert [cell.is_best for cell in first[1:]] == [cell.is_best for cell in second[1:]]
    assert first[1].is_best


def test_no_certified_image_gives_zeros_without_bold(tmp_path):
    run = make_run()
    run = replace(run, records=tuple(replace(one, predict=ABSTAIN, radius=0.0) for one in run.records))
    write_tables(compare([run]), tmp_path)
    cells = [cell for block in main_table(compare([run])).blocks for row in block.rows for cell in row[1:]]
    assert {(cell.text, cell.is_best) for cell in cells} == {("0.0", False), ("–", False)}
    assert "| 0.0 [0.0, 8.8] | 100.0 [91.2, 100.0]" in (tmp_path / "acr.md").read_text("utf-8")


def test_footnotes_state_the_protocol_the_intervals_and_their_optimism():
    notes = " ".join(main_table(compare([make_run()])).notes)
    for fact in ("subset balanced of 40 images", "n0 = 100", "n = 1,000", "α = 0.001", "seed 0", "float32"):
        assert fact in notes
    assert "exact two-sided Clopper-Pearson 95%" in notes
    assert (
        "picked at each radius on the certified images themselves, so these intervals are optimistic" in notes
    )


def test_footnotes_state_the_largest_radius_rounded_down():
    # sigma Phi^-1(0.001^(1/1000)) is 0.61560 at sigma 0.25.
    assert "n = 1,000 samples can certify: 0.615 at σ = 0.25, " in " ".join(
        main_table(compare([make_run()])).notes
    )


def test_unfinished_runs_say_so_in_every_accuracy_table(tmp_path):
    run = make_run()
    run = replace(run, records=tuple(one for one in run.records if one.method != "dds" or one.index < 100))
    write_tables(compare([run]), tmp_path)
    for name in ("certified_accuracy.md", "certified_accuracy.tex", "acr.md"):
        text = (tmp_path / name).read_text("utf-8")
        assert "Unfinished: DDS at sigma 0.25 (5 of 40 images)" in text
        assert "(5 images)" in text


def test_acr_table_rounds_radii_down_and_keeps_full_precision_in_csv(written):
    frame = pd.read_csv(written[0] / "acr.csv")
    rows = markdown_rows((written[0] / "acr.md").read_text("utf-8"))
    for (_, row), cells in zip(frame.iterrows(), rows, strict=True):
        printed = float(cells[1].strip("*"))
        assert printed <= row["acr"] < printed + 0.001
        assert float(cells[2]) == pytest.approx(row["standard_error"], abs=0.0005)


def test_accuracy_at_radius_zero_is_not_called_clean_which_is_that_without_noise(written):
    text = (written[0] / "acr.md").read_text("utf-8")
    assert "| clean accuracy | certified accuracy at radius 0 | abstention |" in text
    frame = pd.read_csv(written[0] / "acr.csv").set_index(["method", "sigma"])
    accuracy = pd.read_csv(written[0] / "certified_accuracy.csv").query(
        "selection == 'fixed' and radius == 0"
    )
    accuracy = accuracy.set_index(["method", "sigma"])
    for ours, name in (("certified_accuracy_at_0", "accuracy"), ("certified_accuracy_at_0_low", "low")):
        assert frame[ours].sort_index().equals(accuracy[name].sort_index().rename(ours))
    images = make_run().header.indices
    assert set(frame["clean_accuracy"]) == {sum(index % 140 > 0 for index in images) / len(images)}


def test_records_from_before_clean_accuracy_was_kept_leave_a_dash(tmp_path):
    run = make_run(sigmas=[0.5])
    write_tables(
        compare([replace(run, records=tuple(replace(one, clean=None) for one in run.records))]), tmp_path
    )
    assert {row[4] for row in markdown_rows((tmp_path / "acr.md").read_text())} == {"–"}
    assert pd.read_csv(tmp_path / "acr.csv")["clean_accuracy"].isna().all()


def test_why_the_acr_misleads_stands_where_it_is_printed(written):
    assert "ACR alone misleads" in (written[0] / "acr.md").read_text()
    assert "2410.06895" in (written[0] / "acr.md").read_text()


def test_one_image_has_no_standard_error(tmp_path):
    write_tables(compare([make_run(images=1)]), tmp_path)
    assert {row[2] for row in markdown_rows((tmp_path / "acr.md").read_text("utf-8"))} == {"–"}


def test_cost_tables_give_speedups_relative_to_dds_and_latency_percentiles(written):
    frame = pd.read_csv(written[0] / "cost.csv")
    speedup = frame.set_index("method")["speedup_relative_to_dds_median"]
    assert speedup["dds"].tolist() == pytest.approx([1, 1, 1])
    assert (speedup["rrcm"] > 10).all()
    assert (frame["samples_per_certificate"] == 1100).all()
    assert (frame["certificates"] == 40).all()
    assert frame["parameters"].dtype == np.int64
    seconds = [one.seconds for one in make_run().records if (one.method, one.sigma) == ("rrcm", 0.25)]
    first = frame[(frame["method"] == "rrcm") & (frame["sigma"] == 0.25)].iloc[0]
    for percentile in (50, 90, 95, 99):
        assert first[f"seconds_p{percentile}"] == pytest.approx(np.percentile(seconds, percentile))
    text = (written[0] / "cost.md").read_text("utf-8")
    assert "| speedup relative to DDS |" in text
    assert f"{format_significant(first['speedup_relative_to_dds_median'])} [" in text


def test_without_dds_there_is_no_speedup_column_and_a_line_says_why(tmp_path):
    write_tables(compare([make_run(methods=["rrcm", "gaussian"])]), tmp_path)
    text = (tmp_path / "cost.md").read_text("utf-8")
    assert "speedup relative" not in text
    assert "No speedup column: it is relative to DDS, which was not measured in these runs." in text
    assert not any("speedup" in column for column in pd.read_csv(tmp_path / "cost.csv"))


def test_without_costs_only_the_certificates_timings_are_given(tmp_path):
    write_tables(compare([make_run(with_costs=False)]), tmp_path)
    text = (tmp_path / "cost.md").read_text("utf-8")
    assert "No inference cost was measured in these runs" in text
    assert "parameters" not in pd.read_csv(tmp_path / "cost.csv")
    assert len(markdown_rows(text)) == len(METHODS) * len(SIGMAS)


def test_a_method_without_cost_or_memory_leaves_gaps_in_the_cost_table(tmp_path):
    run = make_run()
    costs = [replace(cost, peak_memory_bytes=None) for cost in run.costs if cost.method != "gaussian"]
    write_tables(compare([replace(run, costs=tuple(costs))]), tmp_path)
    frame = pd.read_csv(tmp_path / "cost.csv")
    assert frame["parameters"].isna().equals(frame["method"] == "gaussian")
    assert "Measured on cpu." in (tmp_path / "cost.md").read_text("utf-8")


def test_several_runs_stand_in_rows_named_by_their_folders(tmp_path):
    runs = [make_run(Path("short")), make_run(Path("long"), seed=1)]
    write_tables(compare(runs), tmp_path)
    rows = markdown_rows((tmp_path / "certified_accuracy.md").read_text("utf-8"))
    assert [row[0] for row in rows[:8]] == [
        f"{method} ({run})" for run in ("short", "long") for method in LABELS
    ]
    assert set(pd.read_csv(tmp_path / "certified_accuracy.csv")["run"]) == {"short", "long"}
    assert set(pd.read_csv(tmp_path / "cost.csv")["run"]) == {"short", "long"}


@pytest.mark.parametrize(
    "arguments", [{"methods": ["rrcm"]}, {"sigmas": [0.5]}, {"methods": ["dds"], "sigmas": [1]}]
)
def test_one_method_or_one_sigma_is_enough(tmp_path, arguments):
    best = BEST_NAMES if "sigmas" not in arguments else []
    names = [path.name for path in write_tables(compare([make_run(**arguments)]), tmp_path)[1]]
    assert names == [*NAMES, *best, *OTHERS]


def test_hostile_method_names_stay_in_their_cells(tmp_path):
    write_tables(compare([make_run(methods=[HOSTILE, "dds"])]), tmp_path)
    for name in ("certified_accuracy.md", "acr.md", "cost.md"):
        rows = markdown_rows((tmp_path / name).read_text("utf-8"))
        assert {re.sub(r"\\(.)", r"\1", row[0]) for row in rows} == {HOSTILE, "DDS"}
    lines = (tmp_path / "certified_accuracy.tex").read_text("utf-8").splitlines()
    named = [line for line in lines if line.startswith(r"a\_b")]
    assert len(named) % (len(SIGMAS) + 1) == 0  # a long name leaves room for a part of the columns
    assert sum(len(re.findall(r"(?<!\\)&", line)) for line in named) == len(RADII) * (len(SIGMAS) + 1)
    assert set(pd.read_csv(tmp_path / "certified_accuracy.csv")["method"]) == {HOSTILE, "dds"}


def test_markdown_escapes_every_special_character():
    assert escape_markdown("a|b_c*d`e\n<f>") == r"a\|b\_c\*d\`e \<f\>"


def test_latex_escapes_every_special_character():
    escaped = r"50\%\_\&\#\$\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert escape_latex("50%_&#${}~^\\") == escaped
    assert escape_latex("[1]") == "{[}1{]}", "a row that begins with [ would be read as the argument of \\\\"


def test_renderers_put_titles_cells_and_notes_in_place():
    cells = (Cell(text="m"), Cell(text="1.0", interval=("0.5", "2.0"), is_best=True))
    table = Table(
        caption="C", headers=("method", "x"), blocks=(Block(title="T", rows=(cells,)),), notes=("N.",)
    )
    assert to_markdown(table) == (
        "**C**\n\nT\n\n| method | x |\n| --- | ---: |\n| m | **1.0** [0.5, 2.0] |\n\n- N.\n"
    )
    latex = to_latex(table)
    assert "\\multicolumn{2}{l}{\\emph{T}} \\\\\nm & $\\mathbf{1.0}_{0.5}^{2.0}$ \\\\\n\\bottomrule" in latex
    assert latex.count(r"\begin") == latex.count(r"\end") == 2


@pytest.mark.parametrize(
    ("radius", "printed"), [(0.6199, "0.61"), (0.29, "0.29"), (0.0, "0.00"), (1e-5, "0.00")]
)
def test_radii_round_down(radius, printed):
    assert format_radius(radius, 2) == printed


def test_column_headers_show_every_radius_exactly():
    run = make_run()
    run = replace(run, header=replace(run.header, radii=(0.0, 0.125, 0.5)))
    assert main_table(compare([run])).headers == ("method", "0.000", "0.125", "0.500")


def test_percentages_round_to_nearest():
    assert [format_percent(share) for share in (2 / 3, 1 / 3, 0.0, 1.0)] == ["66.7", "33.3", "0.0", "100.0"]


@pytest.mark.parametrize(
    ("value", "printed"), [(0.13, "0.130"), (18.0, "18.0"), (9214.3, "9,210"), (12345, "12,300"), (1, "1.00")]
)
def test_significant_digits_are_written_without_an_exponent(value, printed):
    assert format_significant(value) == printed


def test_values_in_the_frame_are_finite():
    assert all(
        map(
            math.isfinite,
            accuracy_frame(compare([make_run()]))[["accuracy", "low", "high"]].to_numpy().ravel(),
        )
    )


@pytest.mark.parametrize("estimation", ["skip-wrong", "sequential", "confidence-sequence"])
def test_what_estimation_leaves_unknown_is_said_and_not_compared(tmp_path, estimation):
    run = make_run(sigmas=(0.5,), methods=("rrcm", "dds"))
    skipped = replace(run.records[0], predict=9, radius=0.0, counts_estimation=(), samples=100)
    header = replace(run.header, estimation=estimation)
    write_tables(compare([replace(run, header=header, records=(skipped, *run.records[1:]))]), tmp_path)
    rows = markdown_rows((tmp_path / "acr.md").read_text())
    assert next(row[-1] for row in rows if row[0] == "rRCM") == "unknown"
    bold = [row[1] for row in rows if row[1].startswith("**")]
    bounds = [row[1] for row in rows if row[1].startswith("≥")]
    assert (len(bold), len(bounds)) == ((1, 0) if estimation == "skip-wrong" else (0, 2))
    saved = pd.read_csv(tmp_path / "samples.csv")
    assert list(saved["samples_used"]) == [40 * 1100 - 1000, 40 * 1100]


def test_what_sequential_estimation_gives_up_is_said_under_its_tables_alone(tmp_path):
    run = make_run(sigmas=(0.5,))
    for estimation, is_said in (("sequential", True), ("confidence-sequence", False), ("fixed", False)):
        changed = replace(run, header=replace(run.header, estimation=estimation))
        write_tables(compare([changed]), tmp_path / estimation)
        for name in ("certified_accuracy.md", "acr.md"):
            text = (tmp_path / estimation / name).read_text()
            assert ("certifies radii of the table only" in text) == is_said


def test_a_lower_bound_of_the_acr_takes_no_bold_from_what_is_compared(tmp_path):
    fixed = make_run(tmp_path / "fixed", sigmas=(0.25,), methods=("rrcm",))
    higher = make_run(tmp_path / "higher", sigmas=(0.25,), methods=("consistency",))
    higher = replace(higher, header=replace(higher.header, estimation="sequential"))
    write_tables(compare([fixed, higher]), tmp_path)
    rows = markdown_rows((tmp_path / "acr.md").read_text())
    values = {row[0].split()[0]: row[1] for row in rows}
    assert values["rRCM"].startswith("**")
    assert float(values["Consistency"].removeprefix("≥ ")) > float(values["rRCM"].split("**")[1])


def test_fixed_estimation_has_no_table_of_samples(written):
    folder, _ = written
    assert not (folder / "samples.csv").exists()


def test_tables_that_another_command_left_are_removed(tmp_path):
    run = make_run()
    write_tables(compare([run]), tmp_path)
    assert (tmp_path / "best.tex").exists()
    write_tables(compare([make_run(sigmas=[0.5])]), tmp_path)
    assert not list(tmp_path.glob("best.*"))
