"""What a run tells before it begins: how many certificates, how long by a short look, and what is missing."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bench.commands.progress import estimate_lines, missing_lines
from bench.config.run import RunConfig
from bench.runs import forecast, runner
from bench.runs.progress import Estimate
from bench.types import Task


@pytest.fixture
def machine(monkeypatch):
    """Return a machine that takes `call` and `sample` seconds for each, and one more for the first call of all."""
    found = SimpleNamespace(now=0.0, sample=0.001, call=0.0, whole=1, asked=[])

    def certify(setup, method, classifier, indices):
        samples = setup.config.n0 + setup.config.n
        found.now += (
            math.ceil(samples / found.whole) * found.whole * found.sample + found.call + (not found.asked)
        )
        found.asked.append(samples)

    monkeypatch.setattr(forecast, "smoothed", lambda setup, one, batch_size: None)
    monkeypatch.setattr(forecast, "certify_images", certify)
    return found


SETUP = forecast.Setup(
    config=RunConfig(n0=100, n=900, methods=("a",), sigmas=(0.25, 0.5)),
    split=SimpleNamespace(task=Task(dataset="tiny", channels=1, image_size=8, num_classes=2)),
    indices=(3, 5, 8),
    device=SimpleNamespace(type="cpu"),
)
ONE = SimpleNamespace(method="a", is_missing=False)


@pytest.mark.parametrize("sample", [1e-5, 1e-3, 0.1, 10.0])
def test_the_time_of_a_certificate_is_that_of_the_machine_whatever_its_start_takes(machine, sample):
    machine.sample = sample
    seconds = forecast.quick_seconds(SETUP, ONE, 128, clock=lambda: machine.now)
    assert seconds == pytest.approx(1000 * sample)


def test_a_slow_classifier_is_asked_for_eight_samples(machine):
    machine.sample = 10.0
    forecast.quick_seconds(SETUP, ONE, 128, clock=lambda: machine.now)
    assert machine.asked == [2, 2, 4]


def test_calls_that_are_slow_whatever_they_hold_are_not_taken_for_slow_samples(machine):
    machine.call = 3.0
    seconds = forecast.quick_seconds(SETUP, ONE, 128, clock=lambda: machine.now)
    assert seconds == pytest.approx(3.0 + 1000 * machine.sample)
    assert len(machine.asked) <= 5


@pytest.mark.parametrize("sample", [1e-4, 2e-3, 0.1])
def test_a_compiled_network_that_takes_whole_batches_is_timed_by_them(machine, sample):
    machine.sample, machine.whole = sample, 128
    setup = replace(SETUP, config=replace(SETUP.config, compile="default", n=9900))
    seconds = forecast.quick_seconds(setup, ONE, 128, clock=lambda: machine.now)
    assert seconds == pytest.approx(10_000 * sample, rel=0.05)


def test_what_is_done_is_not_counted_again(monkeypatch):
    monkeypatch.setattr(forecast, "quick_seconds", lambda setup, one, size: 2.0)
    entrants = {("a", sigma): ONE for sigma in (0.25, 0.5)}
    done = {("a", 0.25, 3), ("a", 0.5, 8), ("a", 0.5, 99)}
    found = forecast.estimate(SETUP, entrants, {"a": 128}, done=done)
    assert found == Estimate(certificates=4, seconds=8.0)


@pytest.mark.parametrize(("kind", "expected"), [("cpu", ("default", 128)), ("cuda", ("none", 1024))])
def test_on_a_gpu_nothing_is_compiled_to_forecast_and_batches_are_large(
    monkeypatch, tmp_path, kind, expected
):
    asked = []

    def quick(setup, one, size):
        asked.append((setup.config.compile, size))
        return 1.0

    monkeypatch.setattr(forecast, "quick_seconds", quick)
    config = replace(SETUP.config, compile="default")
    setup = replace(SETUP, config=config, device=SimpleNamespace(type=kind))
    runner.estimate(setup, {("a", sigma): ONE for sigma in (0.25, 0.5)}, tmp_path)
    assert asked == [expected]


def test_it_is_told_in_sentences():
    config = RunConfig(n0=100, n=900, methods=("a",), sigmas=(0.5,))
    first, second = estimate_lines(config, Estimate(certificates=40, seconds=360.0))
    assert first == "40 certificates to make, 40,000 samples: a at sigma 0.5 on mnist5k."
    assert second == "About 6 min here, measured on the first image of each method."
    told = missing_lines({"a.safetensors": 7200.0, "b.safetensors": None})
    assert told == [
        "missing: a.safetensors, trained first, about 2.0 h here",
        "missing: b.safetensors, trained first",
    ]
