"""The classifier of clean images: trained as the method's recipe says, over a length of its own."""

import csv

import pytest

from baselines.purifiers.denoised import classifier_recipe
from bench.methods import registry
from bench.training.recipes import Recipe, rate_scale
from tests.support.tiny import OPTIONS, TASK, job


@pytest.mark.parametrize("method", ["dds", "consistency-model"])
def test_the_classifier_follows_the_methods_schedule_over_its_own_steps(tmp_path, method):
    schedule = {"schedule": "cosine", "warmup_steps": 0, "evaluate_every": 2, "precision": "bfloat16"}
    options = {**OPTIONS[method], **schedule, "classifier_max_steps": 4}
    registry.load(method).train(registry.configure(method, TASK, 0.5, options), job(tmp_path))
    (curve,) = (tmp_path / "state").glob("*classifier*.csv")
    looks = list(csv.DictReader(curve.read_text().splitlines()))
    assert [int(look["step"]) for look in looks] == [2, 4]
    expected = Recipe(max_steps=4, schedule="cosine", warmup_steps=0)
    rates = [float(look["learning_rate"]) for look in looks]
    assert rates == pytest.approx([expected.learning_rate * rate_scale(step, expected) for step in (1, 3)])


def test_the_classifiers_recipe_is_the_methods_but_for_its_length():
    config = registry.configure("dds", TASK, 0.5, {"patience": 3, "precision": "bfloat16", "cosine_steps": 9})
    recipe = classifier_recipe(config, 5)
    assert (recipe.max_steps, recipe.cosine_steps) == (5, 0)
    assert (recipe.patience, recipe.precision, recipe.ema_decay) == (3, "bfloat16", config.ema_decay)
