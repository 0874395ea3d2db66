"""What a row took to train: from the checkpoint through the header to tables and page, without the checkpoint."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import save_file

from bench.errors import CheckpointError
from bench.records.file import read_run
from bench.report.comparison import compare
from bench.report.page.values import leaderboard
from bench.report.tables.accuracy import accuracy_frame, acr_frame, main_table
from bench.report.tables.cost import cost_frame
from bench.report.tables.training import REFERRED, forward_passes, training_of, training_table
from bench.report.write import write_tables
from bench.training.checkpoints import load_metadata
from bench.training.provenance import told
from tests.support.fake_runs import make_run
from tests.support.tiny import OPTIONS, bench, image_tree

TOOK = {"images_seen": 61440, "forward_equivalents": 184320, "seconds": 80.4, "shared": 0, "training_runs": 1}


def run_with(training, checkpoints, **changes):
    """Return a run of rrcm and dds at one sigma whose header says this of their training."""
    made = make_run(methods=["rrcm", "dds"], sigmas=[0.5], images=5, **changes)
    return replace(made, header=replace(made.header, training=training, checkpoints=checkpoints))


def two_rows():
    parts = {"dds/0.5": {"parameters": 900, **TOOK}, "dds/0.5/classifier": {**TOOK, "shared": 7}}
    return run_with(
        {"rrcm/0.5": {"parameters": 86_859_496, **TOOK}, **parts},
        {"rrcm/0.5": "a", "dds/0.5": "b", "dds/0.5/classifier": "c"},
    )


def test_a_row_adds_up_what_all_its_files_took():
    rrcm, dds = compare([two_rows()]).entries
    assert training_of(rrcm) == {"parameters": 86_859_496, **TOOK}
    twice = {"images_seen": 122880, "forward_equivalents": 368640, "seconds": 160.8, "shared": 7}
    assert training_of(dds) == {"parameters": 900, **twice, "training_runs": 1}


def test_nothing_is_added_up_where_one_of_the_files_does_not_tell():
    run = two_rows()
    run.header.checkpoints["dds/0.5/denoiser"] = "d"
    _, dds = compare([run]).entries
    assert training_of(dds) == {"parameters": 900, **dict.fromkeys(TOOK)}
    [block] = training_table(compare([run])).blocks
    assert block.rows[1] == ("DDS", "900", "–", "–", "–", "–")


def test_what_noise_levels_share_is_counted_once_in_their_sum():
    took = {"rrcm/0.5": {**TOOK, "shared": 84320}}
    [first, _] = compare([run_with(took, {"rrcm/0.5": "a"})]).entries
    [other, dds] = compare([run_with(took, {"rrcm/0.5": "another file", "dds/0.5": "silent"})]).entries
    assert forward_passes([first]) == forward_passes([first, first]) == 184320
    assert forward_passes([first, other]) == 2 * 184320 - 84320
    assert forward_passes([dds]) is forward_passes([first, dds]) is None


def test_numbers_stand_whole_in_tables_csv_files_best_rows_and_page(tmp_path):
    comparison = compare([two_rows()])
    paths = write_tables(comparison, tmp_path)[1]
    assert {path.name for path in paths} > {"training.csv", "training.md", "training.tex"}
    for name in ("training.md", "training.tex"):
        text = (tmp_path / name).read_text()
        assert all(number in text for number in ("86,859,496", "61,440", "184,320", "161"))
    for name in ("training", "certified_accuracy"):
        frame = pd.read_csv(tmp_path / f"{name}.csv")
        rrcm = frame[frame["method"] == "rrcm"]
        assert {*rrcm["training_forward_passes"]} == {184320}
        assert {*rrcm["parameters"]} == {86_859_496}
    assert (frame["selection"] == "best").any()
    assert REFERRED in main_table(comparison).notes
    frames = {
        "accuracy": accuracy_frame(comparison),
        "acr": acr_frame(comparison),
        "cost": cost_frame(comparison),
    }
    row = leaderboard(frames)[0]
    assert row["training_seconds"] == {"value": 80.4, "text": "80", "low": "", "high": ""}
    assert row["seconds"]["value"] != 80.4


def test_runs_that_say_nothing_have_no_such_table_and_a_dash_beside_runs_that_do(tmp_path):
    silent = run_with({}, {"rrcm/0.5": "a"}, folder=Path("silent"))
    comparison = compare([silent])
    write_tables(comparison, tmp_path)
    assert not (tmp_path / "training.md").exists()
    assert "parameters" not in (tmp_path / "certified_accuracy.csv").read_text()
    assert REFERRED not in main_table(comparison).notes
    [block] = training_table(compare([two_rows(), silent])).blocks
    assert block.rows[2] == ("rRCM (silent)", *["–"] * 5)


def checkpoint(path, **training):
    save_file({}, path, {"training": json.dumps(training)})
    return path


def test_a_checkpoint_tells_its_work_with_that_of_what_it_starts_from(tmp_path):
    work = {"images_seen": 10, "forward_equivalents": 30, "seconds": 1.5}
    path = checkpoint(tmp_path / "a.safetensors", **work, training_runs=1, before=work)
    assert told(path) == {
        "images_seen": 20,
        "forward_equivalents": 60,
        "seconds": 3.0,
        "shared": 30,
        "training_runs": 1,
    }
    assert told(checkpoint(tmp_path / "b.safetensors", source="a hub")) == {}
    assert told(tmp_path) == {}


@pytest.mark.parametrize(
    "said",
    [{"images_seen": "many"}, {"seconds": -1}, {"images_seen": 1.5}, {"images_seen": True},
     {"images_seen": 2**60}, {"seconds": float("nan")}, {"seconds": 1, "before": 3},
     {"seconds": 1, "before": {"seconds": []}}],
)  # fmt: skip
def test_what_is_no_number_is_refused(tmp_path, said):
    with pytest.raises(
        CheckpointError, match=r"a.safetensors says \w+ .* of its training, expected a number"
    ):
        told(checkpoint(tmp_path / "a.safetensors", **said))


def test_bench_run_puts_it_in_the_header_and_report_needs_no_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image_tree(tmp_path / "data")
    (tmp_path / "zoo").mkdir()
    changes = [f"--set=gaussian.{name}={value}" for name, value in OPTIONS["gaussian"].items()]
    words = [
        "--dataset",
        "folder",
        "--data-dir",
        "data",
        "--image-size",
        8,
        "--device",
        "cpu",
        "--zoo",
        "zoo",
    ]
    words += ["--methods", "gaussian", "--sigmas", "0.25", "--n", 20, "--n0", 5, "--limit", 2]
    assert bench(monkeypatch, "run", *words, "--out", "run", "--cost-repetitions", 0, *changes) == 0
    took = read_run(tmp_path / "run").header.training["gaussian/0.25"]
    [file] = (tmp_path / "zoo").rglob("*.safetensors")
    said = load_metadata(file)["training"]
    for name in ("parameters", "images_seen", "forward_equivalents", "seconds", "training_runs"):
        assert took[name] == said[name]
    file.unlink()
    capsys.readouterr()
    assert bench(monkeypatch, "report", "run") == 0
    shown = capsys.readouterr().out
    assert f"{took['parameters']:,}" in shown
    assert (tmp_path / "run" / "training.md").read_text().count("| Gaussian |") == 1
