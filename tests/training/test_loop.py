"""The training loop: resuming, averaging, schedules, seeding."""

import contextlib
import dataclasses
import itertools

import pytest
import torch
from torch import nn

from bench.errors import CheckpointError, NumericalError, UsageError
from bench.smoothing.noise import seeded_initialisation
from bench.training import curves
from bench.training.loop import (
    Recipe,
    Supervised,
    fit,
    update_average,
)
from bench.training.provenance import provenance
from bench.training.recipes import average_decay, rate_scale
from bench.training.scores import noisy_accuracy
from tests.support.tiny import job, split

RECIPE = Recipe(max_steps=7, batch_size=8, evaluate_every=2, warmup_steps=1, schedule="constant")


INDICES = torch.arange(16)


class Objective(Supervised):
    """A linear classifier of clean tiny images, whose batch norm makes buffers part of the state."""

    def __init__(self, work, scores=(), features=64):
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(features), nn.Linear(features, 2)))
        self.images, self.labels = work.held_out()
        self.scores = list(scores)

    def loss(self, batch):
        noise = 0.1 * torch.randn(batch.x.shape, generator=batch.generator)
        return nn.functional.cross_entropy(self.network(batch.x + noise), batch.labels)

    def score(self, average):
        return self.scores.pop(0) if self.scores else noisy_accuracy(average, self.images, self.labels, 0.5)


class Rising(Objective):
    """Scored by the batches that its batch norm has seen, so that the last weights are the best."""

    def score(self, average):
        return float(average[1].num_batches_tracked)


class Faulty(Rising):
    """Its loss, or the gradient alone, is not finite at some steps."""

    def __init__(self, work, steps, kind="loss"):
        super().__init__(work)
        self.steps, self.kind = steps, kind

    def loss(self, batch):
        loss = super().loss(batch)
        if batch.step not in self.steps:
            return loss
        return loss * torch.nan if self.kind == "loss" else loss + (0 * loss).sqrt()


def weights(fitted):
    return torch.cat([value.flatten().double() for value in fitted.network.state_dict().values()])


def stopped_at(step, after_look=False):
    """Return a report that kills the training after `step` steps: at once, or after their look but before its save."""
    reports = []

    def report(progress):
        reports.append(progress.step)
        if reports.count(step) == 1 + after_look:
            raise KeyboardInterrupt

    return report


def killed_and_resumed(objective, recipe, work, *stop):
    with pytest.raises(KeyboardInterrupt):
        fit("stage", objective(work), recipe, dataclasses.replace(work, report=stopped_at(*stop)))
    return fit("stage", objective(work), recipe, work)


@pytest.mark.parametrize(
    ("stop", "every"),
    [((1,), None), ((5,), None), ((4, True), None), ((1,), 1), ((4,), 3), ((5,), 1), ((6,), 5)],
)
def test_killed_and_resumed_training_ends_with_the_same_weights_and_curves(tmp_path, stop, every):
    whole = job(tmp_path / "whole")
    expected = fit("stage", Rising(whole), RECIPE, whole)
    parts = job(tmp_path / "parts", checkpoint_every=every)
    resumed = killed_and_resumed(Rising, RECIPE, parts, *stop)
    assert torch.equal(weights(resumed), weights(expected))
    assert resumed.steps == 7
    assert without_seconds(parts) == without_seconds(whole)


def test_state_is_saved_between_looks_where_asked(tmp_path):
    work = job(tmp_path, checkpoint_every=3)
    recipe = dataclasses.replace(RECIPE, evaluate_every=100)
    with pytest.raises(KeyboardInterrupt):
        fit("stage", Objective(work), recipe, dataclasses.replace(work, report=stopped_at(5)))
    assert torch.load(work.workspace / "stage.pt", weights_only=True)["step"] == 3
    assert {path.name for path in work.workspace.iterdir()} == {"stage.pt", ".lock-stage"}


