"""Networks under bfloat16 autocast: weights that were cast once give the same bits, and logits keep float32's."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.config.run import RunConfig
from bench.cost.work import random_stream
from bench.data.sets import load_split
from bench.device.bfloat16 import copied_bytes, prepare_for_bfloat16
from bench.device.precision import at_precision
from bench.methods import registry
from bench.methods.weights import fingerprint
from bench.runs.entrant import enter
from bench.runs.workbench import Setup, smoothed
from bench.smoothing.noise import seeded_initialisation
from bench.training.architectures import Chains

CPU = torch.device("cpu")
NETWORKS = ("rrcm-b", "resnet8", "dds", "densepure", "consistency-model")  # U-Nets before a transformer
NO_HEAD = -1


class Casts(TorchDispatchMode):
    """Notes the weights that are cast to bfloat16."""

    def __init__(self, module):
        super().__init__()
        self.own = {id(weight) for weight in module.parameters()}
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        is_own = len(args) > 0 and id(args[0]) in self.own
        self.count += is_own and getattr(found, "dtype", None) == torch.bfloat16 != args[0].dtype
        return found


def network(name):
    with seeded_initialisation(0):
        one = registry.architectures("cifar10-reduced", Chains(steps=2, votes=2))[name]
        return one, one.build(lambda name, function: function()).eval()


def ran(one, module, precision="bfloat16"):
    """Return logits of two samples, and how many weights were cast for them."""
    side, generator = one.task.image_size, torch.Generator().manual_seed(0)
    x = torch.rand((2, one.task.channels, side, side), generator=generator)
    with torch.inference_mode(), Casts(module) as casts:
        return at_precision(module, "cpu", precision)(x, 0.5, torch.arange(2)), casts.count


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_not_cast_in_a_call_and_the_logits_are_those_of_autocast_in_every_bit(name):
    one, module = network(name)
    expected, before = ran(one, module)
    prepare_for_bfloat16(module, NO_HEAD)
    found, after = ran(one, module)
    assert torch.equal(found, expected)
    assert (before > 0, after) == (True, 0)
    assert copied_bytes(module) > 0


def test_without_autocast_nothing_changes():
    one, module = network("rrcm-b")
    expected, state, digest = ran(one, module, "float32"), module.state_dict(), fingerprint(module)
    prepare_for_bfloat16(module, one.task.num_classes)
    assert torch.equal(ran(one, module, "float32")[0], expected[0])
    assert module.state_dict().keys() == state.keys()
    assert fingerprint(module) == digest
    assert torch.equal(ran(one, copy.deepcopy(module))[0], ran(one, module)[0])


class PartInFloat32(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x, sigma, keys=None):
        with torch.autocast("cpu", enabled=False):
            y = self.inner(x.flatten(1))
        return self.head(y)


def test_a_part_that_a_network_computes_in_float32_stays_in_float32():
    module, x = PartInFloat32(), torch.rand(2, 1, 4, 4)
    classify = at_precision(module, "cpu", "bfloat16")
    expected = classify(x, 0.5, None)
    prepare_for_bfloat16(module, NO_HEAD)
    assert torch.equal(classify(x, 0.5, None), expected)


class Close(nn.Module):
    """Logits 100.0 and 100.1, which bfloat16 does not tell apart."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)
        self.head.weight.data, self.head.bias.data = torch.tensor([[100.0], [100.1]]), torch.zeros(2)

    def forward(self, x, sigma, keys=None):
        return self.head(torch.ones(len(x), 1))


def test_logits_that_bfloat16_would_round_to_a_tie_are_told_apart():
    classify = at_precision(Close(), "cpu", "bfloat16")
    assert classify(torch.zeros(1), 0.5, None).argmax(1).item() == 0
    module = Close()
    prepare_for_bfloat16(module, 2)
    logits = at_precision(module, "cpu", "bfloat16")(torch.zeros(1), 0.5, None)
    assert logits.dtype == torch.float32
    assert logits.argmax(1).item() == 1


def test_runs_and_measurements_prepare_their_networks():
    config = RunConfig(precision="bfloat16", methods=("gaussian",), sigmas=(0.5,), limit=1, device="cpu")
    split = load_split(config, "test")
    one = enter(config, split.task, "gaussian", 0.5, print)
    setup = Setup(config=config, split=split, indices=(0,), device=CPU)
    x = torch.rand((64, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    found = [smoothed(setup, one, 64).classifier(x, 0.5, torch.arange(64))]
    _, module = network("resnet8")
    stream = random_stream(module, "bfloat16", (3, 32, 32), 10, 0.5)
    found.append(stream.classify(*stream.noisy_batch(0, 8)))
    for logits in found:
        assert not torch.equal(logits, logits.bfloat16().float())


def test_a_compiled_network_takes_the_copies():
    given = []

    def backend(graph, examples):
        given.append([one.dtype for one in examples if one.shape == (8, 16)])
        return graph

    torch._dynamo.reset()
    module = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8))
    x = torch.rand(2, 16)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        expected = module(x)
        prepare_for_bfloat16(module, NO_HEAD)
        found = torch.compile(module, dynamic=False, fullgraph=True, backend=backend)(x)
    assert torch.equal(found, expected)
    assert given == [[torch.bfloat16]]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_layers_whose_weight_is_computed_in_each_call_stay_as_they_are():
    torch.manual_seed(0)
    network = nn.Sequential(nn.utils.spectral_norm(nn.Linear(8, 4)), nn.Linear(4, 3)).eval()
    x = torch.randn(5, 8)
    expected = network(x)
    prepare_for_bfloat16(network, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(x).dtype == torch.float32
    torch.testing.assert_close(network(x), expected)
