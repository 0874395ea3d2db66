"""The presets of published protocols: each method resolves to its published recipe, and none is trained by another."""

from dataclasses import asdict

import pytest
import torch

from baselines.noisy.recipes import RECIPES, forwards
from bench.config.names import IMAGE_SHAPES, NUM_CLASSES
from bench.config.run import RunConfig, list_presets, load_preset
from bench.errors import CheckpointError, UsageError
from bench.methods import registry
from bench.methods.sizes import measure
from bench.runs import train, workbench
from bench.training.checkpoints import save_checkpoint
from bench.types import Task
from rrcm.presets import FINETUNING, PRETRAINING, PRETRAINING_FORWARDS
from tests.support.tiny import image_tree

CASES = [(name, sigma) for name in ("cifar10", "imagenet") for sigma in load_preset(name).sigmas]


def resolved(preset, method, sigma, **how):
    config = load_preset(preset)
    channels, side, _ = IMAGE_SHAPES[preset]
    task = Task(dataset=preset, channels=channels, image_size=side, num_classes=NUM_CLASSES[preset])
    return registry.configure(method, task, sigma, config.options[method], **how)


def holds(config, values):
    return {name: getattr(config, name) for name in values} == values


@pytest.mark.parametrize(("preset", "sigma"), CASES)
@pytest.mark.parametrize("method", ["gaussian", "consistency"])
def test_baselines_of_a_published_preset_have_their_published_recipe_at_each_sigma(preset, sigma, method):
    published = RECIPES.get((method, preset, sigma))
    if published is None:
        with pytest.raises(
            UsageError, match=r"no published recipe 'imagenet' at sigma 0.25, .* recipe=small"
        ):
            resolved(preset, method, sigma)
        return
    config = resolved(preset, method, sigma)
    assert holds(config, {**asdict(published.recipe), **published.options})
    assert config.backbone.name == published.backbone


def test_one_recipe_is_missing_and_its_preset_says_so():
    missing = [
        (method, *case)
        for method in ("gaussian", "consistency")
        for case in CASES
        if (method, *case) not in RECIPES
    ]
    assert missing == [("consistency", "imagenet", 0.25)]
    said = {preset.name: preset.description for preset in list_presets()}
    assert "consistency has none at sigma 0.25" in said["imagenet"]


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("method", ["smoothadv", "macer"])
def test_smoothadv_and_macer_have_their_recipes_on_cifar10(sigma, method):
    published = RECIPES[method, "cifar10", sigma]
    assert holds(resolved("cifar10", method, sigma), {**asdict(published.recipe), **published.options})


def test_costs_of_training_in_a_preset_follow_from_its_recipes():
    said = {preset.name: preset.cost for preset in list_presets()}
    flops = {network.name: measure(network).flops for network in registry.networks()}
    for method in ("smoothadv", "macer"):
        recipes = [RECIPES[method, "cifar10", sigma] for sigma in (0.25, 0.5, 1.0)]
        cost = sum(forwards(method, recipe) for recipe in recipes) * 49_000 * flops["cifar_resnet110"] / 1e18
        assert f"{method} {cost:.1f}" in said["cifar10"]
    for preset, encoder in (("cifar10", "rrcm-b-cifar10"), ("imagenet", "rrcm-s-imagenet")):
        recipe = PRETRAINING[encoder]
        cost = PRETRAINING_FORWARDS * recipe.max_steps * recipe.batch_size * flops[encoder] / 1e18
        assert f"rrcm {cost:.0f} of pre-training" in said[preset]


@pytest.mark.parametrize(("preset", "sigma"), CASES)
def test_rrcm_of_a_published_preset_has_the_papers_recipes_at_each_sigma(preset, sigma):
    config = resolved(preset, "rrcm", sigma)
    assert holds(config, asdict(FINETUNING[preset, sigma]))
    assert config.of_pretraining == PRETRAINING[config.encoder]


def test_a_checkpoint_from_elsewhere_needs_no_recipe():
    config = resolved("imagenet", "consistency", 0.25, trains=False)
    assert (config.backbone.name, config.recipe) == ("resnet50", "small")


def prepared(root, **changes):
    options = {"consistency": {"recipe": "imagenet"}}
    values = {
        "dataset": "folder",
        "data_dir": image_tree(root / "data"),
        "image_size": 8,
        "zoo": root / "zoo",
    }
    methods = ("gaussian", "consistency")
    config = RunConfig(**values, methods=methods, sigmas=(0.5, 0.25), options=options, **changes)
    return workbench.prepare(config)


def trained_by_need(root):
    setup = prepared(root)
    return train.train_missing(setup, workbench.enter_all(setup), "", None)


def test_nothing_is_trained_where_one_of_the_trainings_has_no_recipe(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(train, "train_method", lambda *args, **_: trained.append(args))
    with pytest.raises(UsageError, match=r"consistency has no published recipe 'imagenet' at sigma 0\.25"):
        trained_by_need(tmp_path)
    assert not trained


def put(root, method, sigma, recipe):
    """Put a checkpoint that says which recipe it was trained by into the zoo, and return it."""
    path = root / "zoo" / "folder" / f"{method}_sigma_{sigma}.safetensors"
    save_checkpoint(path, {"a": torch.zeros(1)}, config={}, training={"options": {"recipe": recipe}})
    return path


def test_checkpoints_that_are_there_are_taken_where_their_recipe_is_not_published(tmp_path):
    for sigma in ("0.25", "0.5"):
        put(tmp_path, "gaussian", sigma, "small")
    put(tmp_path, "consistency", "0.5", "imagenet")
    single = put(tmp_path, "consistency", "0.25", "small")
    assert trained_by_need(tmp_path)["consistency", 0.25].checkpoint == single


def test_a_checkpoint_of_another_recipe_is_refused_where_one_is_published(tmp_path):
    put(tmp_path, "consistency", "0.5", "small")
    with pytest.raises(CheckpointError, match="trained with recipe small, not imagenet"):
        workbench.entrant(prepared(tmp_path), "consistency", 0.5)
