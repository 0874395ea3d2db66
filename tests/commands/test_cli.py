"""The commands as a user types them, on the smallest real data: outputs, exit codes, one line per mistake."""

import io
import shutil
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.checks import selftest
from bench.commands.terminal.status import status_of
from bench.errors import TerminatedError
from bench.records.file import read_run
from bench.runs import train as runs_train
from bench.smoothing.noise import image_uniform
from bench.types import ABSTAIN
from tests.support.fake_runs import make_run
from tests.support.tiny import arguments, bench

pytestmark = pytest.mark.usefixtures("undrawn")

TABLES = ("certified_accuracy", "best", "acr", "cost", "training")
DRAWN = (
    "certified_accuracy",
    "envelope",
    "sigmas",
    "overview",
    "differences",
    "accuracy_against_cost",
    "samples",
    "levels",
    "p_lower",
)
OUTPUTS = {
    *(f"{name}.{kind}" for name in (*TABLES, "p_lower") for kind in ("csv", "md")),
    *(f"{name}.tex" for name in TABLES),
    *(f"{name}.{kind}" for name in DRAWN for kind in ("png", "pdf")),
    "records.jsonl",
    "results.json",
}


def gaussian(root):
    """Return the options that name the gaussian method of `trained`, at one sigma, on its data."""
    options = arguments(root)
    data, zoo = options[: options.index("--n")], options[options.index("--zoo") :]
    own = [word for word in zoo if not word.startswith("--set") or "gaussian" in word]
    return ["--method", "gaussian", "--sigma", "0.25", *data, *own]


def without_timings(run):
    return sorted({**asdict(record), "seconds": 0}.items() for record in run.records)


def error_line(capsys):
    """Return the one line on stderr; no traceback, nothing on stdout."""
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("bench: ")]
    assert "Traceback" not in captured.err
    assert len(lines) == 1
    return lines[0]


def test_run_trains_certifies_measures_and_reports_everything(trained):
    run = read_run(trained / "run")
    assert {path.name for path in (trained / "run").iterdir()} - {".lock"} == OUTPUTS
    assert len(run.records) == 4 * 2 * 3
    assert [cost.method for cost in run.costs] == ["rrcm", "gaussian", "consistency", "dds"]
    assert all(sum(count for _, count in record.counts_estimation) == 50 for record in run.records)


def test_interrupted_run_continues_to_the_same_records(root, monkeypatch, capsys):
    whole = read_run(root / "run")
    lines = (root / "run" / "records.jsonl").read_bytes().splitlines(keepends=True)
    (root / "run" / "records.jsonl").write_bytes(b"".join(lines[:8]) + lines[8][:20])
    command = arguments(root, "--out", root / "run", "--batch-size", "7")
    assert bench(monkeypatch, "run", *command) == 0
    assert without_timings(read_run(root / "run")) == without_timings(whole)
    assert "removed a cut last line" in capsys.readouterr().err
    before = (root / "run" / "records.jsonl").read_bytes()
    assert bench(monkeypatch, "run", *command) == 0
    assert (root / "run" / "records.jsonl").read_bytes() == before


def test_report_makes_the_same_tables_from_records_alone(root, monkeypatch, capsys):
    tables = {path.name: path.read_bytes() for path in (root / "run").glob("*.csv")}
    for path in (root / "run").iterdir():
        if path.name != "records.jsonl":
            path.unlink()
    shutil.rmtree(root / "zoo")
    assert bench(monkeypatch, "report", root / "run") == 0
    assert {path.name: path.read_bytes() for path in (root / "run").glob("*.csv")} == tables
    assert "Certified accuracy" in capsys.readouterr().out


def test_report_shows_runs_side_by_side(root, monkeypatch):
    shutil.copytree(root / "run", root / "again")
    assert bench(monkeypatch, "report", root / "run", root / "again", "--out", root / "both") == 0
    assert "rRCM (again)" in (root / "both" / "acr.md").read_text().replace("\\", "")


