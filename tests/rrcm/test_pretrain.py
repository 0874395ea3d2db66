"""The target encoder's moving average, in closed form."""

import pytest
import torch

from bench.methods import registry
from rrcm import pretrain
from rrcm.encoder import Encoder
from rrcm.schedule import target_rate
from tests.support.tiny import OPTIONS, TASK


def test_a_target_moves_by_one_minus_the_rate_and_keeps_its_statistics():
    config = registry.configure("rrcm", TASK, 0.5, OPTIONS["rrcm"] | {"pretrain_steps": 10})
    objective = pretrain.Objective(Encoder(config.sizes), config.of_pretraining, TASK)
    with torch.no_grad():
        for parameter in objective.target.parameters():
            parameter.fill_(1.0)
        for parameter in objective.network.parameters():
            parameter.fill_(3.0)
        for buffer in objective.network.buffers():
            buffer.fill_(7)
    before = [buffer.clone() for buffer in objective.target.buffers()]
    objective.after_step(4)
    rate = target_rate(
        4, 10, config.pretrain_sharpness, config.pretrain_target_start, config.pretrain_target_end
    )
    for parameter in objective.target.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, rate + 3 * (1 - rate)))
    assert 0.97 < rate < 0.995
    assert all(map(torch.equal, before, objective.target.buffers()))
    assert objective.parameter_groups(0.1)[0]["lr"] == pytest.approx(0.1)
