"""The five-line use: certify a torch module of one's own."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import bench
from bench.errors import DataError, ModelError
from bench.smoothing.certifier import Smoothed
from bench.types import Protocol

IMAGE = torch.full((1, 2, 2), 0.5)


def linear():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(3, 4))
        model[1].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    return model


def test_importing_bench_imports_no_torch():
    command = "import bench, sys; print('torch' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    ).stdout
    assert printed == "False\n"


def test_certify_in_five_lines_equals_the_certifier():
    from bench import certify, from_module

    certificate = certify(from_module(linear()), IMAGE, sigma=0.25, n=500)
    smoothed = Smoothed(classifier=from_module(linear()), sigma=0.25, batch_size=256, num_classes=3)
    assert certificate == smoothed.certify(IMAGE, 0, Protocol(n=500))
    assert certificate.predict == 1
    assert certificate.radius > 0


def test_the_default_is_100_and_1000_samples():
    assert bench.certify(bench.from_module(linear()), IMAGE, sigma=0.25).samples == 1100


def test_predict_returns_the_class():
    assert bench.predict(bench.from_module(linear()), IMAGE, sigma=0.25) == 1


@pytest.mark.parametrize("name", ["certify", "predict"])
def test_a_wrong_image_is_refused_before_the_model_sees_it(name):
    with pytest.raises(DataError, match=r"must lie in \[0,1\], got values from 5 to 5"):
        getattr(bench, name)(None, IMAGE * 10, sigma=0.5)


def test_logits_without_classes_are_refused():
    with pytest.raises(ModelError, match=r"must return logits of shape \(B, K\), got \(1, 1, 2, 2\)"):
        bench.certify(bench.from_module(nn.Identity()), IMAGE, sigma=0.5)


@pytest.mark.parametrize("is_training", [True, False])
def test_a_module_keeps_the_mode_that_it_and_its_parts_had(is_training):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3)).train(is_training)
    model[1].train(not is_training)
    modes = [part.training for part in model.modules()]
    certificates = [bench.certify(model, IMAGE, sigma=0.25, n=100) for _ in range(2)]
    bench.predict(model, IMAGE, sigma=0.25, n=100)
    bench.certify_many(model, [IMAGE], sigma=0.25, protocol=Protocol(n=100))
    assert [part.training for part in model.modules()] == modes
    assert certificates[0] == certificates[1]  # without dropout


def test_a_module_without_a_mode_is_certified_all_the_same():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()
            del self.training

        def forward(self, x):
            return self.inner(x)

    assert bench.certify(Frozen(), IMAGE, sigma=0.25, n=100).predict == 1


def test_modules_that_messages_name_are_there_without_an_import():
    command = "import bench; print(bench.types.Protocol().n, bench.errors.UsageError.__name__)"
    told = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert told == "1000 UsageError\n"


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'bench' has no attribute 'certfy'"):
        bench.certfy  # noqa: B018


@pytest.mark.parametrize("change", ["sub_", "mul_"])
def test_a_network_that_writes_into_its_input_changes_neither_image_nor_certificate(change):
    def classify(x_noisy):
        total = getattr(x_noisy, change)(0.5).mean((1, 2, 3)) - (0.0 if change == "sub_" else 0.25)
        return torch.stack([total, -total], 1)

    image = torch.full((1, 2, 2), 0.9)
    assert bench.certify(classify, image, sigma=0.25).predict == 0  # 0.4 would be of class 1
    assert bench.predict(classify, image, sigma=0.25) == 0
    assert image.unique().tolist() == pytest.approx([0.9])


def test_a_model_that_keeps_a_tensor_of_its_calls_can_be_trained_afterwards():
    class Keeps(nn.Linear):
        def forward(self, x):
            if not self.training:
                self.kept = x.new_ones(2)
            return super().forward(x.flatten(1)) * self.kept

    model = Keeps(4, 2)
    bench.certify(model, IMAGE, sigma=0.25, n=10)
    model.train()(IMAGE[None]).sum().backward()
    assert model.weight.grad is not None