def test_recertify_writes_a_run_of_its_own_with_tables(root, monkeypatch):
    again = root / "again"
    assert bench(monkeypatch, "recertify", root / "run", "--alpha", "0.2", "--n", "40", "--out", again) == 0
    run = read_run(again)
    assert (run.header.alpha, run.header.n, len(run.records)) == (0.2, 40, 4 * 2 * 3)
    assert (again / "certified_accuracy.png").exists()


def test_run_with_other_estimation_and_bound_skips_wrong_images_and_records_uniforms(
    root, monkeypatch, capsys
):
    options = ("--estimation", "skip-wrong", "--bound", "randomised", "--out", root / "skip")
    assert bench(monkeypatch, "run", *arguments(root, *options)) == 0
    assert "Samples: skip-wrong estimation drew" in capsys.readouterr().out
    records = read_run(root / "skip").records
    assert 0 < sum(record.is_skipped for record in records) < len(records)
    assert all(record.predict == ABSTAIN for record in records if record.is_skipped)
    assert all(record.clean in (0, 1) for record in records)
    assert all(record.uniform == image_uniform(0, record.index) for record in records)


def test_status_says_what_is_left(root, monkeypatch, capsys):
    lines = (root / "run" / "records.jsonl").read_bytes().splitlines(keepends=True)
    (root / "run" / "records.jsonl").write_bytes(b"".join(lines[:8]))
    assert bench(monkeypatch, "status", root / "run") == 0
    assert "17 images left" in capsys.readouterr().out


@pytest.mark.parametrize(("begun", "told"), [((), "time unknown;"), (("rrcm",), "at least 10 min;")])
def test_status_claims_no_time_that_it_does_not_know(begun, told):
    run = make_run(methods=["rrcm", "dds"], sigmas=[0.5], images=2)
    first = (one for one in run.records if one.method in begun and one.index == 0)
    records = tuple(replace(one, seconds=600.0) for one in first)
    _, (_, left) = status_of(replace(run, records=records), "")
    assert f" images left, {told}" in left
    _, (_, left) = status_of(replace(run, records=run.records[:3]), "")
    assert "1 images left, about " in left


def test_certify_names_class_and_radius_of_an_image_file(root, monkeypatch, capsys):
    image = root / "data" / "test" / "dark" / "0.png"
    options = (*gaussian(root), "--n", "50", "--n0", "10")
    assert bench(monkeypatch, "certify", image, *options) == 0
    assert "sigma 0.25" in capsys.readouterr().out
    assert bench(monkeypatch, "certify", root / "none.png", *options) == 1
    assert "cannot be read as an image" in error_line(capsys)


def test_predict_names_the_class_of_an_image_file_or_abstains(root, monkeypatch, capsys):
    image = root / "data" / "test" / "bright" / "0.png"
    options = (*gaussian(root), "--n", "50")
    assert bench(monkeypatch, "predict", image, *options, "--alpha", "0.999") == 0
    said = capsys.readouterr().out
    assert ": class dark" in said or ": class bright" in said
    assert bench(monkeypatch, "predict", image, *options, "--alpha", "1e-20") == 0
    assert "abstains" in capsys.readouterr().out  # 50 samples never reject at this level


def test_selftest_passes_here_and_checks_a_methods_classifier(root, monkeypatch, capsys):
    monkeypatch.setattr(selftest, "check_tails", partial(selftest.check_tails, trials=1))  # it takes longest
    assert bench(monkeypatch, "selftest", "--trials", "20") == 0
    said = capsys.readouterr().out
    assert "half-space, radius 0.600" in said
    assert "(exact recursion, n 1000, alpha 0.001): wrong with probability 0.0009" in said
    assert bench(monkeypatch, "selftest", *gaussian(root), "--trials", "5") == 0
    assert capsys.readouterr().out.count("passes ") == 5


