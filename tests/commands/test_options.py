"""What the options of a command resolve to: a preset's options, those named on the command line, those given singly."""

import pytest

from bench.commands.options import resolve
from bench.errors import UsageError
from bench.methods import registry
from bench.types import Task
from rrcm import presets

GREY = Task(dataset="fashion-mnist", channels=1, image_size=28, num_classes=10)


def resolved(method, *changes, sigma=0.5, preset="fashion-mnist", **given):
    config = resolve(preset, {"methods": method, "changes": changes, **given})
    return registry.configure(method, GREY, sigma, config.options.get(method, {}))


@pytest.mark.parametrize("method", ["gaussian", "consistency"])
def test_a_recipe_named_by_the_user_is_the_published_one_whatever_the_preset_says(method):
    config = resolved(method, f"{method}.recipe=mnist", backbone="lenet")
    assert config == registry.configure(method, GREY, 0.5, {"recipe": "mnist", "backbone": "lenet"})
    assert (config.schedule, config.max_steps, config.epochs) == ("drops", 1000, 90)


def test_options_beside_the_recipe_still_win_wherever_they_stand():
    config = resolved(
        "gaussian", "gaussian.batch_size=7", "gaussian.recipe=mnist", "gaussian.precision=float16"
    )
    assert (config.batch_size, config.precision, config.schedule) == (7, "float16", "drops")


def test_a_named_part_of_rrcm_drops_the_presets_options_of_that_part_alone():
    config = resolved("rrcm", "rrcm.pretrain_recipe=rrcm-b-cifar10")
    assert (config.max_steps, config.schedule) == (1380, "cosine")
    config = resolved("rrcm", "rrcm.recipe=cifar10")
    assert config.schedule == presets.FINETUNING["cifar10", 0.5].schedule
    assert (config.max_steps, config.pretrain_steps) == (1000, 500)


def test_the_presets_options_stay_where_no_recipe_is_named():
    config = resolved("gaussian", "gaussian.batch_size=7")
    assert (config.max_steps, config.batch_size) == (1380, 7)


@pytest.mark.parametrize("method", ["rrcm", "gaussian", "consistency", "smoothadv", "macer"])
def test_the_names_that_stand_for_others_are_options_and_do_not_stand_for_each_other(method):
    named = registry.load(method).NAMED_OPTIONS
    config = registry.configure(method, GREY, 0.5, {})
    assert all(hasattr(config, name) for name in named)
    assert not any(set(named) & others for others in named.values())
    assert not {"task", "sigma", "backbone", "stage"} & {name for others in named.values() for name in others}


@pytest.mark.parametrize("option", registry.COUNTED)
def test_steps_beside_a_recipe_of_epochs_are_refused(option):
    with pytest.raises(
        UsageError, match=rf"gaussian\.{option} is given, but the recipe counts 90 epochs: set"
    ):
        resolved("gaussian", "gaussian.recipe=mnist", f"gaussian.{option}=10")
    changes = ("gaussian.recipe=mnist", f"gaussian.{option}=10", "gaussian.epochs=0")
    assert getattr(resolved("gaussian", *changes), option) == 10
