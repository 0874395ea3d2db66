"""Consistency regularization against its closed forms; the released program's values are in test_golden.py."""

import math

import pytest
import torch

from baselines.consistency import consistency_loss, regularisation


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
