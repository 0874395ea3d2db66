"""MACER: the radius's loss against scipy, and where it has a gradient."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import norm
from torch import nn

from baselines.macer import Config, MacerObjective, classification_loss, radius_loss
from bench.errors import UsageError
from bench.methods import registry
from bench.training.loop import Batch
from tests.support.tiny import TASK, job


def copies(scale=0.2, requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    return [
        (scale * torch.randn((64, 4), generator=generator)).requires_grad_(requires_grad) for _ in range(3)
    ]


LABELS = torch.arange(64) % 4


def batch(step):
    x = torch.rand((8, 1, 8, 8), generator=torch.Generator().manual_seed(3))
    drawn = torch.Generator().manual_seed(step)
    return Batch(x=x, labels=torch.arange(8) % 2, step=step, generator=drawn, shared=drawn)


def radii():
    """Return the radius of each image in units of sigma / 2 at beta 16, by scipy: negative where wrong."""
    p = softmax(16 * np.stack([logits.double().numpy() for logits in copies()]), axis=2).mean(0)
    label = np.eye(4, dtype=bool)[LABELS.numpy()]
    runner_up = np.where(label, 0, p).max(1)
    return norm.ppf(p[label]) - norm.ppf(runner_up)


@pytest.mark.parametrize("margin", [1.0, 8.0])
def test_radius_loss_equals_a_direct_computation(margin):
    xi = radii()
    assert (xi < 0).any()
    assert (xi > 1).any()
    expected = np.where((xi > 0) & (xi < margin), margin - xi, 0).mean()
    assert float(radius_loss(copies(), LABELS, margin=margin, beta=16)) == pytest.approx(expected, rel=1e-4)


def test_radius_loss_moves_right_images_within_the_margin_only():
    ours, xi = copies(requires_grad=True), radii()
    radius_loss(ours, LABELS, margin=1.0, beta=16).backward()
    moved = sum(logits.grad.abs().sum(1) for logits in ours).numpy() > 0
    assert (moved == ((xi > 0) & (xi < 1))).all()


def test_radius_loss_of_certain_networks_has_no_bad_gradient():
    ours = copies(scale=50.0, requires_grad=True)
    loss = radius_loss(ours, LABELS, margin=8.0, beta=16)
    loss.backward()
    assert all(logits.grad.isfinite().all() for logits in ours)


def test_classification_loss_is_of_the_mean_probability():
    p = softmax(np.stack([logits.double().numpy() for logits in copies()]), axis=2).mean(0)
    expected = -np.log(p[np.arange(64), LABELS.numpy()]).mean()
    assert float(classification_loss(copies(), LABELS)) == pytest.approx(expected, rel=1e-5)


def test_radius_counts_from_its_step_on_times_lambda_and_half_sigma(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    config = Config(task=TASK, sigma=0.5, copies=2, weight=3.0, weight_from=1)
    objective = MacerObjective(
        network, lambda copies, labels: torch.zeros(()), config=config, copies=2, job=job(tmp_path)
    )
    before, after = (objective.loss(batch(step)) for step in (0, 1))
    assert float(before) == 0
    noisy = objective.noisy_copies(batch(1))
    with torch.no_grad():
        labels = batch(1).labels
        radius = radius_loss(list(network(noisy).chunk(2)), labels, margin=8.0, beta=16.0)
    assert after.item() == pytest.approx(3.0 * 0.25 * radius.item())
    assert radius > 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("copies", "copies is 0, expected at least 1"),
        ("margin", "margin is 0, expected a number above 0"),
        ("beta", "beta is 0, expected a number above 0"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with pytest.raises(UsageError, match=message):
        registry.configure("macer", TASK, 0.5, {option: 0})


def test_lambda_follows_sigma_unless_given():
    assert [Config(task=TASK, sigma=sigma).radius_weight for sigma in (0.25, 0.5, 1.0)] == [16, 16, 6]
    assert Config(task=TASK, sigma=1.0, weight=3.0).radius_weight == 3
