"""The encoder's options that change how it is trained, not what it computes."""

import math
from dataclasses import replace

import pytest
import torch

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


def test_moco_start_is_uniform_in_xaviers_range():
    projection = made(moco_initialization=True, embed_dim=512, num_heads=8).patch_embed.proj
    bound = math.sqrt(6 / (4 * 4 + 512))
    assert projection.bias.abs().max() == 0
    assert 0.99 * bound < projection.weight.abs().max() <= bound
    # 8,192 uniform values: the standard error of their deviation is below 0.5%; 3% is six of it
    assert float(projection.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)