def test_certify_without_a_checkpoint_says_how_to_train_one(root, monkeypatch, capsys):
    image = root / "data" / "test" / "dark" / "0.png"
    data = ["--dataset", "folder", "--data-dir", root / "data", "--image-size", "8", "--zoo", root / "empty"]
    assert bench(monkeypatch, "certify", image, "--method", "gaussian", "--sigma", "0.25", *data) == 1
    assert "`bench train gaussian --dataset folder --sigma 0.25 --data-dir" in error_line(capsys)
    assert not (root / "empty").exists()


def test_training_uses_the_sizes_of_the_data_sets_preset(monkeypatch):
    seen = {}

    def record(method, sigma, config, **rest):
        seen[method] = config.options
        return "checkpoint"

    monkeypatch.setattr(runs_train, "train_method", record)
    assert bench(monkeypatch, "train", "rrcm", "--dataset", "cifar10") == 0
    assert seen["rrcm"]["rrcm"]["encoder"] == "rrcm-b-cifar10"


def test_changed_protocol_is_refused_in_the_same_folder(root, monkeypatch, capsys):
    assert bench(monkeypatch, "run", *arguments(root, "--out", root / "run", "--alpha", "0.01")) == 1
    assert "was made under another alpha" in error_line(capsys)


def test_nan_in_the_weights_ends_the_run_and_keeps_what_was_certified(root, monkeypatch, capsys):
    path = root / "zoo" / "folder" / "gaussian_sigma_0.25.safetensors"
    save_file({name: value * float("nan") for name, value in load_file(path).items()}, path)
    assert bench(monkeypatch, "run", *arguments(root, "--out", root / "new")) == 1
    assert "gaussian: logits are NaN or infinite" in error_line(capsys)
    assert len(read_run(root / "new").records) == 3


def test_fields_own_spellings_and_imagenet_dir_work(monkeypatch, capsys):
    monkeypatch.setenv("IMAGENET_DIR", "/somewhere")
    options = "--preset imagenet --sigma 0.5 --N 9 --N0 8 --batch 7 --max 6 --dry-run"
    assert bench(monkeypatch, "run", *options.split()) == 0
    shown = capsys.readouterr().out.splitlines()
    expected = ["data_dir = /somewhere", "sigmas = 0.5", "n = 9", "n0 = 8", "batch_size = 7", "limit = 6"]
    assert [line for line in expected if line not in shown] == []


@pytest.mark.parametrize("what", ["methods", "datasets", "presets", "models", "recipes"])
def test_list_names_everything(monkeypatch, capsys, what):
    names = {"methods": "consistency", "datasets": "fashion-mnist", "presets": "mnist5k-full"}
    names |= {"models": "85,117,440", "recipes": "imagenet at 0.25"}
    assert bench(monkeypatch, "list", what) == 0
    assert names[what] in capsys.readouterr().out


def test_help_lists_what_users_need_alone(monkeypatch, capsys):
    assert bench(monkeypatch, "--help") == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert {"run", "report", "list"} <= {*listed}
    assert "readme" not in listed


@pytest.mark.parametrize(
    ("signalled", "code", "line"),
    [(KeyboardInterrupt, 130, "bench: interrupted"), (TerminatedError, 143, "bench: terminated")],
)
def test_a_signal_in_the_midst_of_a_file_of_torchs_is_a_signal(monkeypatch, capsys, signalled, code, line):
    class Interrupted(io.BytesIO):
        writes = 0

        def write(self, data):
            self.writes += 1
            if self.writes == 3:  # torch fails to close the file then, and says so instead
                raise signalled
            return super().write(data)

    def save(standalone_mode):
        torch.save({"weight": torch.ones(3)}, Interrupted())

    monkeypatch.setattr("bench.cli.cli.main", save)
    assert bench(monkeypatch, "train") == code
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(line)
