"""The encoder's options that change how it is trained, not what it computes."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from rrcm.encoder import Encoder
from rrcm.pretrain import SMALL, Objective
from tests.rrcm.test_losses import SIZES
from tests.support.tiny import TASK


def made(**changes):
    torch.manual_seed(0)
    return Encoder(replace(SIZES, depth=2, **changes)).train()


def outputs_and_gradients(network):
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    h = network(x, torch.full((3,), 0.7))
    h.square().sum().backward()
    return h, {name: value.grad for name, value in network.named_parameters() if value.grad is not None}


def test_checkpointed_blocks_give_the_same_outputs_and_gradients_from_fewer_kept_tensors():
    kept = {}
    for checkpoint_blocks in (False, True):
        network, sizes = made(checkpoint_blocks=checkpoint_blocks), []

        def keep(value, sizes=sizes):
            sizes.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            h = network(torch.rand(3, 1, 8, 8), torch.full((3,), 0.7))
        kept[checkpoint_blocks] = sum(sizes)
        assert h.requires_grad
    assert kept[True] < kept[False] / 2
    plain, checkpointed = (outputs_and_gradients(made(checkpoint_blocks=on)) for on in (False, True))
    assert torch.equal(plain[0], checkpointed[0])
    assert plain[1].keys() == checkpointed[1].keys()
    assert all(torch.equal(plain[1][name], checkpointed[1][name]) for name in plain[1])


def test_frozen_patch_projection_gets_no_gradient_and_is_not_optimised():
    network = made(stop_grad_conv1=True)
    _, gradients = outputs_and_gradients(network)
    assert "blocks.0.attn.qkv.weight" in gradients
    assert not any(name.startswith("patch_embed") for name in gradients)
    (group,) = Objective(network, SMALL, TASK).parameter_groups(1e-3)
    assert len(group["params"]) == len(list(network.parameters())) - 2


SCALES = {"qkv": (64, 64), "proj": (64, 64), "fc1": (64, 256), "fc2": (256, 64)}
"""Linear map of a block -> values in and out of one of its maps, for a width of 64."""


def started(**changes):
    """Return two blocks of width 64 with random weights, every kind's 8,192 values or more told by its name."""
    network = made(embed_dim=64, num_heads=8, **changes)
    linears = {name: one for name, one in network.named_modules() if isinstance(one, nn.Linear)}
    return network, {
        kind: [one for name, one in linears.items() if name.startswith("blocks") and name.endswith(kind)]
        for kind in SCALES
    }


def check_uniform(weight, bound):
    assert 0.99 * bound < weight.abs().max() <= bound
    # 8,192 uniform values: the standard error of their deviation is below 0.5%; 3% is six of it
    assert float(weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize("kind", SCALES)
def test_moco_start_is_uniform_in_xaviers_range_with_queries_keys_and_values_apart(kind):
    ins, outs = SCALES[kind]
    weights = [one.weight.flatten() for one in started(moco_initialization=True)[1][kind]]
    check_uniform(torch.cat(weights), math.sqrt(6 / (ins + outs)))
    biases = [one.bias for one in started(moco_initialization=True)[1][kind] if one.bias is not None]
    assert all(bias.abs().max() == 0 for bias in biases)


@pytest.mark.parametrize("kind", SCALES)
def test_other_starts_are_pytorchs_own(kind):
    ins, _ = SCALES[kind]
    for one in started()[1][kind]:
        check_uniform(one.weight, 1 / math.sqrt(ins))
        assert one.bias is None or 0 < one.bias.abs().max() <= 1 / math.sqrt(ins)


@pytest.mark.parametrize("moco_initialization", [False, True])
def test_projector_class_token_and_positions_start_alike(moco_initialization):
    network, _ = started(moco_initialization=moco_initialization)
    first = network.projection_head[0].weight
    assert first.abs().max() <= 1 / math.sqrt(64)
    assert float(first.detach().std()) == pytest.approx(1 / math.sqrt(3 * 64), rel=0.2)
    assert network.cls_token.abs().max() < 6e-6  # six deviations of 1e-6
    assert float(network.pos_embed.detach().std()) == pytest.approx(0.02, rel=0.2)


def test_moco_start_of_the_patch_projection_is_uniform_in_xaviers_range():
    projection = made(moco_initialization=True, embed_dim=512, num_heads=8).patch_embed.proj
    assert projection.bias.abs().max() == 0
    check_uniform(projection.weight, math.sqrt(6 / (4 * 4 + 512)))
