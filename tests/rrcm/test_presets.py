"""Named presets: sizes by a hand count, recipes in steps, names as a base for single options."""

from dataclasses import replace

import pytest
import torch

from bench.errors import UsageError
from bench.methods import registry
from bench.methods.sizes import measure
from bench.training.loop import rate_scale
from bench.types import Task
from rrcm import presets
from rrcm.encoder import Encoder
from rrcm.finetune import in_steps
from rrcm.model import Config, expand, networks

CIFAR10 = Task(dataset="cifar10", channels=3, image_size=32, num_classes=10)


def hand_count(name):
    """Return parameters of encoder, projector and head, and operations per image, from the sizes alone."""
    preset = presets.ENCODERS[name]
    sizes, task = preset.options, preset.task
    width, hidden, out, depth = sizes.embed_dim, sizes.hidden_dim, sizes.output_dim, sizes.depth
    patch_values = task.channels * sizes.patch_size**2
    patches = (task.image_size // sizes.patch_size) ** 2
    tokens = patches + 2
    norm = 2 * width
    attention = 3 * width * width + width * width + width
    mlp = width * 4 * width + 4 * width + 4 * width * width + width
    encoder = (
        width + tokens * width + patch_values * width + width + depth * (2 * norm + attention + mlp) + norm
    )
    projector = width * hidden + hidden * hidden + hidden * out + 2 * 2 * hidden
    head = (width + 1) * task.num_classes
    products = tokens * 12 * width * width + 2 * tokens * tokens * width
    flops = 2 * (patches * patch_values * width + depth * products + width * task.num_classes)
    return encoder, projector, head, flops


@pytest.fixture(scope="module")
def sizes():
    return {network.name: measure(network) for network in networks()}


@pytest.mark.parametrize("name", presets.ENCODERS)
def test_parameters_and_operations_equal_the_hand_count(sizes, name):
    size = sizes[name]
    assert (size.body, size.projector, size.head, size.flops) == hand_count(name)


def test_published_sizes_are_those_of_the_paper(sizes):
    assert [
        sizes[name].body // 10**6 for name in ("rrcm-b-cifar10", "rrcm-s-imagenet", "rrcm-b-imagenet")
    ] == [
        85,
        19,
        85,
    ]


def test_named_encoder_is_a_base_that_single_options_override():
    config = registry.configure("rrcm", CIFAR10, 0.5, {"encoder": "rrcm-b-cifar10", "depth": "3"})
    assert (config.embed_dim, config.num_heads, config.depth, config.layernorm) == (768, 12, 3, False)


def test_default_names_change_nothing():
    config = Config(task=CIFAR10, sigma=0.5)
    assert expand(config) == config


def test_recipes_by_name_follow_sigma_and_can_be_overridden():
    options = {"recipe": "cifar10", "pretrain_recipe": "rrcm-b-cifar10", "epochs": "7"}
    at = {sigma: registry.configure("rrcm", CIFAR10, sigma, options) for sigma in (0.25, 1.0)}
    assert [at[sigma].weight for sigma in at] == [10.0, 20.0]
    assert [at[sigma].layer_decay for sigma in at] == [0.75, 0.65]
    assert at[1.0].epochs == 7
    assert at[1.0].of_pretraining == presets.PRETRAINING["rrcm-b-cifar10"]


def test_recipe_at_an_unpublished_sigma_is_refused():
    with pytest.raises(UsageError, match=r"published at sigma 0.25, 0.5, 1, not at 0.12"):
        registry.configure("rrcm", CIFAR10, 0.12, {"recipe": "cifar10"})


def test_unknown_encoder_names_the_known_ones():
    with pytest.raises(UsageError, match="encoder is 'vit', expected one of rrcm-mnist, rrcm-b-cifar10"):
        registry.configure("rrcm", CIFAR10, 0.5, {"encoder": "vit"})


def test_epochs_become_steps_and_the_rate_that_of_the_batch():
    recipe = in_steps(presets.FINETUNING["imagenet", 0.5], 10_000)
    assert (recipe.max_steps, recipe.warmup_steps, recipe.cosine_steps) == (50 * 4, 5 * 4, 150 * 4)
    assert recipe.learning_rate == pytest.approx(2e-4 * 8)
    assert (recipe.evaluate_every, recipe.patience) == (4, 50)
    assert in_steps(recipe, 10_000).learning_rate == recipe.learning_rate


def test_rate_is_held_for_an_epoch_and_the_first_has_none():
    recipe = in_steps(presets.FINETUNING["cifar10", 0.5], 3 * 1024)
    assert [rate_scale(step, recipe) for step in range(5)] == [0, 0, 0, 0.1, 0.1]
    assert rate_scale(3 * 55 + 2, recipe) == pytest.approx(0.5)


def test_a_cosine_longer_than_the_training_ends_above_zero():
    recipe = in_steps(presets.FINETUNING["imagenet", 0.5], 2048)
    assert rate_scale(49, recipe) > 0.7
    assert rate_scale(149, recipe) == pytest.approx(0, abs=1e-3)
    assert rate_scale(500, recipe) == 0


def test_frozen_start_is_chosen_with_the_imagenet_sizes():
    config = replace(expand(Config(task=CIFAR10, sigma=0.5, encoder="rrcm-s-imagenet")), depth=1).sizes
    with torch.device("meta"):
        assert not Encoder(config).patch_embed.proj.weight.requires_grad
