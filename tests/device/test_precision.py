"""Precision and compilation: what the network sees, and what is said where compiling fails."""

import contextlib
import subprocess
import sys

import pytest
import torch
from torch import nn

from baselines.parts.own import GivenDenoiser
from baselines.purifiers.denoised import DenoisedClassifier
from bench.config.run import RunConfig
from bench.device.precision import at_precision, compiled, full_precision, layout, many_programs, tf32
from bench.errors import ModelError, UsageError
from bench.methods import registry
from bench.runs.workbench import prepare
from bench.smoothing.classifiers import check_shape
from bench.types import Task

X = torch.rand((4, 1, 4, 4), generator=torch.Generator().manual_seed(0))
TASK = Task(dataset="mnist5k", channels=1, image_size=28, num_classes=10)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def classify(x_noisy, sigma, keys=None):
    return MODEL(x_noisy)


@torch.inference_mode()
def logits(classifier):
    return classifier(X, 0.5, torch.arange(4))


def test_bfloat16_is_the_networks_own_and_logits_are_float32():
    half = logits(at_precision(classify, "cpu", "bfloat16"))
    assert half.dtype == torch.float32
    assert torch.equal(half, half.bfloat16().float())
    assert not torch.equal(half, logits(classify))


def test_float32_changes_nothing():
    assert torch.equal(logits(at_precision(classify, "cpu", "float32")), logits(classify))


@pytest.mark.parametrize("fails_when", ["never", "made", "called"])
def test_where_compiling_fails_the_classifier_is_refused_in_words(fails_when):
    modes = []

    def compiler(classifier, mode, dynamic):
        def quick(x_noisy, sigma, keys=None):
            if fails_when == "called":
                raise RuntimeError("no compiler")
            return classifier(x_noisy, sigma, keys)

        modes.append((mode, dynamic))
        if fails_when == "made":
            raise RuntimeError("no such Python")
        return quick

    refused = pytest.raises(
        UsageError, match=r"torch.compile fails here \(RuntimeError: no .*\): --compile none"
    )
    with contextlib.nullcontext() if fails_when == "never" else refused:
        assert torch.equal(logits(compiled(classify, "cuda-graphs", compiler)), logits(classify))
    assert modes == [("reduce-overhead", False)]


def test_an_error_of_the_classifier_is_not_the_compilers():
    def broken(x_noisy, sigma, keys=None):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        logits(compiled(broken, "default", lambda classifier, **_: classifier))


def test_the_networks_of_a_chain_are_compiled_without_the_chain():
    config = registry.configure("densepure", TASK, 0.5, {"votes": 3, "reverse_steps": 4, "channels": (8, 16)})
    module, calls = registry.load("densepure").build(config, None), []
    given = torch.rand(2, 1, 28, 28), 0.5, torch.arange(2)
    plain = module(*given)

    def compiler(function, mode, dynamic):
        calls.append(0)
        place = len(calls) - 1

        def quick(*arguments):
            calls[place] += 1
            return function(*arguments)

        return quick

    quick = compiled(module, "default", compiler)
    assert torch.equal(quick(*given), plain)
    assert calls == [12, 3]


@pytest.mark.parametrize("is_module", [True, False])
def test_a_given_denoiser_is_compiled_where_it_is_a_module(is_module):
    class Identity(nn.Module):
        def forward(self, x, sigma, keys):
            return x

    made, asked = Identity(), []
    given = GivenDenoiser("mine", made if is_module else lambda x, sigma, keys: x)
    pair = DenoisedClassifier(given, MODEL)
    compiled(pair, "default", lambda function, **how: asked.append(function.__self__) or function)
    assert asked == [made, MODEL] if is_module else [MODEL]
    del MODEL.forward


def test_an_error_of_a_compiled_network_is_told_from_its_own():
    config = registry.configure("dds", TASK, 0.5, {"channels": (8, 16)})

    def compiler(function, mode, dynamic):
        def quick(*arguments):
            raise RuntimeError("no compiler")

        return quick

    with pytest.raises(UsageError, match=r"torch.compile fails here \(RuntimeError: no compiler\)"):
        compiled(registry.load("dds").build(config, None), "default", compiler)(torch.rand(2, 1, 28, 28), 0.5)


