"""Ablations of pre-training: what each leaves out, and that checkpoints made under another are refused."""

import pytest
import torch

from bench.errors import CheckpointError, UsageError
from bench.methods import registry
from bench.training.batches import Loader
from bench.training.checkpoints import load_checkpoint, save_checkpoint
from rrcm import pretrain
from rrcm.encoder import Encoder
from tests.support.tiny import OPTIONS, TASK, job


def configured(**changes):
    return registry.configure("rrcm", TASK, 0.5, {**OPTIONS["rrcm"], "pretrain_steps": 100, **changes})


def loss(work, step=0, **changes):
    config = configured(**changes)
    torch.manual_seed(0)
    objective = pretrain.Objective(Encoder(config.sizes), config.of_pretraining, TASK)
    return objective.loss(Loader(work, 8).batch(step))


def test_the_loss_is_the_sum_of_what_either_term_gives_alone(tmp_path):
    work = job(tmp_path)
    contrastive = loss(work, pretrain_consistency="false")
    consistency = loss(work, pretrain_contrastive="false")
    torch.testing.assert_close(contrastive + consistency, loss(work))
    assert min(contrastive, consistency) > 0.1


@pytest.mark.parametrize(("curriculum", "scales"), [("true", [21, 41, 81]), ("false", [81, 81, 81])])
def test_without_the_curriculum_the_last_grid_is_used_throughout(tmp_path, monkeypatch, curriculum, scales):
    seen, grid = [], pretrain.karras_grid
    monkeypatch.setattr(pretrain, "karras_grid", lambda count: seen.append(count) or grid(count))
    for step in (0, 1, 99):
        loss(job(tmp_path), step, pretrain_curriculum=curriculum)
    assert seen == scales


def test_a_loss_without_terms_is_refused():
    with pytest.raises(UsageError, match="pretrain_contrastive and pretrain_consistency are both false"):
        configured(pretrain_contrastive="false", pretrain_consistency="false")


@pytest.mark.parametrize("name", ["pretrain_contrastive", "pretrain_curriculum"])
def test_encoders_of_another_ablation_are_refused(tmp_path, name):
    work, config, other = job(tmp_path), configured(), configured(**{name: "false"})
    path = work.folder / pretrain.CHECKPOINT_NAME
    tensors = Encoder(config.sizes).state_dict()
    save_checkpoint(path, tensors, config={"method": "rrcm"}, training={})  # says nothing: the paper's
    with pytest.raises(CheckpointError, match=f"made with {name} true.* --set rrcm.{name}=true"):
        pretrain.load_or_train(other.sizes, other.of_pretraining, work)
    path.unlink()
    short = configured(pretrain_steps=1, **{name: "false"})
    pretrain.load_or_train(short.sizes, short.of_pretraining, work)
    assert load_checkpoint(path)[1]["config"][name] is False
    with pytest.raises(CheckpointError, match=f"made with {name} false"):
        pretrain.load_or_train(config.sizes, config.of_pretraining, work)


def test_views_are_those_asked_for(tmp_path):
    with pytest.raises(UsageError, match="views 'moco' need 3 channels, got 1"):
        loss(job(tmp_path), pretrain_views="moco")
