"""LeNet by a hand count, and published recipes: names as a base, epochs in steps, SGD with drops."""

from dataclasses import replace

import pytest
import torch

from baselines import gaussian
from baselines.networks.lenet import lenet
from baselines.noisy import recipes
from baselines.noisy.classifier import in_steps
from bench.errors import UsageError
from bench.methods import registry
from bench.methods.sizes import measure
from bench.training.checkpoints import load_checkpoint
from bench.training.loop import rate_scale
from bench.types import Task
from tests.support.tiny import TASK, job

MNIST = Task(dataset="mnist", channels=1, image_size=28, num_classes=10)


def configure(method, sigma=0.5, **options):
    return registry.configure(method, MNIST, sigma, options)


def test_lenet_equals_the_hand_count():
    size = measure(next(gaussian.METHOD.networks()))
    assert size.name == "lenet"
    convolutions = 20 * (5 * 5 + 1) + 50 * (20 * 5 * 5 + 1)
    assert (size.body, size.head) == (convolutions + (50 * 4 * 4 + 1) * 500, 501 * 10)
    products = 20 * 25 * 24 * 24 + 50 * 20 * 25 * 8 * 8 + 800 * 500 + 500 * 10
    assert size.flops == 2 * products


def test_lenet_has_the_names_of_released_checkpoints_and_no_normalisation():
    network = lenet(MNIST)
    assert list(network.state_dict())[::2] == [
        f"1.{layer}.weight" for layer in ("conv1", "conv2", "fc1", "fc2")
    ]
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(network(x), network[1](x))


def test_lenet_of_another_image_size_is_refused():
    with pytest.raises(UsageError, match="lenet takes images of 28x28, got 8x8; use resnet"):
        lenet(TASK)


def test_recipe_by_name_is_a_base_that_single_options_override():
    config = configure("consistency", recipe="cifar10", sigma=0.25, batch_size="7")
    assert (config.optimizer, config.learning_rate, config.epochs, config.weight) == ("sgd", 0.1, 150, 20.0)
    assert config.batch_size == 7


def test_the_default_recipe_changes_nothing():
    config = gaussian.Config(task=MNIST, sigma=0.5)
    assert gaussian.METHOD.expand(config) == config


@pytest.mark.parametrize("key", recipes.RECIPES, ids=lambda key: f"{key[0]}-{key[1]}-{key[2]:g}")
def test_every_recipe_names_options_of_its_method_and_a_backbone(key):
    method, name, sigma = key
    published = recipes.RECIPES[key]
    config = configure(method, recipe=name, sigma=sigma, backbone=published.backbone)
    assert {option: getattr(config, option) for option in published.options} == published.options
    assert config.backbone.name == published.backbone


def test_recipe_that_is_not_published_is_refused():
    with pytest.raises(
        UsageError, match=r"macer has no published recipe 'imagenet' at sigma 0.5, only mnist at 0.25"
    ):
        configure("macer", recipe="imagenet")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("gaussian", "cifar10", 0.5), 90 * 3),
        (("consistency", "cifar10", 0.5), 150 * 2 * 3),
        (("smoothadv", "cifar10", 0.25), 150 * (8 * 10 * 3 + 8 * 3)),
        (("macer", "cifar10", 1.0), 440 * 16 * 3),
    ],
)
def test_forwards_of_a_recipe_equal_the_hand_count(key, expected):
    assert recipes.forwards(key[0], recipes.RECIPES[key]) == expected


def test_epochs_become_steps_and_the_rate_drops_to_a_tenth():
    config = in_steps(configure("gaussian", recipe="mnist"), 2560 + 5)
    assert (config.max_steps, config.drop_every, config.evaluate_every, config.patience) == (900, 300, 10, 90)
    rates = [rate_scale(step, config) for step in (0, 299, 300, 600, 899)]
    assert rates == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert in_steps(config, 10**6) == config


def test_options_that_count_epochs_become_steps():
    config = in_steps(configure("macer", recipe="mnist"), 2560, "weight_from")
    assert config.weight_from == 300


@pytest.mark.parametrize("method", ["gaussian", "smoothadv", "macer"])
def test_a_recipe_trains_by_sgd_for_its_epochs(tmp_path, method):
    module = registry.load(method)
    config = registry.configure(method, TASK, 0.5, {"recipe": "mnist", "epochs": 2, "batch_size": 8})
    if method != "gaussian":
        config = replace(config, copies=2)
    seen = []
    work = job(tmp_path, report=lambda progress: seen.append((progress.step, progress.max_steps)))
    module.train(config, work)
    assert seen[-1] == (4, 4)
    state = torch.load(tmp_path / "state" / f"{method}_sigma_0.5.pt", weights_only=True)
    assert state["optimizer"]["param_groups"][0]["momentum"] == 0.9


def test_without_held_out_images_the_last_weights_are_kept(tmp_path):
    config = registry.configure("gaussian", TASK, 0.5, {"recipe": "mnist", "epochs": 3, "batch_size": 8})
    work = job(tmp_path, train_indices=torch.arange(20), held_out_indices=torch.arange(0))
    registry.load("gaussian").train(config, work)
    tensors, metadata = load_checkpoint(tmp_path / "zoo" / "gaussian_sigma_0.5.safetensors")
    state = torch.load(tmp_path / "state" / "gaussian_sigma_0.5.pt", weights_only=True)
    assert all(torch.equal(value, state["network"][name]) for name, value in tensors.items())
    assert (metadata["training"]["held_out_images"], metadata["training"]["train_images"]) == (0, 20)


@pytest.mark.parametrize(
    ("key", "augmentation"), [("cifar10", "light"), ("imagenet", "resized-crop"), ("mnist", "none")]
)
def test_published_recipes_change_the_images_as_their_programs_do(key, augmentation):
    assert {
        recipe.recipe.augmentation for (_, name, _), recipe in recipes.RECIPES.items() if name == key
    } == {augmentation}


@pytest.mark.parametrize(
    ("key", "loaded"),
    [
        (("consistency", "cifar10"), 256),
        (("smoothadv", "cifar10"), 256),
        (("smoothadv", "mnist"), 256),
        (("consistency", "imagenet"), 200),
    ],
)
def test_a_step_sees_as_many_noisy_images_as_the_program_loads(key, loaded):
    found = {
        sigma: recipe for (method, name, sigma), recipe in recipes.RECIPES.items() if (method, name) == key
    }
    assert found
    for sigma, published in found.items():
        config = configure(key[0], recipe=key[1], sigma=sigma)
        assert config.batch_size * config.copies == loaded
        steps = in_steps(config, 50_000).max_steps
        assert steps == published.recipe.epochs * (50_000 // (loaded // config.copies))


def test_macers_batches_are_whole():
    assert {
        recipe.recipe.batch_size
        for (method, name, _), recipe in recipes.RECIPES.items()
        if (method, name) == ("macer", "cifar10")
    } == {64}
