"""Tables and figures of bench cost: values from records alone, the command and the verdicts in them."""

import dataclasses

import pandas as pd
import pytest

from bench.cost.figures import accuracy_figure, published_rows, stages_figure, write_figures
from bench.cost.records import Failure, StageSplit
from bench.cost.summary import BEST, PUBLISHED, Speedup, rows
from bench.cost.tables import comparison_table, mean_advantage, operations_ratio, short_table, write_tables
from bench.report.published import PublishedNumber
from bench.report.rates import Quartiles
from tests.support.fake_costs import cost_run, repetitions, size

NUMBER = PublishedNumber(
    method="dds",
    variant="",
    paper="Someone 2022",
    table="",
    dataset="imagenet",
    architecture="",
    sigma=None,
    radius=1.0,
    certified_accuracy=0.5,
    acr=None,
    abstention=None,
    images=None,
    subset="",
    n0=None,
    n=None,
    alpha=None,
    seconds_per_image=None,
    kind="read in the source",
    source="arXiv 0000",
)


def speedup(value):
    return Speedup(ratio=Quartiles(first=value, median=value, third=value), rounds=10, together=10)


@pytest.fixture
def run(tmp_path):
    sizes = [size("rrcm-b", published="rrcm"), size("dds", parameters=8 * 10**8, published="dds")]
    timed = (
        *repetitions("rrcm-b", [0.4] * 10, batch_size=4),
        *repetitions("rrcm-b", [0.4] * 10),
        *repetitions("dds", [4.0] * 10),
        *repetitions("dds", [3.0] * 10, batch_size=4),
    )
    split = StageSplit(
        method="dds",
        setting="float32",
        batch_size=8,
        stages={"noise": 0.1, "denoiser": 3.0, "classifier": 0.8, "host": 0.1},
    )
    failure = Failure(method="dds", setting="float32", batch_size=64, reason="out of memory")
    return cost_run(tmp_path, sizes=sizes, timed=timed, splits=(split,), failures=(failure,))


def test_the_csv_holds_what_follows_from_the_records(run, tmp_path):
    write_tables(run, tmp_path)
    frame = pd.read_csv(tmp_path / "cost.csv").set_index(["comparison", "method"])
    dds = frame.loc[(PUBLISHED, "dds")]
    assert dds["samples_per_second_median"] == 20.0
    assert dds["seconds_per_image_9900_median"] == 10_000 / 20
    assert frame.loc[(PUBLISHED, "rrcm-b"), "speedup_relative_to_dds_median"] == 10.0
    assert dds["verdict"] == "VALID"
    assert (tmp_path / "sweep.csv").read_text().count("out of memory") == 1
    stages = pd.read_csv(tmp_path / "stages.csv")
    assert stages.loc[0, "denoiser_seconds"] == 3.0 / 8


def test_the_table_says_the_command_and_why_a_measurement_is_invalid(run, tmp_path):
    write_tables(run, tmp_path)
    text = (tmp_path / "cost.md").read_text().replace("\\", "")
    assert "Made by: bench cost --preset tiny" in text
    assert "INVALID" not in text.split("**")[1]
    assert "from throughput" in text
    cut = dataclasses.replace(run, repetitions=run.repetitions[:-5])
    assert any("INVALID: dds at best: 5 repetitions, not 10" in note for note in comparison_table(cut).notes)


def test_columns_of_nothing_are_left_out_and_the_screen_has_fewer(run):
    headers = comparison_table(run).headers
    assert "latency (ms)" not in headers
    assert not any(name.startswith("J per image") for name in headers)
    assert "% of peak" in headers
    assert set(short_table(run).headers) < set(headers)


def test_cpu_numbers_are_called_so(run):
    header = dataclasses.replace(run.header, device="some CPU", device_type="cpu")
    notes = comparison_table(dataclasses.replace(run, header=header)).notes
    assert any(note.startswith("These are CPU numbers (some CPU)") for note in notes)
    assert not any(note.startswith("These are CPU numbers") for note in comparison_table(run).notes)


def test_the_mean_advantage_is_over_purifiers_and_stands_beside_the_claim(run):
    published = [row for row in rows(run) if row.comparison == PUBLISHED]
    slow = dataclasses.replace(
        published[1],
        size=size("densepure"),
        pair=dataclasses.replace(published[1].pair, repetitions=repetitions("densepure", [160.0] * 3)),
    )
    slow = dataclasses.replace(slow, speedup=speedup(0.025))
    assert mean_advantage([*published, slow]) == (
        "rrcm-b is 205 times as fast as the purifiers on the mean, 63.2 times on the geometric mean "
        "(dds 10.0, densepure 400)."
    )
    assert mean_advantage([row for row in published if row.size.method == "dds"]) is None
    assert any("mean, 85 times" in note for note in comparison_table(run).notes)


