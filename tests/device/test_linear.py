"""Linear layers by oneDNN: the same function, in float32 without gradients alone, and the processor chooses."""

import pytest
import timm
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from bench.config.run import RunConfig
from bench.cost.work import random_stream
from bench.data.sets import load_split
from bench.device import hardware, linear
from bench.device.linear import OneDNNLinear, use_onednn
from bench.device.precision import make_ready
from bench.methods.weights import fingerprint
from bench.runs.entrant import enter
from bench.runs.workbench import Setup, smoothed
from tests.device.test_bfloat16 import NO_HEAD, network, ran

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def on_amd(monkeypatch):
    monkeypatch.setattr(linear, "is_faster", lambda: True)


def layer(bias=True):
    module = nn.Linear(48, 20, bias=bias)
    made = nn.Sequential(module)
    use_onednn(made)
    assert type(made[0]) is OneDNNLinear
    return made[0]


def torchs(module, x):
    return nn.functional.linear(x, module.weight, module.bias)


@pytest.mark.parametrize("shape", [(48,), (7, 48), (3, 5, 48), (2, 3, 5, 48), (0, 48)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_same_function_and_follows_its_weights(shape, bias):
    module, x = layer(bias), torch.randn(shape)
    for _ in range(2):
        with torch.inference_mode():
            torch.testing.assert_close(module(x), torchs(module, x))
        module.weight.data.neg_()


def test_a_row_of_a_batch_does_not_depend_on_the_others():
    module, x = layer(), torch.randn(300, 48)
    with torch.inference_mode():
        assert torch.equal(module(x)[40:102], module(x[40:102]))
        assert torch.equal(module(x.t().contiguous().t()), module(x))


class Calls(TorchDispatchMode):
    """Counts linear layers: `count` that oneDNN computes, `torchs` that torch does."""

    count = torchs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket is torch.ops.mkldnn._linear_pointwise
        self.torchs += func.overloadpacket in (torch.ops.aten.linear, torch.ops.aten.addmm, torch.ops.aten.mm)
        return func(*args, **(kwargs or {}))


def calls(module, x, **changes):
    with Calls() as counted, torch.set_grad_enabled(changes.get("grad", False)):
        module(x)
    return counted.count


def test_gradients_other_types_and_other_devices_are_torchs():
    module, x = layer(), torch.randn(4, 48)
    assert calls(module, x) == 1
    assert calls(module, x, grad=True) == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert calls(module, x) == 0
        assert module(x).dtype == torch.bfloat16
    assert calls(layer().double(), x.double()) == 0
    assert calls(layer().to("meta"), x.to("meta")) == 0
    module(x).sum().backward()
    assert module.weight.grad is not None


def odd_layers():
    """Yield what oneDNN's operation would compute wrongly, or refuse."""
    column = layer()
    column.bias = nn.Parameter(torch.randn(20, 3)[:, 1])
    yield column, torch.randn(4, 48)
    expanded = layer()
    expanded.bias = nn.Parameter(torch.zeros(1).expand(20))
    yield expanded, torch.randn(4, 48)
    broadcast = layer()
    broadcast.bias = nn.Parameter(torch.ones(1))
    yield broadcast, torch.randn(4, 48)
    empty = nn.Sequential(nn.Linear(0, 20))
    use_onednn(empty)
    yield empty[0], torch.zeros(4, 0)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("number", range(4))
def test_layers_that_onednn_would_compute_otherwise_are_torchs(number):
    module, x = list(odd_layers())[number]
    with torch.inference_mode():
        assert torch.equal(module(x), torchs(module, x))


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_forward_derivatives_are_torchs():
    module, x, tangent = layer(), torch.randn(4, 48), torch.randn(4, 48)
    with torch.no_grad():
        _, found = torch.func.jvp(module, (x,), (tangent,))
        torch.testing.assert_close(found, tangent @ module.weight.t())


def test_compiled_networks_and_derived_layers_are_torchs():
    class Mine(nn.Linear):
        pass

    network = nn.Sequential(Mine(48, 48), nn.Linear(48, 20)).eval()
    use_onednn(network)
    assert [type(part) for part in network] == [Mine, OneDNNLinear]
    seen = []

    def backend(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    with torch.inference_mode():
        torch.compile(network, backend=backend)(torch.randn(4, 48))
    assert len(seen) > 2
    assert not any("mkldnn" in name for name in seen)


def test_timms_beit_leaves_no_linear_layer_to_torch():
    sizes = {"img_size": 32, "embed_dim": 48, "depth": 1, "num_heads": 2, "num_classes": 4}
    network, x = timm.create_model("beit_base_patch16_224", **sizes).eval(), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = network(x)
        use_onednn(network)
        with Calls() as counted:
            found = network(x)
    assert (counted.count > 0, counted.torchs) == (True, 0)
    torch.testing.assert_close(found, expected)


def test_the_error_of_another_shape_is_torchs():
    with torch.inference_mode(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer()(torch.randn(4, 47))


def test_operations_are_counted_as_ever():
    one, module = network("rrcm-b")

    def operations():
        with FlopCounterMode(display=False) as counter:
            ran(one, module, "float32")
        return counter.get_total_flops()

    before, digest = operations(), fingerprint(module)
    use_onednn(module)
    assert operations() == before
    assert fingerprint(module) == digest


def test_bfloat16_is_prepared_whether_float32_came_before_it_or_not():
    one, module = network("rrcm-b")
    make_ready(module, "cpu", "bfloat16", NO_HEAD)
    expected = [ran(one, module, precision) for precision in ("bfloat16", "float32")]
    _, other = network("rrcm-b")
    make_ready(other, "cpu", "float32", NO_HEAD)
    make_ready(other, "cpu", "bfloat16", NO_HEAD)
    found = [ran(one, other, precision) for precision in ("bfloat16", "float32")]
    assert all(torch.equal(one[0], two[0]) for one, two in zip(expected, found, strict=True))
    assert found[0][1] == 0


def test_runs_and_measurements_take_it():
    config = RunConfig(methods=("rrcm",), sigmas=(0.5,), limit=1, device="cpu")
    split = load_split(config, "test")
    one = enter(config, split.task, "rrcm", 0.5, print)
    run = smoothed(Setup(config=config, split=split, indices=(0,), device=torch.device("cpu")), one, 64)
    sized, module = network("rrcm-b")
    side = sized.task.image_size
    stream = random_stream(module, "float32", (3, side, side), 10, 0.5)
    x, keys = stream.noisy_batch(0, 4)
    for classifier, given in ((run.classifier, torch.rand(4, 1, 28, 28)), (stream.smoothed.classifier, x)):
        with torch.inference_mode(), Calls() as counted:
            classifier(given, 0.5, keys)
        assert counted.count > 0


@pytest.mark.parametrize(
    ("maker", "width", "expected"),
    [("AuthenticAMD", "AVX512", True), ("GenuineIntel", "AVX512", False), ("AuthenticAMD", "AVX2", False)],
)
def test_the_processor_chooses(monkeypatch, maker, width, expected):
    monkeypatch.undo()
    monkeypatch.setattr(linear, "cpu_info", lambda field: maker)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: width)
    found = linear.is_faster.__wrapped__()
    assert found is (expected and torch.backends.mkl.is_available())
    monkeypatch.setattr(linear, "is_faster", lambda: found)
    assert hardware.describe(torch.device("cpu"))["linear_layers"] == ("oneDNN" if found else "torch")
