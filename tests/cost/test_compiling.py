"""Compiled networks: one program for each, whatever batches a certificate ends with; a backend counts them."""

import pytest
import torch

from bench.cost.work import certificate, random_stream
from bench.methods import registry
from bench.training.architectures import Chains
from bench.types import Protocol

SIZE = 64


def compiled_in_an_image(name, device, inner, is_filled=True):
    """Return the programs that a full batch compiles, and those that a certificate compiles after it."""
    programs = []

    def backend(graph, examples):
        programs.append(graph)
        return inner(graph, examples)

    torch._dynamo.reset()
    one = registry.architectures("cifar10-reduced", Chains(steps=2, votes=2))[name]
    module = one.build(lambda name, function: torch.compile(function(), dynamic=False, backend=backend))
    shape = (one.task.channels, one.task.image_size, one.task.image_size)
    stream = random_stream(module.to(device).eval(), "float32", shape, one.task.num_classes, 0.5)
    stream.work(SIZE).batch()
    before = len(programs)
    certificate(stream, Protocol(n0=10, n=SIZE + 20, alpha=0.001, seed=0), SIZE, is_filled=is_filled).batch()
    return before, len(programs) - before


@pytest.mark.parametrize("name", ["rrcm-b", "resnet8"])
def test_a_whole_image_compiles_nothing_anew(name):
    before, after = compiled_in_an_image(name, torch.device("cpu"), lambda graph, examples: graph)
    assert before > 0
    assert after == 0


def test_batches_that_are_not_full_would_compile_anew():
    _, after = compiled_in_an_image(
        "resnet8", torch.device("cpu"), lambda graph, examples: graph, is_filled=False
    )
    assert after == 2
