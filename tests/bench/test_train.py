"""The training loop: resuming, averaging, schedules, seeding."""

import dataclasses

import pytest
import torch
from torch import nn

from bench import curves
from bench.batches import training_batch
from bench.errors import CheckpointError, NumericalError
from bench.train import Recipe, Supervised, fit, noisy_accuracy, rate_scale, update_average
from tests.tiny import job

RECIPE = Recipe(max_steps=7, batch_size=8, evaluate_every=2, warmup_steps=1)


class Objective(Supervised):
    """A linear classifier of clean tiny images, whose batch norm makes buffers part of the state."""

    def __init__(self, work, scores=()):
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2)))
        self.images, self.labels = work.held_out()
        self.scores = list(scores)

    def loss(self, batch):
        noise = 0.1 * torch.randn(batch.x.shape, generator=batch.generator)
        return nn.functional.cross_entropy(self.network(batch.x + noise), batch.labels)

    def score(self, average):
        return self.scores.pop(0) if self.scores else noisy_accuracy(average, self.images, self.labels, 0.5)


def weights(fitted):
    return torch.cat([value.flatten().double() for value in fitted.network.state_dict().values()])


def test_killed_and_resumed_training_ends_with_the_same_weights(tmp_path):
    whole = job(tmp_path / "whole")
    expected = fit(
        "stage", Objective(whole, [0.1, 0.2, 0.3, 0.4]), RECIPE, whole
    )  # the last weights are kept

    def stop_at_step_5(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    parts = job(tmp_path / "parts", report=stop_at_step_5)
    with pytest.raises(KeyboardInterrupt):
        fit("stage", Objective(parts, [0.1, 0.2]), RECIPE, parts)
    resumed = fit(
        "stage",
        Objective(parts, [0.3, 0.4]),
        RECIPE,
        dataclasses.replace(parts, report=lambda progress: None),
    )
    assert torch.equal(weights(resumed), weights(expected))
    assert resumed.steps == 7
    assert without_seconds(parts) == without_seconds(whole)


def without_seconds(work):
    return [dataclasses.replace(look, seconds=0.0) for look in curves.read(work.workspace / "stage.csv")]


def test_training_stops_when_the_score_stops_rising_and_keeps_the_best(tmp_path):
    work = job(tmp_path)
    recipe = dataclasses.replace(RECIPE, max_steps=100, patience=2)
    best = fit("best", Objective(work), dataclasses.replace(recipe, max_steps=4), work)
    fitted = fit("stage", Objective(work, [0.5, 0.9, 0.9, 0.8, 1.0]), recipe, work)
    assert (fitted.steps, fitted.score) == (8, 0.9)
    assert torch.equal(weights(fitted), weights(best))


def test_steps_before_clip_from_are_not_clipped(tmp_path):
    recipe = dataclasses.replace(RECIPE, max_steps=3, clip=0.0)
    free, later, clipped = (
        weights(fit("stage", Objective(work), dataclasses.replace(recipe, **changes), work))
        for changes, work in (
            ({}, job(tmp_path / "free")),
            ({"clip": 1e-6, "clip_from": 3}, job(tmp_path / "later")),
            ({"clip": 1e-6, "clip_from": 2}, job(tmp_path / "clipped")),
        )
    )
    assert torch.equal(free, later)
    assert not torch.equal(free, clipped)


def test_max_seconds_ends_a_stage_at_once(tmp_path):
    work = job(tmp_path, max_seconds=0.0)
    assert fit("stage", Objective(work), RECIPE, work).steps == 0


def test_loss_that_is_not_finite_names_its_step(tmp_path):
    work = job(tmp_path)
    objective = Objective(work)
    objective.network[2].weight.data.fill_(torch.nan)
    with pytest.raises(NumericalError, match="loss of stage is nan at step 0"):
        fit("stage", objective, RECIPE, work)


@pytest.mark.parametrize("content", [b"", b"not a state"])
def test_state_that_cannot_be_continued_is_refused(tmp_path, content):
    work = job(tmp_path)
    work.workspace.mkdir()
    (work.workspace / "stage.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="does not continue this training"):
        fit("stage", Objective(work), RECIPE, work)


def test_an_epoch_shows_each_image_once_in_another_order(tmp_path):
    work = job(tmp_path)
    epochs = [[training_batch(work, 4, 4 * epoch + step).x for step in range(4)] for epoch in range(2)]
    first, second = (torch.cat(batches).flatten(1) for batches in epochs)
    assert not torch.equal(first, second)
    for epoch in (first, second):
        assert torch.equal(epoch.sum(1).sort().values, first.sum(1).sort().values)
        assert len(torch.unique(epoch, dim=0)) == 16


def test_average_moves_parameters_and_copies_buffers():
    average, network = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    network.weight.data.fill_(2.0)
    network.running_mean.fill_(3.0)
    update_average(average.requires_grad_(False), network, 0.75)
    assert float(average.weight) == pytest.approx(0.75 * 1 + 0.25 * 2)
    assert float(average.running_mean) == 3.0


def test_learning_rate_warms_up_then_stays_or_follows_half_a_cosine():
    constant = Recipe(max_steps=110, warmup_steps=10)
    cosine = dataclasses.replace(constant, schedule="cosine")
    assert [rate_scale(step, constant) for step in (0, 4, 9, 10, 109)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [rate_scale(step, cosine) for step in (9, 10, 60, 110)] == pytest.approx([1, 1, 0.5, 0])
