"""Fine-tuning with mixed images: closed forms of mixup and cutmix, seeding, resuming."""

import dataclasses
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.data import create_transform
from timm.data.auto_augment import rand_augment_transform
from torchvision import transforms

from bench.errors import UsageError
from bench.methods import registry
from bench.training.loop import fit
from rrcm import views
from rrcm.encoder import Encoder
from rrcm.finetune import Objective, Recipe
from rrcm.heads import Classifier
from rrcm.mixing import mix, soft_labels
from rrcm.views import AREAS, POLICY, finetuning_view, randaugment_options, timm_view
from tests.support.tiny import OPTIONS, TASK, job

ONE_HOT = F.one_hot(torch.tensor([0, 1])).float()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blank_and_full(side=8):
    return torch.stack([torch.zeros(1, side, side), torch.ones(1, side, side)])


def test_smoothing_keeps_a_distribution_with_its_mode_on_the_label():
    targets = soft_labels(torch.tensor([2, 0]), 4, 0.1)
    torch.testing.assert_close(
        targets, torch.tensor([[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]])
    )


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_label_shares_are_pixel_shares(mixup, cutmix):
    for seed in range(20):
        x, targets = mix(blank_and_full(), ONE_HOT, generator(seed), mixup=mixup, cutmix=cutmix)
        torch.testing.assert_close(x.mean(dim=(1, 2, 3)), targets[:, 1])
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(2))


def test_mixup_blends_and_cutmix_pastes():
    blended, _ = mix(blank_and_full(), ONE_HOT, generator(), mixup=0.8, cutmix=0.0)
    assert len(blended[0].unique()) == 1
    assert 0 < blended[0, 0, 0, 0] < 1
    pasted = [mix(blank_and_full(), ONE_HOT, generator(seed), mixup=0.0, cutmix=1.0)[0] for seed in range(20)]
    assert {float(value) for x in pasted for value in x.unique()} == {0.0, 1.0}


def test_crops_keep_the_range_and_flips_alone_keep_the_pixels():
    x = torch.rand(64, 3, 8, 8, generator=generator())
    flipped = finetuning_view(x, TASK, "flip", generator())
    same = (flipped - x).flatten(1).abs().amax(1) < 1e-5
    mirrored = (flipped - x.flip(3)).flatten(1).abs().amax(1) < 1e-5
    assert bool((same ^ mirrored).all())
    assert 0 < same.sum() < 64  # all alike has probability 2^-63
    crop = finetuning_view(x, TASK, "crop-flip", generator())
    assert 0 <= crop.min() <= crop.max() <= 1
    ramp = torch.linspace(0, 1, 64).expand(200, 3, 64, 64)
    spans = finetuning_view(ramp, TASK, "crop-flip", generator())
    widths = spans[:, 0, 32].amax(1) - spans[:, 0, 32].amin(1)
    assert widths.min() > 0.4**0.5 * 0.75**0.5 - 0.05


def test_the_timm_view_is_made_of_the_parts_of_timms_training_transform(monkeypatch):
    transform = create_transform(
        64, is_training=True, auto_augment=POLICY, interpolation="bicubic"
    ).transforms
    assert [type(one).__name__ for one in transform[:3]] == [
        "RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "RandAugment",
    ]  # fmt: skip
    crop, changes = transform[0], transform[2]
    assert (tuple(crop.scale), crop.interpolation) == (AREAS["timm"], transforms.InterpolationMode.BICUBIC)
    ours = rand_augment_transform(POLICY, randaugment_options(64))
    assert [(one.name, one.magnitude, one.prob, one.kwargs) for one in ours.ops] == [
        (one.name, one.magnitude, one.prob, one.kwargs) for one in changes.ops
    ]
    assert [one.hparams for one in ours.ops] == [one.hparams for one in changes.ops]
    done = []
    for name in ("random_resized_crop", "random_flip"):
        monkeypatch.setattr(views, name, lambda x, generator, name=name, **how: done.append((name, how)) or x)
    timm_view(np.zeros((3, 8, 8), np.uint8), 0)
    assert done == [
        ("random_resized_crop", {"area": (0.08, 1.0), "interpolation": "bicubic"}),
        ("random_flip", {}),
    ]


