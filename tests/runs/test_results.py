"""Runs from Python: DataFrames of what is on the disk, trained models in one line, many images certified."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bench
from bench.config.run import load_preset
from bench.errors import BenchError, CheckpointError, UsageError
from bench.records.file import write_run
from bench.runs import results as results_of
from bench.types import Protocol
from tests.support.dual_smoothing import DualSmoothing
from tests.support.fake_runs import make_run
from tests.support.tiny import image_tree

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results():
    return bench.load(ROOT / "results" / "mnist5k")


def test_the_package_lists_what_it_offers():
    assert {"run", "load", "load_model", "certify_many", "load_data", "__version__"} <= set(dir(bench))
    assert all(getattr(bench, name) for name in bench.__all__)
    assert (ROOT / "bench" / "py.typed").exists()
    assert f'version = "{bench.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_accuracy_of_the_frame_is_that_of_its_certificates(results):
    rows, made = results.certified_accuracy(), results.certificates()
    chosen = rows[(rows["selection"] == "fixed") & (rows["method"] == "rrcm") & (rows["radius"] == 0.5)]
    for _, row in chosen.iterrows():
        part = made[(made["method"] == "rrcm") & (made["sigma"] == row["sigma"])]
        assert row["accuracy"] == (part["is_correct"] & (part["radius"] >= 0.5)).mean()


def test_paired_tests_are_of_the_two_methods(results):
    rows = results.compare("rrcm", "dds")
    assert set(rows["first"]) == {"rrcm"}
    with pytest.raises(UsageError, match="no method 'rcm' in the run; did you mean"):
        results.compare("rcm", "dds")
    with pytest.raises(UsageError, match="a comparison of dds with itself: name two methods"):
        results.compare("dds", "dds")


def test_a_run_has_a_short_repr_and_its_table_in_latex(results):
    assert "rrcm" in repr(results)
    assert len(repr(results)) < 250
    assert len(repr(results.run)) < 200
    assert r"\begin{table" in results.to_latex()
    with pytest.raises(UsageError, match="no tex called 'nothing'"):
        results.to_latex("nothing")


def test_many_images_of_a_linear_classifier_are_certified_below_its_true_radius():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[0.0] * 4, [1.0] * 4])
    images = torch.stack([torch.ones(1, 2, 2), torch.full((1, 2, 2), 0.5)])
    rows = bench.certify_many(model, images, [1, 0], sigma=0.5, protocol=Protocol(n0=20, n=200))
    assert list(rows["predict"]) == [1, 1]
    assert list(rows["is_correct"]) == [True, False]
    assert (rows["radius"] < [2.0, 1.0]).all()
    with pytest.raises(UsageError, match="1 labels for 2 images"):
        bench.certify_many(model, images, [1], sigma=0.5)
    with pytest.raises(UsageError, match="labels hold -1, expected classes"):
        bench.certify_many(model, images, [1, -1], sigma=0.5)
    for changes in ({"estimation": "sequential"}, {"bound": "randomised"}):
        with pytest.raises(UsageError, match="certify_many has fixed estimation"):
            bench.certify_many(model, images, sigma=0.5, protocol=Protocol(**changes))


def test_a_trained_model_in_one_line_knows_digits():
    model = bench.load_model("gaussian", sigma=0.25)
    split = bench.load_data("mnist5k", "test")
    rows = bench.certify_many(
        model,
        torch.stack([split.images[index] for index in range(3)]),
        [split.labels[index] for index in range(3)],
        sigma=0.25,
        protocol=Protocol(n0=10, n=50),
    )
    assert rows["is_correct"].sum() >= 2


def test_a_model_of_several_bounds_keeps_them():
    model = bench.load_model("tests.support.dual_smoothing:make", sigma=0.25)
    x = torch.ones(1, 28, 28)
    whole = bench.certify(DualSmoothing(0.25), x, sigma=0.25, n0=10, n=200)
    assert bench.certify(model, x, sigma=0.25, n0=10, n=200) == whole
    assert len(whole.bounds) == 2


def test_labels_are_whole_numbers_and_no_images_have_the_same_columns():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    for label in (1.9, "cat", True):
        with pytest.raises(UsageError, match="expected classes, whole numbers of 0 or more"):
            bench.certify_many(model, torch.ones(1, 1, 2, 2), [label], sigma=0.5)
    assert "radius" in bench.certify_many(model, torch.ones(0, 1, 2, 2), sigma=0.5)
    with pytest.raises(UsageError, match="sigma"):
        bench.certify_many(model, torch.ones(0, 1, 2, 2), sigma=-1)


def test_none_is_a_value_of_an_option_of_a_run_and_a_missing_zoo_is_named(tmp_path):
    assert results_of._configured(load_preset("mnist5k"), {"limit": None}).limit is None
    with pytest.raises(BenchError, match="not_there"):
        bench.load_model("gaussian", sigma=0.5, zoo=tmp_path / "not_there")


def test_a_run_takes_a_preset_by_path_and_noise_levels_as_the_command_line_does(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        results_of.runner, "run", lambda config, **how: asked.append(config) or (None, tmp_path)
    )
    monkeypatch.setattr(results_of, "load", lambda folder: None)
    preset = tmp_path / "own.toml"
    preset.write_text('description = "own"\ndataset = "mnist5k"\nmethods = ["rrcm"]\n')
    bench.run(preset, sigmas="64/255,0.5")
    assert asked[0].sigmas == (64 / 255, 0.5)


def test_a_folder_that_is_no_path_is_refused():
    with pytest.raises(UsageError, match="folder is None, expected the path of a run"):
        bench.load(None)


def test_options_are_checked_at_a_noise_level_of_the_run():
    changes = {
        "methods": ("consistency-model",),
        "sigmas": (0.25,),
        "options": {"consistency-model": {"sigma_max": 0.8}},
    }
    assert results_of._configured(load_preset("mnist5k"), changes).sigmas == (0.25,)


@pytest.fixture
def linear():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[0.0] * 4, [1.0] * 4])
    return model


def test_labels_that_are_no_class_of_the_model_are_refused(linear):
    with pytest.raises(UsageError, match="the label of image 1 is 2, and the model has 2 classes, 0 to 1"):
        bench.certify_many(linear, torch.ones(2, 1, 2, 2), [1, 2], sigma=0.5)


def test_generators_of_images_and_labels_are_lists(linear):
    images = torch.rand(3, 1, 2, 2)
    whole = bench.certify_many(linear, images, torch.tensor([1, 0, 1]), sigma=0.5)
    assert whole.equals(bench.certify_many(linear, iter(images), iter([1, 0, 1]), sigma=np.float32(0.5)))
    with pytest.raises(UsageError, match="images must be a tensor or a list of them, got 3"):
        bench.certify_many(linear, 3, sigma=0.5)
    with pytest.raises(UsageError, match=r"protocol is \{'n': 10\}, expected bench.types.Protocol"):
        bench.certify_many(linear, images, sigma=0.5, protocol={"n": 10})


@pytest.mark.parametrize("method", ["gaussian", "consistency-model"])
def test_a_trained_model_is_float32_whatever_torch_s_default_is(method):
    x = torch.rand(1, 28, 28)

    def counts():
        model = bench.load_model(method, sigma=np.float32(0.5), zoo=str(ROOT / "results" / "zoo"))
        return bench.certify(model, x, sigma=0.5, n0=5, n=20).counts_estimation

    expected = counts()
    torch.set_default_dtype(torch.float64)
    try:
        assert counts() == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_picture_is_saved_as_what_it_is(results, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    picture = results.figure("sigmas")
    picture.save("~/a.png")
    assert (tmp_path / "a.png").read_bytes() == picture.png
    with pytest.raises(UsageError, match=r"fig.pdf is no name of a PNG file: .* writes PDF"):
        picture.save(tmp_path / "fig.pdf")


def test_what_a_reader_must_know_first_is_said_with_the_results(tmp_path):
    run = make_run(methods=["rrcm", "dds"], sigmas=[0.5])
    write_run(tmp_path, replace(run, records=run.records[:-3]))
    found = bench.load(tmp_path)
    assert any("Unfinished" in sentence for sentence in found.warnings)
    assert found.warnings[0] in repr(found)
    assert not list(found.compare("rrcm", "dds").filter(like="label"))


def test_an_observer_is_one():
    with pytest.raises(UsageError, match=r"observer is .*, expected an Observer, such as ProgressLines"):
        bench.run(observer=print)


def test_a_model_of_ones_own_folder_of_images_is_loaded_from_its_zoo(tmp_path):
    image_tree(tmp_path / "data")
    with pytest.raises(CheckpointError, match=r"no gaussian_sigma_0.5.safetensors for folder: train it"):
        bench.load_model(
            "gaussian", sigma=0.5, dataset="folder", data_dir=tmp_path / "data", image_size=8, zoo=tmp_path
        )


def test_methods_without_a_common_image_are_said_and_not_raised(tmp_path):
    run = make_run(methods=["rrcm", "dds"], sigmas=[0.5])
    halves = [one for one in run.records if (one.method == "rrcm") == (one.index < 200)]
    write_run(tmp_path, replace(run, records=halves))
    assert "no image was certified by all of rRCM, DDS" in repr(bench.load(tmp_path))
    write_run(tmp_path / "one", replace(run, records=[one for one in run.records if one.method == "dds"]))
    assert bench.load(tmp_path / "one").compare("rrcm", "dds").empty