def test_without_compilation_nothing_is_compiled():
    assert compiled(classify, "none", lambda *arguments: pytest.fail("compiled")) is classify


def test_tf32_without_cuda_is_refused():
    with pytest.raises(UsageError, match="precision tf32 needs a CUDA device, this one is cpu"):
        prepare(RunConfig(precision="tf32", device="cpu"))


def test_the_limit_of_compiled_programs_is_raised_for_a_while_only():
    from torch._dynamo import config

    before = config.recompile_limit
    with many_programs(before + 5):
        assert config.recompile_limit == before + 5
    assert config.recompile_limit == before


def switches():
    backends = torch.backends
    return backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32


def test_tf32_is_allowed_or_forbidden_for_products_and_convolutions_alike_and_put_back():
    before = switches()
    for is_allowed in (True, False):
        with tf32(is_allowed, "cuda"):
            assert switches() == (is_allowed, is_allowed)
    assert switches() == before


STRINGS = """
import torch
from bench.device.precision import tf32
matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
matmul.fp32_precision = "tf32"
for is_allowed in (True, False):
    with tf32(is_allowed, "cuda"):
        print(matmul.fp32_precision, conv.fp32_precision)
print(matmul.fp32_precision)
"""


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9")
def test_a_program_that_has_set_torchs_strings_can_be_measured_too():
    told = subprocess.run([sys.executable, "-c", STRINGS], capture_output=True, text=True)
    assert told.stdout.split() == ["tf32", "tf32", "ieee", "ieee", "tf32"], told.stderr


def test_geometry_stays_in_float32_under_autocast():
    one = torch.ones((2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert (one @ one).dtype == torch.bfloat16
        with full_precision("cpu"):
            assert (one @ one).dtype == torch.float32


def test_layouts_on_cuda_are_those_that_its_kernels_do_not_copy():
    plain, norm = nn.Conv2d(1, 1, 1), nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))
    first, last = torch.contiguous_format, torch.channels_last
    assert [layout(plain, "cuda", precision) for precision in ("float32", "tf32", "bfloat16")] == [
        first,
        last,
        last,
    ]
    assert layout(norm, "cuda", "bfloat16") == first
    assert layout(norm, "cpu", "float32") == last


def test_a_compiled_classifier_that_is_out_of_memory_once_stays_compiled():
    failing = [RuntimeError("Triton Error [CUDA]: out of memory")]

    def compiler(classifier, **how):
        def quick(x, sigma, keys):
            if failing:
                raise failing.pop()
            return x + 1

        return quick

    quick = compiled(lambda x, sigma, keys: x, "default", compiler)
    with pytest.raises(RuntimeError, match="out of memory"):
        quick(torch.zeros(1), 0.5)
    assert quick(torch.zeros(1), 0.5).item() == 1


def test_logits_of_a_graph_are_not_overwritten_by_the_next_replay():
    place = torch.zeros(4, 2)
    replayed = compiled(
        classify, "cuda-graphs", lambda classifier, **how: lambda x, sigma, keys: place.add_(1)
    )
    first = logits(replayed)
    logits(replayed)
    assert torch.equal(first, torch.ones(4, 2))


@pytest.mark.parametrize("kind", [torch.bool, torch.complex64])
def test_logits_that_are_no_real_numbers_are_left_for_the_certifier_to_refuse(kind):
    classify = at_precision(lambda x, sigma, keys=None: x.flatten(1).to(kind), "cpu", "float32")
    with pytest.raises(ModelError, match=f"must return dense real numbers, got {kind}"):
        check_shape(classify(torch.ones(2, 1, 1, 3), 0.5), 2, 3)


@pytest.mark.parametrize("kind", [torch.float64, torch.int64])
def test_logits_that_float32_would_round_to_a_tie_keep_their_order(kind):
    x = torch.full((1, 10), 2**24).to(kind)
    x[0, 7] += 1
    assert at_precision(lambda x_noisy, sigma, keys: x_noisy, "cpu", "float32")(x, 0.5).argmax() == 7
