"""Consistency regularisation against its closed forms and the released program's values."""

import math
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from baselines.consistency import consistency_loss, regularisation

GOLDEN = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no reference tensors at {GOLDEN}")
def test_regularisation_reproduces_released_values():
    tensors = load_file(GOLDEN / "consistency_loss.safetensors")
    copies = [value for name, value in sorted(tensors.items()) if name.startswith("in.logits_")]
    cases = {name: re.fullmatch(r"out\.loss_lbd(.+)_eta(.+)", name) for name in tensors}
    checked = {name: match for name, match in cases.items() if match}
    assert checked
    for name, match in checked.items():
        loss = regularisation(copies, weight=float(match[1]), entropy_weight=float(match[2]))
        torch.testing.assert_close(loss, tensors[name].view(()), rtol=1e-4, atol=1e-6)


def test_copies_that_agree_leave_the_entropy_only():
    logits = torch.zeros(3, 4)
    assert float(regularisation([logits, logits], weight=10, entropy_weight=0.5)) == pytest.approx(
        0.5 * math.log(4)
    )


def test_copies_that_are_certain_of_different_classes_have_a_closed_form():
    copies = [torch.tensor([[60.0, 0.0]]), torch.tensor([[0.0, 60.0]])]
    # q = (1/2, 1/2); KL(q || p_j) = -ln 2 - (0 + -60)/2; H(q) = ln 2
    expected = 2 * (30 - math.log(2)) + 3 * math.log(2)
    assert float(regularisation(copies, weight=2, entropy_weight=3)) == pytest.approx(expected)


def test_loss_adds_the_mean_cross_entropy():
    logits, labels = torch.zeros(3, 4), torch.tensor([0, 1, 2])
    loss = consistency_loss([logits, logits], labels, weight=10, entropy_weight=0)
    assert float(loss) == pytest.approx(math.log(4))
