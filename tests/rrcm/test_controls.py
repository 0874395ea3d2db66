"""Controls of rRCM's pre-training: what each trains, under which name, and at what cost."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from bench.config.run import load_preset
from bench.errors import UsageError
from bench.methods import registry
from bench.training.batches import Loader
from bench.training.checkpoints import load_checkpoint
from bench.training.provenance import work as work_of
from bench.training.recipes import Recipe
from bench.types import Task
from rrcm import finetune, model, presets, pretrain
from rrcm.encoder import Encoder
from rrcm.masked import MaskedObjective, patches_of
from tests.support.tiny import OPTIONS, TASK, job


def configured(pretraining="rrcm", **changes):
    return registry.configure("rrcm", TASK, 0.5, {**OPTIONS["rrcm"], "pretraining": pretraining, **changes})


def without_steps(pretraining):
    options = {name: value for name, value in OPTIONS["rrcm"].items() if name != "pretrain_steps"}
    return registry.configure("rrcm", TASK, 0.5, {**options, "pretraining": pretraining})


@pytest.mark.parametrize("kind", ["rrcm", "contrastive", "masked"])
def test_each_control_trains_and_classifies_by_one_option_and_one_name(tmp_path, kind):
    config, work = configured(kind), job(tmp_path)
    model.train(config, work)
    suffix = "" if kind == "rrcm" else f"_{kind}"
    path = work.folder / f"rrcm{suffix}_sigma_0.5.safetensors"
    assert {one.name for one in work.folder.iterdir()} == {path.name, f"rrcm_pretrained{suffix}.safetensors"}
    assert model.build(config, path)(torch.rand(2, 1, 8, 8), 0.5).shape == (2, 2)


def test_without_pre_training_there_is_no_encoder_and_no_layer_decay(tmp_path):
    config, work = without_steps("none"), job(tmp_path)
    model.train(config, work)
    assert [one.name for one in work.folder.iterdir()] == ["rrcm_none_sigma_0.5.safetensors"]
    assert (config.pretrain_steps, config.finetuning.layer_decay) == (0, 1.0)
    published = registry.configure("rrcm", TASK, 0.5, {"recipe": "cifar10", "pretraining": "none"})
    assert published.finetuning.layer_decay == 1.0


def test_options_that_contradict_the_kind_are_refused(tmp_path):
    with pytest.raises(UsageError, match="pretrain_steps is 3, expected 0 for pretraining=none"):
        model.train(configured("none", pretrain_steps=3), job(tmp_path))
    with pytest.raises(UsageError, match="pretrain_masked is true beside pretrain_contrastive"):
        configured(pretrain_masked="true")
    with pytest.raises(UsageError, match="pretrain_batch_size is 1, expected 2 or more"):
        configured(pretrain_batch_size=1)


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("gaussian", {"copies": 1, "weight": 0.0, "entropy_weight": 0.0, "batch_size": 128}),
        ("consistency", {}),
    ],
)
def test_a_baseline_on_the_encoder_is_fine_tuning_from_random_weights(tmp_path, method, own):
    baseline = registry.configure(method, TASK, 0.5, {"backbone": "vit-4"})
    config = registry.configure("rrcm", TASK, 0.5, {"patch_size": 4, "pretraining": "none", **own})
    for option in fields(Recipe):
        assert getattr(baseline, option.name) == getattr(config, option.name), option.name
    module, work = registry.load(method), job(tmp_path)
    network = baseline.backbone.make(TASK, 0.5)
    nn.init.normal_(network.classifier.linear_head.weight)
    theirs = module.objective(
        network, module.loss(baseline), config=baseline, copies=baseline.copies, job=work
    )
    ours = finetune.Objective(network.classifier, config.finetuning, 0.5, work)
    assert ours.forwards == theirs.forwards
    gradients = []
    for objective in (ours, theirs):
        loss = objective.loss(Loader(work, 8).batch(0))
        gradients.append((loss, *torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)))
    assert all(map(torch.equal, *gradients))
    assert {group["lr"] for group in ours.parameter_groups(0.1)} == {0.1}


def test_seeing_all_patches_is_the_encoders_own_forward_pass():
    torch.manual_seed(0)
    encoder = Encoder(configured().sizes)
    x, t = torch.rand(3, 1, 8, 8), torch.full((3,), 0.7)
    everything = torch.arange(4).expand(3, -1)
    torch.testing.assert_close(encoder.tokens(x, t, everything), encoder.tokens(x, t))
    hidden = encoder.tokens(x, t, everything[:, :1])
    changed = x.clone()
    changed[:, :, 4:, 4:] = 0  # the last patch, which is not seen
    assert torch.equal(encoder.tokens(changed, t, everything[:, :1]), hidden)


def test_patches_are_those_of_the_projection():
    torch.manual_seed(0)
    x, projection = torch.rand(2, 3, 8, 8), nn.Conv2d(3, 5, 4, 4)
    expected = projection(x).flatten(2).transpose(1, 2)
    found = patches_of(x, 4) @ projection.weight.flatten(1).T + projection.bias
    torch.testing.assert_close(found, expected)


def test_blocks_computed_again_in_the_backward_pass_change_nothing_but_the_calls(tmp_path):
    gradients, calls = [], []
    for again in (False, True):
        torch.manual_seed(0)
        objective = MaskedObjective(
            Encoder(replace(configured("masked").sizes, checkpoint_blocks=again)), TASK
        )
        counted = []
        objective.network.blocks[0].register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        objective.loss(Loader(job(tmp_path), 8).batch(0)).backward()
        calls.append(len(counted))
        gradients.append([one.grad for one in objective.network.blocks.parameters()])
    assert calls == [1, 2]
    assert all(map(torch.equal, *gradients))


def test_a_quarter_of_the_patches_is_seen_and_everything_is_trained(tmp_path, monkeypatch):
    torch.manual_seed(0)
    objective, seen = MaskedObjective(Encoder(configured("masked").sizes), TASK), []
    real = objective.network.tokens
    monkeypatch.setattr(objective.network, "tokens", lambda *args: seen.append(args[2]) or real(*args))
    objective.loss(Loader(job(tmp_path), 8).batch(0)).backward()
    assert [one.shape for one in seen] == [(8, 1)]
    trained = [one for group in objective.parameter_groups(0.1) for one in group["params"]]
    named = {
        name: value
        for name, value in objective.network.named_parameters()
        if not name.startswith("projection_head")
    } | {f"decoder.{name}": value for name, value in objective.decoder.named_parameters()}
    assert all(any(value is one for one in trained) for value in named.values())
    assert all(value.grad is not None for value in named.values())


@pytest.mark.parametrize(
    ("kind", "forwards"), [("rrcm", 12), ("contrastive", 8), ("masked", 3 * (3 / 6 + 1 / 4))]
)
def test_forward_equivalents_are_the_hand_count_and_are_added_up_in_the_checkpoint(tmp_path, kind, forwards):
    config, work = configured(kind), job(tmp_path)
    encoder = Encoder(config.sizes)
    assert pretrain.objective(encoder, config.of_pretraining, TASK).forwards == pytest.approx(forwards)
    model.train(config, work)
    _, metadata = load_checkpoint(work.folder / model.checkpoint_name(config))
    found, images = work_of(metadata["training"]), 2 * 8
    assert found.images_seen == 2 * images
    assert found.shared == round(images * forwards)
    assert found.forward_equivalents == found.shared + images * 2 * 3
    classifier = model.build(config, None)
    assert found.parameters == sum(value.numel() for value in classifier.parameters())


def forwards_of(method, config):
    """Return the forward passes of a training, counted from its configuration by hand."""
    if method == "rrcm":
        per_image = {"rrcm": 12, "contrastive": 8, "masked": 3 * (6 / 18 + 1 / 16), "none": 0}[
            config.pretraining
        ]
        return config.pretrain_steps * 256 * per_image + config.max_steps * 64 * 2 * 3
    return config.max_steps * config.batch_size * config.copies * 3


@pytest.mark.parametrize(
    ("method", "kind"),
    [("gaussian", ""), ("consistency", ""), *(("rrcm", kind) for kind in presets.KINDS)],
)
def test_every_row_of_the_study_has_one_encoder_and_equal_work(method, kind):
    options = load_preset("fashion-encoder").options[method] | ({"pretraining": kind} if kind else {})
    task = Task(dataset="fashion-mnist", channels=1, image_size=28, num_classes=10)
    config = registry.configure(method, task, 1.0, options)
    assert forwards_of(method, config) == pytest.approx(2e6, rel=1e-3)
    own = registry.configure("rrcm", task, 1.0, {})
    shapes = [
        (name.removeprefix("classifier."), value.shape)
        for name, value in model.build(own, None).state_dict().items()
    ]
    if method == "rrcm":
        assert config.sizes == own.sizes
    else:
        network = config.backbone.make(task, 1.0)
        assert [
            (name.removeprefix("classifier."), value.shape) for name, value in network.state_dict().items()
        ] == shapes


def test_the_linear_stage_sees_clean_images_at_the_smallest_time(tmp_path, monkeypatch):
    config = configured()
    torch.manual_seed(0)
    classifier = model.build(config, None).requires_grad_(False)
    classifier.linear_head.requires_grad_(True)
    work, seen, forward = job(tmp_path), [], classifier.base_model.forward
    monkeypatch.setattr(
        classifier.base_model, "forward", lambda x, t, **how: seen.append((x, t)) or forward(x, t, **how)
    )
    recipe = replace(config.finetuning, augmentation="none")
    batch = Loader(work, 8).batch(0)
    loss = finetune.LinearObjective(classifier, recipe, 0.5, work).loss(batch)
    ((x, t),) = seen
    assert torch.equal(x, 2 * batch.x - 1)
    assert t.tolist() == pytest.approx([0.002] * 8)
    p = classifier(batch.x, 0.001).softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(loss, nn.functional.nll_loss(p.log(), batch.labels) + 0.5 * entropy)


SMALL = Task(dataset="mnist5k", channels=1, image_size=28, num_classes=10)
NOISY = ("gaussian", "consistency", "smoothadv", "macer")


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_small_recipes_have_one_schedule_equal_looks_equal_work_and_one_lambda(sigma):
    names = (*NOISY, "rrcm", "dds", "consistency-model")
    configs = {name: registry.configure(name, SMALL, sigma, {}) for name in names}
    for config in configs.values():
        looks = math.ceil(config.max_steps / config.look_every)
        assert (config.schedule, looks, config.patience) == ("cosine", 10, 10)
    assert configs["rrcm"].weight == configs["consistency"].agreement
    work = {name: forwards_of(name, configs[name]) for name in NOISY}
    work["smoothadv"] *= 1 + configs["smoothadv"].attack_steps
    work["rrcm"] = configs["rrcm"].max_steps * 64 * 2 * 3
    assert max(work.values()) < 1.001 * min(work.values())


def test_the_work_asked_for_is_done_whatever_else_is_given_and_not_beside_steps_or_epochs():
    for changes in (
        {},
        {"batch_size": 128},
        {"copies": 4},
        {"pretrain_batch_size": 64},
        {"pretraining": "masked", "patch_size": 14},
    ):
        config = registry.configure("rrcm", SMALL, 1.0, {"forwards": 8_000_000, **changes})
        each = pretrain.forwards_per_image(config.of_pretraining, config.sizes)
        before = config.pretrain_steps * config.pretrain_batch_size * each
        work = before + config.max_steps * config.batch_size * config.copies * 3
        assert work == pytest.approx(8e6, rel=1e-2), changes
    with pytest.raises(UsageError, match=r"rrcm\.forwards stands for rrcm\.max_steps: give one of them"):
        registry.configure("rrcm", SMALL, 1.0, {"forwards": 8_000_000, "max_steps": 3})
    task = Task(dataset="cifar10", channels=3, image_size=32, num_classes=10)
    with pytest.raises(UsageError, match="the recipe counts 100 epochs"):
        registry.configure("rrcm", task, 0.5, {"forwards": 8_000_000, "recipe": "cifar10"})


@pytest.mark.parametrize(
    ("stage", "changes"), [("finetune", {"layernorm": False}), ("pretrain", {"num_heads": 1})]
)
def test_a_training_of_another_network_is_not_taken_for_this_one_though_the_weights_start_alike(
    tmp_path, stage, changes
):
    method, options, work = registry.load("rrcm"), OPTIONS["rrcm"], job(tmp_path)
    name = {"finetune": "rrcm_sigma_0.5", "pretrain": "rrcm_pretrained"}[stage] + ".safetensors"
    method.train(registry.configure("rrcm", TASK, 0.5, options), work)
    before, _ = load_checkpoint(work.folder / name)
    other = registry.configure("rrcm", TASK, 0.5, {**options, **changes, "stage": stage})
    method.train(other, replace(work, again=True))
    after, metadata = load_checkpoint(work.folder / name)
    assert {key: metadata["config"][key] for key in changes} == changes
    assert not all(torch.equal(before[key], after[key]) for key in before)
