"""Precision and compilation: what the network sees, and what is said where compiling fails."""

import pytest
import torch
from torch import nn

from bench.config.run import RunConfig
from bench.device.precision import at_precision, compiled, many_programs
from bench.errors import UsageError
from bench.runs.workbench import prepare

X = torch.rand((4, 1, 4, 4), generator=torch.Generator().manual_seed(0))
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


@pytest.mark.parametrize("fails_when", ["never", "called"])
def test_where_compiling_fails_the_classifier_runs_as_it_is_and_it_is_said_once(fails_when):
    notes, modes = [], []

    def compiler(classifier, mode, dynamic):
        def quick(x_noisy, sigma, keys=None):
            if fails_when == "called":
                raise RuntimeError("no compiler")
            return classifier(x_noisy, sigma, keys)

        modes.append((mode, dynamic))
        return quick

    quick = compiled(classify, "cuda-graphs", notes.append, compiler)
    assert torch.equal(logits(quick), logits(classify))
    assert torch.equal(logits(quick), logits(classify))
    assert modes == [("reduce-overhead", False)]
    said = "torch.compile failed (RuntimeError); the classifier runs as it is"
    assert notes == ([said] if fails_when == "called" else [])


def test_without_compilation_nothing_is_compiled():
    assert compiled(classify, "none", print, lambda *arguments: pytest.fail("compiled")) is classify


def test_tf32_without_cuda_is_refused():
    with pytest.raises(UsageError, match="precision tf32 needs a CUDA device, this one is cpu"):
        prepare(RunConfig(precision="tf32", device="cpu"))


def test_the_limit_of_compiled_programs_is_raised_for_a_while_only():
    from torch._dynamo import config

    before = config.recompile_limit
    with many_programs(before + 5):
        assert config.recompile_limit == before + 5
    assert config.recompile_limit == before