@pytest.mark.parametrize("limit", [{"max_steps": 3}, {"patience": 0}])
def test_a_state_between_looks_that_ends_the_training_is_looked_at_first(tmp_path, limit):
    work = job(tmp_path, checkpoint_every=3)
    recipe = dataclasses.replace(RECIPE, evaluate_every=100)
    with pytest.raises(KeyboardInterrupt):
        fit("stage", Rising(work), recipe, dataclasses.replace(work, report=stopped_at(5)))
    ended = fit("stage", Rising(work), dataclasses.replace(recipe, **limit), work)
    assert (ended.steps, ended.score) == (3, 3.0)
    assert [look.step for look in curves.read(work.workspace / "stage.csv")] == [3]


def without_seconds(work):
    return [
        dataclasses.replace(look, seconds=0.0, waiting=0.0)
        for look in curves.read(work.workspace / "stage.csv")
    ]


def test_a_look_holds_the_mean_loss_since_the_last(tmp_path):
    losses = []
    work = job(tmp_path, report=lambda progress: losses.append(progress.loss))
    fit("stage", Rising(work), dataclasses.replace(RECIPE, max_steps=3, schedule="cosine"), work)
    first, last = curves.read(work.workspace / "stage.csv")
    assert (first.step, first.loss) == (2, pytest.approx((losses[0] + losses[1]) / 2))
    assert (last.step, last.loss, last.images) == (3, losses[-1], 24)
    assert [first.learning_rate, last.learning_rate] == pytest.approx([1e-3, 5e-4])


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


def test_calls_that_each_run_out_of_time_end_in_the_training_of_one_call(tmp_path):
    apart = job(tmp_path / "apart")
    expected = fit("stage", Rising(apart), RECIPE, apart)
    seconds = itertools.count()
    work = job(tmp_path, max_seconds=8.0, clock=lambda: float(next(seconds)))
    calls = [fit("stage", Rising(work), RECIPE, work) for _ in range(4)]
    assert [provenance(work, call)["is_complete"] for call in calls] == [False, False, False, True]
    assert torch.equal(weights(calls[-1]), weights(expected))
    assert without_seconds(work) == without_seconds(apart)


def test_looks_when_the_time_is_up_choose_no_weights_of_the_training(tmp_path):
    """Scores by the step that is looked at: step 3 has the highest, and only a call that ends there sees it."""
    scores = {2: 0.5, 3: 0.9, 4: 0.6, 6: 0.4, 7: 0.3}

    class Scored(Objective):
        def score(self, average):
            return scores[int(average[1].num_batches_tracked)]

    apart = job(tmp_path / "apart")
    expected = fit("stage", Scored(apart), RECIPE, apart)
    work, now = job(tmp_path), [0]
    cut = dataclasses.replace(
        work,
        max_seconds=3.0,
        clock=lambda: float(now[0]),
        report=lambda progress: now.__setitem__(0, progress.step),
    )
    first = fit("stage", Scored(work), RECIPE, cut)
    assert (first.steps, first.score) == (3, 0.9)
    whole = fit("stage", Scored(work), RECIPE, work)
    assert (whole.score, expected.score) == (0.6, 0.6)
    assert without_seconds(work) == without_seconds(apart)
    assert torch.equal(weights(whole), weights(expected))


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path, kind):
    without, work = job(tmp_path / "without"), job(tmp_path / "with")
    expected, faulty = Rising(without), Faulty(work, {3, 4}, kind)
    fit("stage", expected, dataclasses.replace(RECIPE, max_steps=3), without)
    fitted = fit("stage", faulty, dataclasses.replace(RECIPE, max_steps=5), work)
    assert torch.equal(weights(faulty), weights(expected))
    assert (fitted.steps, fitted.skipped) == (5, 2)
    assert provenance(work, fitted)["skipped_steps"] == [2]
    assert [look.loss is None for look in curves.read(work.workspace / "stage.csv")] == [False, False, True]