def test_fine_tuning_trains_the_patch_projection_that_pre_training_left(tmp_path):
    config = registry.configure(
        "rrcm", TASK, 0.5, OPTIONS["rrcm"] | {"stop_grad_conv1": True, "layer_decay": 0.75}
    )
    encoder = Encoder(config.sizes)
    assert not encoder.patch_embed.proj.weight.requires_grad
    groups = Objective(Classifier(encoder, 2), config.finetuning, 0.5, job(tmp_path)).parameter_groups(1.0)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert rates[id(encoder.patch_embed.proj.weight)] == pytest.approx(0.75**2)


def test_timms_view_depends_on_the_seed_alone_and_puts_other_generators_back():
    image = np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8)
    random.seed(3)
    expected = random.random()
    random.seed(3)
    first = timm_view(image, 1)
    assert random.random() == expected
    assert np.array_equal(first, timm_view(image, 1))
    assert not np.array_equal(first, timm_view(image, 2))
    assert (first.shape, first.dtype) == (image.shape, image.dtype)


def test_timms_view_is_what_fine_tuning_has_its_images_prepared_by(tmp_path):
    recipe = Recipe(augmentation="timm")
    network = Classifier(Encoder(registry.configure("rrcm", TASK, 0.5, OPTIONS["rrcm"]).sizes), 2)
    grey = job(tmp_path, held_out_indices=torch.arange(0))
    colour = dataclasses.replace(grey.split, task=dataclasses.replace(TASK, channels=3))
    coloured = dataclasses.replace(grey, split=colour)
    assert Objective(network, recipe, 0.5, coloured).prepare is timm_view
    assert Objective(network, Recipe(), 0.5, coloured).prepare is None
    with pytest.raises(UsageError, match="needs 3 channels, got 1"):
        Objective(network, recipe, 0.5, grey)


@pytest.mark.parametrize("wrong", [{"mixup": -1.0}, {"cutmix": -0.1}, {"label_smoothing": 1.0}])
def test_shares_that_are_none_are_refused(wrong):
    with pytest.raises(UsageError, match="must be >= 0, and label_smoothing"):
        Recipe(**wrong)


RECIPE = Recipe(
    max_steps=5, batch_size=8, evaluate_every=2, warmup_steps=1, mixup=0.8, cutmix=1.0, label_smoothing=0.1
)


def objective(work):
    torch.manual_seed(0)
    sizes = registry.configure("rrcm", TASK, 0.5, OPTIONS["rrcm"]).sizes
    return Objective(Classifier(Encoder(sizes), 2), RECIPE, 0.5, work)


def weights(fitted):
    return torch.cat([value.flatten() for value in fitted.network.state_dict().values()])


def test_killed_and_resumed_mixing_ends_with_the_same_weights(tmp_path):
    whole = job(tmp_path / "whole")
    expected = fit("stage", objective(whole), RECIPE, whole)

    def stop_at_step_3(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    parts = job(tmp_path / "parts", report=stop_at_step_3)
    with pytest.raises(KeyboardInterrupt):
        fit("stage", objective(parts), RECIPE, parts)
    parts = dataclasses.replace(parts, report=lambda progress: None)
    assert torch.equal(weights(fit("stage", objective(parts), RECIPE, parts)), weights(expected))


def test_learning_rates_fall_by_the_layer_from_the_head_to_the_embeddings(tmp_path):
    config = registry.configure("rrcm", TASK, 0.5, OPTIONS["rrcm"] | {"depth": 2, "layer_decay": 0.5})
    classifier = Classifier(Encoder(config.sizes), TASK.num_classes, layernorm=True)
    groups = Objective(classifier, config.finetuning, 0.5, job(tmp_path)).parameter_groups(1.0)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    named = {name: rates[id(parameter)] for name, parameter in classifier.named_parameters()}
    assert len(rates) == len(named)
    for start, rate in (
        ("linear_head.", 1.0),
        ("base_model.blocks.1.", 0.5),
        ("base_model.blocks.0.", 0.25),
        ("base_model.patch_embed.", 0.125),
        ("base_model.cls_token", 0.125),
    ):
        assert {named[name] for name in named if name.startswith(start)} == {rate}, start
