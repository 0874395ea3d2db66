"""What certifies in a run: batches of one size for a compiled network, and a layout for the device."""

from types import SimpleNamespace

import pytest
import torch

from bench.config.run import RunConfig
from bench.runs import workbench
from bench.smoothing.certifier import Smoothed
from bench.types import Protocol
from tests.support.tiny import TASK


@pytest.mark.parametrize(("compile", "expected"), [("default", {64}), ("none", {10, 64, 22})])
def test_a_compiled_network_sees_full_batches_alone(monkeypatch, compile, expected):
    sizes = []

    def classify(x_noisy, sigma, keys=None):
        sizes.append(len(x_noisy))
        return x_noisy.flatten(1)[:, :2]

    monkeypatch.setattr(workbench, "compiled", lambda classifier, how: classifier)
    setup = SimpleNamespace(
        config=RunConfig(compile=compile),
        device=torch.device("cpu"),
        note=print,
        split=SimpleNamespace(task=TASK),
    )
    one = SimpleNamespace(build=lambda: classify, sigma=0.5)
    smoothed = workbench.smoothed(setup, one, 64)
    smoothed.certify(torch.rand(1, 8, 8), 0, Protocol(n0=10, n=150, alpha=0.01, seed=0))
    assert set(sizes) == expected


def test_images_are_certified_together_until_the_batches_that_are_filled_up_weigh_little():
    """On meta tensors, which stand for those of any device that is no CPU."""
    for compile, expected in (("none", 32), ("default", 64)):
        setup = SimpleNamespace(config=RunConfig(n=1000, compile=compile), device=torch.device("meta"))
        assert workbench.group_size(setup, 8192) == expected
        assert workbench.group_size(setup, 32) == 1
    # Selection's 1,600 samples fill 3 batches and an eighth, beside 31 and a quarter of estimation.
    assert workbench.group_size(setup, 512) == 16


def test_an_accelerator_classifies_a_full_batch_before_its_first_certificate():
    """On meta tensors, which stand for those of any device that is no CPU."""
    for device, expected in (("meta", [64]), ("cpu", [])):
        seen = []

        def classify(x_noisy, sigma, keys=None, seen=seen):
            seen.append(len(x_noisy))
            return x_noisy.flatten(1)[:, :2]

        setup = SimpleNamespace(
            device=torch.device(device), split=SimpleNamespace(images=torch.rand(9, 1, 8, 8)), indices=(4,)
        )
        smoothed = Smoothed(classifier=classify, sigma=0.5, num_classes=2, batch_size=64)
        workbench.warm_up(setup, smoothed)
        assert seen == expected