def test_too_many_steps_in_a_row_that_are_not_finite_end_the_training(tmp_path):
    recipe = dataclasses.replace(RECIPE, nonfinite_limit=3)
    apart = job(tmp_path / "apart")
    assert fit("stage", Faulty(apart, {1, 2, 4, 5}), recipe, apart).skipped == 4
    message = "loss of stage is nan .* at step 3, number 3 in a row"
    together = job(tmp_path / "together")
    with pytest.raises(NumericalError, match=message):
        fit("stage", Faulty(together, {1, 2, 3}), recipe, together)
    killed = job(tmp_path / "killed", checkpoint_every=1)
    with pytest.raises(NumericalError, match=message):
        killed_and_resumed(lambda work: Faulty(work, {1, 2, 3}), recipe, killed, 3)


@pytest.mark.parametrize("content", [b"", b"not a state"])
def test_state_that_cannot_be_continued_is_refused(tmp_path, content):
    work = job(tmp_path)
    work.workspace.mkdir()
    (work.workspace / "stage.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="does not continue this training"):
        fit("stage", Objective(work), RECIPE, work)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"seed": 1}, "seed 0 instead of 1"),
        ({"recipe": dataclasses.replace(RECIPE, learning_rate=0.1)}, "learning_rate 0.001 instead of 0.1"),
        ({"recipe": dataclasses.replace(RECIPE, schedule="cosine")}, "schedule constant instead of cosine"),
        ({"weight": 0.5}, "other starting weights"),
        ({"images": split("test").images}, "other training images"),
        ({"labels": (1, 0) * 10}, "other training images"),
        ({"train_indices": torch.arange(15)}, "other training images"),
    ],
)
def test_the_state_of_another_training_gives_way_only_where_asked(tmp_path, other, problem):
    def trained(folder, *, again=False, seed=0, recipe=RECIPE, weight=None, train_indices=INDICES, **data):
        changed = dataclasses.replace(split(), **data)
        work = job(folder, seed=seed, again=again, split=changed, train_indices=train_indices)
        objective = Rising(work)
        if weight is not None:
            nn.init.constant_(objective.network[2].weight, weight)
        return weights(fit("stage", objective, recipe, work))

    first = trained(tmp_path / "one")
    with pytest.raises(CheckpointError, match=rf"stage\.pt does not continue .* \({problem}\).* --again"):
        trained(tmp_path / "one", **other)
    assert torch.equal(trained(tmp_path / "one"), first)
    anew = trained(tmp_path / "one", again=True, **other)
    assert torch.equal(anew, trained(tmp_path / "two", **other))


def test_an_interrupted_training_goes_on_though_others_were_replaced_by_it(tmp_path):
    work = job(tmp_path, again=True)
    fit("stage", Rising(work), dataclasses.replace(RECIPE, learning_rate=0.1), work)
    with pytest.raises(KeyboardInterrupt):
        fit("stage", Rising(work), RECIPE, dataclasses.replace(work, report=stopped_at(5)))
    steps = []
    resumed = dataclasses.replace(work, report=lambda progress: steps.append(progress.step))
    fit("stage", Rising(work), RECIPE, resumed)
    assert steps[0] == 5  # the first after the look at step 4


def test_average_moves_parameters_and_copies_buffers():
    average, network = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    network.weight.data.fill_(2.0)
    network.running_mean.fill_(3.0)
    update_average(average.requires_grad_(False), network, 0.75)
    assert float(average.weight) == pytest.approx(0.75 * 1 + 0.25 * 2)
    assert float(average.running_mean) == 3.0


def test_the_averages_decay_warms_up_or_stays():
    recipe = Recipe(ema_decay=0.9)
    assert [average_decay(step, recipe) for step in (0, 10, 1000)] == pytest.approx([0.1, 0.55, 0.9])
    assert average_decay(0, dataclasses.replace(recipe, ema_warmup=False)) == 0.9


