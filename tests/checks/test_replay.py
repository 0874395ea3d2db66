"""Commands that compute certificates again: equal on the same checkpoints, and every difference named."""

import json
import shutil

import pytest

from baselines import dds
from bench.checks.replay import companions
from bench.methods import zoo
from bench.records.file import read_run
from bench.smoothing.estimation import certified_radius
from tests.support.tiny import arguments, bench

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run that may be changed."""
    return shutil.copytree(trained / "run", tmp_path / "run")


def edit(run, line, **changes):
    lines = (run / "records.jsonl").read_text().splitlines()
    lines[line] = json.dumps(json.loads(lines[line]) | changes)
    (run / "records.jsonl").write_text("\n".join(lines) + "\n")


def test_an_untouched_run_replays_equal(run, monkeypatch, capsys):
    index = read_run(run).header.indices[0]
    assert bench(monkeypatch, "replay", run, "--index", index) == 0
    said = capsys.readouterr().out
    assert f"image {index}, gaussian at sigma 0.25: equal" in said
    assert f"image {index}, dds at sigma 0.25: equal" in said


def test_a_record_from_before_classes_without_noise_were_kept_replays_equal(run, monkeypatch, capsys):
    first = read_run(run).records[0]
    only = ("--index", first.index, "--method", first.method, "--sigma", first.sigma)
    edit(run, 1, clean=None)
    assert bench(monkeypatch, "replay", run, *only) == 0
    edit(run, 1, clean=1 - first.clean)
    assert bench(monkeypatch, "replay", run, *only) == 1
    assert f"clean differs, {1 - first.clean} on record and {first.clean} now" in capsys.readouterr().out


def test_changed_counts_and_the_radius_that_they_certify_are_named_with_both_values(run, monkeypatch, capsys):
    found = read_run(run)
    first = found.records[0]
    fewer = ((0, 2), (1, 48)) if first.selected else ((0, 48), (1, 2))
    assert fewer != first.counts_estimation
    radius = certified_radius(48, first.n, found.header.protocol, first.sigma)
    edit(run, 1, counts_estimation=fewer, radius=radius, predict=first.selected)
    assert bench(monkeypatch, "replay", run, "--index", first.index, "--method", first.method) == 1
    said = capsys.readouterr().out
    assert f"radius differs, {radius} on record and {first.radius} now" in said
    assert f"counts_estimation differs, {fewer}" in said


def test_another_checkpoint_is_refused(run, monkeypatch, capsys):
    header = read_run(run).header
    edit(run, 0, checkpoints=header.checkpoints | {"gaussian/0.25": "0" * 64})
    assert bench(monkeypatch, "replay", run, "--index", header.indices[0], "--method", "gaussian") == 1
    assert f"is not the one that {run} certified (gaussian at sigma 0.25" in capsys.readouterr().err


def test_a_checkpoint_that_was_named_is_found_where_it_lies_now(root, monkeypatch, capsys):
    (root / "mine.safetensors").write_bytes(
        (root / "zoo" / "folder" / "gaussian_sigma_0.25.safetensors").read_bytes()
    )
    named = ("--set", "gaussian.checkpoint=mine.safetensors", "--methods", "gaussian", "--sigma", "0.25")
    monkeypatch.chdir(root)
    assert bench(monkeypatch, "run", *arguments(root, *named, "--out", root / "own")) == 0
    monkeypatch.chdir(root.parent)
    order = ("replay", root / "own", "--index", read_run(root / "own").header.indices[0], "--set")
    assert bench(monkeypatch, *order, f"gaussian.checkpoint={root}/mine.safetensors") == 0
    assert bench(monkeypatch, *order, "gaussian.checkpoint=nowhere") == 2
    assert (
        "and --set repeats its options: give that, or the file where it lies now" in capsys.readouterr().err
    )
    assert (
        bench(monkeypatch, *order, f"gaussian.checkpoint={root}/zoo/folder/gaussian_sigma_0.5.safetensors")
        == 1
    )


def test_method_or_sigma_that_the_run_does_not_hold_is_named(run, monkeypatch, capsys):
    index = read_run(run).header.indices[0]
    assert bench(monkeypatch, "replay", run, "--index", index, "--method", "gausian") == 2
    assert "holds no method gausian; did you mean 'gaussian'?" in capsys.readouterr().err
    assert bench(monkeypatch, "replay", run, "--index", index, "--sigma", "0.3") == 2
    assert "holds no sigma 0.3; " in capsys.readouterr().err


def test_another_part_from_elsewhere_is_refused(run, monkeypatch, capsys):
    header, part = read_run(run).header, run.parent / "unet"
    part.mkdir()
    (part / "weights").write_text("the weights")
    monkeypatch.setattr(dds.METHOD, "foreign_files", lambda config: {"denoiser": part})
    edit(run, 0, checkpoints=header.checkpoints | {"dds/0.25/denoiser": zoo.sha256(part)})
    replay = ("replay", run, "--index", header.indices[0], "--method", "dds")
    assert bench(monkeypatch, *replay) == 0
    (part / "weights").write_text("other weights")
    assert bench(monkeypatch, *replay) == 1
    assert f"denoiser is not the one that {run} certified (dds at sigma 0.25" in capsys.readouterr().err


def test_certificates_of_an_estimation_that_is_not_run_are_not_replayed(run, monkeypatch, capsys):
    index = read_run(run).header.indices[0]
    edit(run, 0, estimation="confidence-sequence")
    file = run / "records.jsonl"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    assert bench(monkeypatch, "replay", run, "--index", index) == 2
    assert (
        "has confidence-sequence estimation, which is read and reported but not run"
        in capsys.readouterr().err
    )


def test_samples_that_another_alpha_stopped_are_not_replayed(run, monkeypatch, capsys):
    index = read_run(run).header.indices[0]
    config = json.loads((run / "records.jsonl").read_text().splitlines()[0])["config"]
    edit(run, 0, config=config | {"drawn_alpha": 0.01})
    assert bench(monkeypatch, "replay", run, "--index", index) == 2
    assert "holds samples that stopped where alpha = 0.01 decided: replay the" in capsys.readouterr().err


def test_a_part_of_the_samples_is_not_replayed_but_all_of_them_at_another_level_are(run, monkeypatch, capsys):
    header = read_run(run).header
    index, part, same = header.indices[0], run.parent / "part", run.parent / "same"
    assert bench(monkeypatch, "recertify", run, "--n", header.n - 1, "--out", part) == 0
    assert bench(monkeypatch, "replay", part, "--index", index) == 2
    assert (
        f"holds a random part of the {header.n} samples that were drawn: replay the"
        in capsys.readouterr().err
    )
    assert bench(monkeypatch, "recertify", run, "--alpha", "0.01", "--out", same) == 0
    assert bench(monkeypatch, "replay", same, "--index", index) == 0
    assert bench(monkeypatch, "audit", part, "--methods", "gaussian", "--images", "1", "--steps", "1") == 0


def test_an_image_that_was_not_certified_is_refused(run, monkeypatch, capsys):
    assert bench(monkeypatch, "replay", run, "--index", "99") == 2
    assert f"{run} holds no such certificate of image 99; its images begin" in capsys.readouterr().err


def test_a_missing_checkpoint_says_how_to_train_it(run, monkeypatch, capsys, tmp_path):
    index = read_run(run).header.indices[0]
    assert bench(monkeypatch, "replay", run, "--index", index, "--zoo", tmp_path / "empty") == 1
    assert "train it first with `bench train" in capsys.readouterr().err


def test_audit_attacks_what_is_certified_and_compares_batch_sizes(run, monkeypatch, capsys):
    quick = ("--methods", "gaussian", "--images", "2")
    assert bench(monkeypatch, "audit", run, *quick, "--steps", "2", "--samples", "4") == 0
    assert bench(monkeypatch, "audit", run, *quick, "--batch-size", "32,16") == 0
    assert "predictions that differ" in capsys.readouterr().out
    assert bench(monkeypatch, "audit", run, "--precision", "--batch-size", "32,16") == 2
    assert "two audits: give one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("index", "size", "expected"), [(7, 1, (7,)), (7, 2, (5, 7)), (2, 2, (2,)), (9, 8, (9, 4, 5, 7, 2))]
)
def test_an_image_is_replayed_with_those_that_shared_its_batches(index, size, expected):
    assert companions((9, 4, 5, 7, 2), index, size) == expected


def test_a_published_log_cannot_be_replayed(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.4\t1\t1.0\n")
    line = "import-log a.tsv --dataset cifar10 --sigma 0.5 --alpha 0.001 --n 1000 --method m --out log"
    monkeypatch.chdir(tmp_path)
    assert bench(monkeypatch, *line.split()) == 0
    assert bench(monkeypatch, "replay", "log", "--index", 0) == 2
    assert "log was made from a published log, which no model can compute again" in capsys.readouterr().err


def test_a_run_of_a_subset_file_replays_without_the_file(root, monkeypatch, capsys):
    ids = root / "ids.txt"
    ids.write_text("1\n3\n")
    options = arguments(root, "--out", root / "few", "--subset", f"file:{ids}", "--cost-repetitions", 0)
    assert bench(monkeypatch, "run", *options) == 0
    ids.unlink()
    assert read_run(root / "few").header.indices == (1, 3)
    assert bench(monkeypatch, "replay", root / "few", "--index", 3) == 0
    assert "image 3, gaussian at sigma 0.25: equal" in capsys.readouterr().out