def test_the_mean_advantage_is_that_of_the_column_of_paired_speedups(run):
    timed = *repetitions("rrcm-b", [0.4] * 6 + [0.8] * 4), *repetitions("dds", [4.0] * 5 + [8.0] * 5)
    table = comparison_table(dataclasses.replace(run, repetitions=timed))
    cell = table.blocks[0].rows[0][table.headers.index("speedup relative to dds")]
    assert cell.text == "10.0"  # the ratio of the medians is 13.3
    assert any("10.0 times as fast as dds" in note for note in table.notes)


@pytest.mark.parametrize("reasons", [(), ("the machine was busy",)])
def test_a_ratio_of_invalid_rows_is_called_so(run, monkeypatch, reasons):
    found = [dataclasses.replace(row, reasons=reasons) for row in rows(run)]
    monkeypatch.setattr("bench.cost.tables.rows", lambda run: found)
    (note,) = (note for note in comparison_table(run).notes if note.startswith("as published: rrcm-b is"))
    assert ("INVALID: the rows of rrcm-b, dds." in note) == bool(reasons)


def test_an_unpaired_speedup_is_called_so(run):
    fast = repetitions("rrcm-b", [0.2] * 10, setting="bfloat16")
    table = comparison_table(dataclasses.replace(run, repetitions=run.repetitions + fast))
    column = table.headers.index("speedup relative to dds")
    assert [block.rows[0][column].text for block in table.blocks] == ["10.0", "15.0 (unpaired)"]
    assert any(note.startswith("Unpaired: timed in no common round") for note in table.notes)
    assert not any(note.startswith("Unpaired") for note in comparison_table(run).notes)


def test_rounds_without_a_partner_are_counted(run):
    late = [
        dataclasses.replace(one, session="later") if one.round > 7 else one for one in run.repetitions[10:20]
    ]
    timed = *run.repetitions[:10], *late, *run.repetitions[20:]
    notes = comparison_table(dataclasses.replace(run, repetitions=timed)).notes
    assert "Repetitions that have such a round: rrcm-b as published 8 of 10." in notes


def test_records_of_the_first_version_are_called_so(run):
    old = dataclasses.replace(run, header=dataclasses.replace(run.header, schema_version=1))
    text = "read as those of a single call (the file has 1). In batches smaller than a block of noise they lack most"
    assert [any(text in note for note in comparison_table(one).notes) for one in (old, run)] == [True, False]


def test_operations_are_compared_too(run):
    sizes = (size("rrcm-b", flops=2 * 10**9), size("dds", flops=10**11), size("resnet50"))
    compared = operations_ratio(dataclasses.replace(run, sizes=sizes))
    assert compared == "Operations of a sample over those of rrcm-b: dds 50.0."
    assert operations_ratio(dataclasses.replace(run, sizes=sizes[1:])) is None


def test_figures_are_written_in_both_forms_and_empty_ones_removed(run, tmp_path):
    (tmp_path / "stages.png").write_bytes(b"old")
    names = {path.name for path in write_figures(dataclasses.replace(run, splits=()), tmp_path)}
    assert names == {f"{name}.{kind}" for name in ("throughput", "accuracy") for kind in ("png", "pdf")}
    assert not (tmp_path / "stages.png").exists()
    assert "stages.png" in {path.name for path in write_figures(run, tmp_path)}


def test_a_stage_has_one_colour_whatever_the_other_stages(run):
    resized = dataclasses.replace(run.splits[0], stages={**run.splits[0].stages, "own": 0.1, "resize": 0.1})
    first, second = (
        {patch.get_label(): patch.get_facecolor() for patch in stages_figure(one).legends[0].get_patches()}
        for one in (run, dataclasses.replace(run, splits=(resized,)))
    )
    assert first == {name: second[name] for name in first}
    assert len(set(second.values())) == len(second) == 6


def test_accuracy_is_the_best_published_at_the_radius_that_most_methods_have(run):
    numbers = [
        NUMBER,
        dataclasses.replace(NUMBER, certified_accuracy=0.6, sigma=0.5),
        dataclasses.replace(NUMBER, radius=0.5, certified_accuracy=0.9),
        dataclasses.replace(NUMBER, method="rrcm", certified_accuracy=0.7),
        dataclasses.replace(NUMBER, method="unknown", radius=0.5),
    ]
    found = {row.size.method: (row, number) for row, number in published_rows(run, numbers)}
    assert {name: number.certified_accuracy for name, (_, number) in found.items()} == {
        "rrcm-b": 0.7,
        "dds": 0.6,
    }
    assert found["dds"][0] == next(
        row for row in rows(run) if (row.comparison, row.size.method) == (BEST, "dds")
    )
    assert published_rows(run, []) == []


def test_the_figure_of_accuracies_names_methods_parameters_and_sources(run):
    figure = accuracy_figure(run, [NUMBER])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "rrcm-b, 1M (line: no accuracy known)",
        "dds, 800M",
    ]
    assert figure.axes[0].get_title(loc="left") == "dds: Someone 2022, arXiv 0000"
    assert accuracy_figure(run, []) is None