def test_learning_rate_warms_up_then_stays_or_follows_half_a_cosine():
    constant = Recipe(max_steps=110, warmup_steps=10, schedule="constant")
    cosine = dataclasses.replace(constant, schedule="cosine")
    drops = dataclasses.replace(constant, schedule="drops", warmup_steps=0)
    assert {rate_scale(step, drops) for step in range(110)} == {1.0}  # where no step for a drop is told
    every = dataclasses.replace(drops, drop_every=50)
    assert [rate_scale(step, every) for step in (0, 49, 50, 100)] == pytest.approx([1, 1, 0.1, 0.01])
    assert [rate_scale(step, constant) for step in (0, 4, 9, 10, 109)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [rate_scale(step, cosine) for step in (9, 10, 60, 110)] == pytest.approx([1, 1, 0.5, 0])


def test_the_average_moves_all_parameters_as_one_by_one_and_takes_over_buffers():
    torch.manual_seed(0)
    average, network = (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)) for _ in range(2))
    network(torch.randn(8, 4))
    expected = [
        mean.lerp(value, 0.1) for mean, value in zip(average.parameters(), network.parameters(), strict=True)
    ]
    update_average(average, network, 0.9)
    assert all(torch.equal(mean, value) for mean, value in zip(average.parameters(), expected, strict=True))
    assert all(
        torch.equal(kept, value) for kept, value in zip(average.buffers(), network.buffers(), strict=True)
    )


def test_buffers_of_one_type_are_copied_at_once(monkeypatch):
    """On CUDA a list of several types is copied one by one."""
    average, network = (nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3)) for _ in range(2))
    copied = []
    whole = torch._foreach_copy_
    monkeypatch.setattr(
        torch, "_foreach_copy_", lambda kept, values: copied.append(values) or whole(kept, values)
    )
    update_average(average, network, 0.9)
    assert sorted((len(values), len({one.dtype for one in values})) for values in copied) == [(2, 1), (4, 1)]


def test_tf32_without_a_gpu_is_refused(tmp_path):
    work = job(tmp_path)
    with pytest.raises(UsageError, match="precision tf32 needs a CUDA device, this one is cpu: use float32"):
        fit("stage", Objective(work), dataclasses.replace(RECIPE, precision="tf32"), work)


@pytest.mark.parametrize(
    ("precision", "is_fused"), [("float32", True), ("bfloat16", False), ("float16", False)]
)
def test_attention_in_a_low_precision_is_not_fused_on_a_cpu(tmp_path, precision, is_fused):
    seen = []

    class Attending(Objective):
        def loss(self, batch):
            low = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
            seen.append((torch.backends.cuda.flash_sdp_enabled(), low))
            return super().loss(batch)

    work = job(tmp_path)
    fit("stage", Attending(work), dataclasses.replace(RECIPE, precision=precision, max_steps=1), work)
    assert seen == [(is_fused, None if is_fused else getattr(torch, precision))]
    assert torch.backends.cuda.flash_sdp_enabled()


def test_initial_weights_leave_the_generators_of_all_gpus_as_they_were(monkeypatch):
    asked = []

    @contextlib.contextmanager
    def fork(devices):
        asked.append(devices)
        yield

    monkeypatch.setattr(torch.random, "fork_rng", fork)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for is_used in (True, False):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda is_used=is_used: is_used)
        with seeded_initialisation(0):
            pass
    assert asked == [[0, 1], []]


@pytest.mark.parametrize("steps", [1, 9, 19, 667, 1000, 20_833])
def test_a_training_has_ten_looks_at_most(steps):
    every = Recipe(max_steps=steps).look_every
    assert len({*range(every, steps + 1, every), steps}) <= 10


def test_again_after_a_finished_training_trains_from_the_first_step(tmp_path):
    recipe = dataclasses.replace(RECIPE, max_steps=3)
    first = job(tmp_path)
    fit("stage", Objective(first), recipe, first)
    steps = []
    again = job(tmp_path, again=True, report=lambda progress: steps.append(progress.step))
    assert fit("stage", Objective(again), recipe, again).steps == 3
    assert steps[0] == 1
