"""The stages of rRCM's training: which checkpoint each one needs, makes, and leaves alone."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from bench.errors import CheckpointError, UnfinishedError, UsageError
from bench.methods import registry
from bench.training.checkpoints import load_metadata
from bench.training.recipes import trained_options
from rrcm import model
from tests.support.tiny import OPTIONS, TASK, bench, image_tree, job

STEPS = 5


def configured(stage, **changes):
    return registry.configure("rrcm", TASK, 0.5, {**OPTIONS["rrcm"], "stage": stage, **changes})


def train(stage, work, **changes):
    config = configured(stage, **changes)
    model.train(config, work)
    return load_file(work.folder / model.checkpoint_name(config))


def test_stages_make_what_one_call_makes(tmp_path):
    split, whole = job(tmp_path / "split"), job(tmp_path / "whole")
    encoder = train("pretrain", split)
    assert [path.name for path in split.folder.iterdir()] == ["rrcm_pretrained.safetensors"]
    classifier = train("finetune", split)
    uninterrupted = train("all", whole)
    assert all(torch.equal(classifier[name], uninterrupted[name]) for name in uninterrupted)
    assert any(name.startswith("projection_head") for name in encoder)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train("pretrain", job(tmp_path_factory.mktemp("whole")), pretrain_steps=STEPS)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_pre_training_killed_at_any_step_and_resumed_ends_with_the_same_weights(
    tmp_path, uninterrupted, step
):
    def kill(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    killed = job(tmp_path, checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        train("pretrain", dataclasses.replace(killed, report=kill), pretrain_steps=STEPS)
    resumed = train("pretrain", killed, pretrain_steps=STEPS)
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in uninterrupted)


def test_pre_training_has_no_checkpoint_before_its_last_step_and_goes_on(tmp_path):
    work = job(tmp_path)
    with pytest.raises(UnfinishedError, match=r"rrcm_pretrained is up at step 0 of 2; .* repeat the command"):
        train("pretrain", dataclasses.replace(work, max_seconds=0.0))
    assert not work.folder.exists()
    assert train("pretrain", work)


def test_an_encoder_of_another_seed_or_recipe_is_taken_only_by_a_stage_that_says_so(tmp_path):
    def asked(stage, seed=0, **changes):
        options = trained_options(configured(stage, **changes))
        return train(stage, job(tmp_path, seed=seed, options=options), **changes)

    asked("pretrain")
    with pytest.raises(
        CheckpointError, match=r"made with seed 0, not 1: --zoo DIR .* --stage finetune takes"
    ):
        asked("all", seed=1)
    with pytest.raises(CheckpointError, match=r"made with pretrain_learning_rate 0\.001, not 0\.1"):
        asked("all", pretrain_learning_rate=0.1)
    asked("all", pretrain_evaluate_every=1)
    asked("linear", seed=1, pretrain_learning_rate=0.1)
    trained = load_metadata(job(tmp_path).folder / "rrcm_linear_sigma_0.5.safetensors")["training"]
    assert (trained["seed"], trained["options"]["pretrain_seed"]) == (1, 0)
    assert trained["options"]["pretrain_learning_rate"] == 0.001


def test_linear_stage_trains_the_head_alone(tmp_path):
    work = job(tmp_path)
    encoder = train("pretrain", work)
    classifier = train("linear", work)
    for name, value in classifier.items():
        if name.startswith("base_model."):
            assert torch.equal(value, encoder[name.removeprefix("base_model.")].float()), name
    head = model.build(configured("linear"), work.folder / "rrcm_linear_sigma_0.5.safetensors").linear_head
    assert head.bias.abs().max() > 0
    assert not (work.folder / "rrcm_sigma_0.5.safetensors").exists()


@pytest.mark.parametrize("stage", ["linear", "finetune"])
def test_later_stages_need_the_encoder_unless_they_start_from_random_weights(tmp_path, stage):
    work = job(tmp_path)
    with pytest.raises(CheckpointError, match=r"No checkpoint at .*rrcm_pretrained\.safetensors"):
        train(stage, work)
    train(stage, work, pretrain_steps=0)


def test_pre_training_alone_makes_no_classifier_and_needs_steps(tmp_path):
    with pytest.raises(UsageError, match="encoder without a head: use stage 'linear' or 'finetune'"):
        model.build(configured("pretrain"), None)
    with pytest.raises(UsageError, match="has pretrain_steps 0"):
        train("pretrain", job(tmp_path), pretrain_steps=0)


def test_command_trains_a_stage_and_leaves_its_curves_and_their_figure(tmp_path, monkeypatch, capsys):
    image_tree(tmp_path / "data")
    options = [f"--set=rrcm.{name}={value}" for name, value in OPTIONS["rrcm"].items()]
    data = ["--dataset", "folder", "--data-dir", tmp_path / "data", "--image-size", "8"]
    where = ["--zoo", tmp_path / "zoo", "--device", "cpu"]
    assert bench(monkeypatch, "train", "rrcm", "--stage", "pretrain", *data, *where, *options) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "zoo" / "folder" / "rrcm_pretrained.safetensors"),
        str(tmp_path / "zoo" / "training" / "folder" / "rrcm_pretrained.png"),
    ]
    curve = tmp_path / "zoo" / "training" / "folder" / "rrcm_pretrained.csv"
    assert curve.read_text().splitlines()[-1].startswith("rrcm_pretrained,2,")
    assert bench(monkeypatch, "curves", curve, "--out", tmp_path / "both.svg") == 0
    assert (tmp_path / "both.svg").exists()
    assert bench(monkeypatch, "train", "gaussian", "--stage", "linear", *data, *where) == 2
    assert "stage" in capsys.readouterr().err


def test_command_out_of_time_leaves_the_figure_of_the_curves_so_far(tmp_path, monkeypatch, capsys):
    sizes = OPTIONS["rrcm"] | {"pretrain_steps": 10**6, "pretrain_evaluate_every": 1}
    options = [f"--set=rrcm.{name}={value}" for name, value in sizes.items()]
    data = ["--dataset", "folder", "--data-dir", image_tree(tmp_path / "data"), "--image-size", "8"]
    where = ["--zoo", tmp_path / "zoo", "--device", "cpu", "--max-seconds", "0.5"]
    assert bench(monkeypatch, "train", "rrcm", "--stage", "pretrain", *data, *where, *options) == 1
    figure = tmp_path / "zoo" / "training" / "folder" / "rrcm_pretrained.png"
    captured = capsys.readouterr()
    assert (captured.out, figure.exists()) == (f"{figure}\n", True)
    assert "rrcm_pretrained is up at step" in captured.err
