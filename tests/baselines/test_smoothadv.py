"""SmoothAdv: the attack stays in its ball and raises the loss; attack and training see the same noise."""

import pytest
import torch
from torch import nn

from baselines import smoothadv
from baselines.noisy.classifier import mean_cross_entropy
from baselines.smoothadv import AdversarialObjective, Config, attack, smoothed_loss
from bench.errors import UsageError
from bench.methods import registry
from bench.training.loop import Batch
from tests.support.tiny import TASK, job


def linear(seed=0, scale=1.0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    network[1].weight.data.mul_(scale)
    return network


def images(count=5):
    torch.manual_seed(1)
    return torch.rand(count, 1, 8, 8), torch.arange(count) % 3


def noise(copies=4, count=5):
    torch.manual_seed(2)
    return 0.5 * torch.randn(copies, count, 1, 8, 8)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 30.0])
def test_attack_stays_in_the_ball_and_in_the_box(epsilon):
    x, labels = images()
    point = attack(linear(), (x, labels), noise(), epsilon=epsilon, steps=4)
    assert float((point - x).flatten(1).norm(dim=1).max()) <= epsilon * (1 + 1e-5)
    assert float(point.min()) >= 0
    assert float(point.max()) <= 1


def test_attack_raises_every_images_smoothed_loss():
    x, labels = images()
    point = attack(network := linear(), (x, labels), noise(), epsilon=0.5, steps=4)
    with torch.no_grad():
        before, after = (smoothed_loss(network, one + noise(), labels) for one in (x, point))
    assert (after > before).all()


def test_one_step_on_a_linear_classifier_has_a_closed_form():
    # Two classes: the gradient of the loss points along w_other - w_label, whatever the noise.
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    x, labels = torch.full((1, 1, 8, 8), 0.5), torch.tensor([0])
    point = attack(network, (x, labels), noise(count=1), epsilon=0.2, steps=1)
    direction = (network[1].weight[1] - network[1].weight[0]).detach()
    torch.testing.assert_close((point - x).flatten(), 0.2 * direction / direction.norm())


def test_images_that_the_network_is_sure_of_are_attacked_too():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=True))
    network[1].bias.data = torch.tensor([70.0, 0.0])
    x, labels = torch.full((1, 1, 8, 8), 0.5), torch.tensor([0])
    point = attack(network, (x, labels), noise(count=1), epsilon=0.2, steps=1)
    direction = network[1].weight[1].detach()  # that of the label's logit is 1 - p, which is 0 in float32
    torch.testing.assert_close((point - x).flatten(), 0.2 * direction / direction.norm())


def test_smoothed_loss_is_of_the_mean_probability():
    x, labels = images()
    network = linear()
    with torch.no_grad():
        p = torch.stack([network(x + copy).double().softmax(1) for copy in noise()]).mean(0)
        ours = smoothed_loss(network, x + noise(), labels)
    torch.testing.assert_close(ours.double(), -p[torch.arange(5), labels].log(), rtol=1e-5, atol=1e-6)


class Watching(nn.Module):
    """A linear classifier that keeps what it saw, and whether in training mode."""

    def __init__(self):
        super().__init__()
        self.inner, self.seen = linear(), []

    def forward(self, x):
        self.seen.append((x.detach().clone(), self.training))
        return self.inner(x)


def first_batch():
    x, labels = images(4)
    drawn = torch.Generator().manual_seed(0)
    return Batch(x=x, labels=labels, step=0, generator=drawn, shared=drawn)


def objective(tmp_path, **options):
    config = Config(task=TASK, sigma=0.25, copies=3, **options)
    return AdversarialObjective(
        Watching(), mean_cross_entropy, config=config, copies=config.copies, job=job(tmp_path)
    )


def test_attack_and_training_see_the_same_noise(tmp_path):
    trained = objective(tmp_path, attack_steps=2, epsilon_warmup=500)
    trained.loss(first_batch())
    (first, mode), _, (last, last_mode) = trained.network.seen
    assert (mode, last_mode) == (False, True)
    moved = (last - first).view(3, 4, -1)  # the noise cancels: all copies of an image moved alike
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=0, atol=1e-5)
    assert float(moved.norm(dim=2).max()) == pytest.approx(1.0 / 500, rel=1e-2)


def test_loss_has_a_gradient_and_the_attack_leaves_none_of_its_own(tmp_path):
    trained = objective(tmp_path)
    batch = first_batch()
    copies = trained.noisy_copies(batch)
    assert trained.network.inner[1].weight.grad is None
    assert not copies.requires_grad
    trained.loss(batch).backward()
    assert trained.network.inner[1].weight.grad.abs().sum() > 0


def test_epsilon_grows_over_the_warm_up():
    config = Config(task=TASK, sigma=0.5, epsilon=1.0, epsilon_warmup=4)
    assert [config.epsilon_at(step) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]
    assert Config(task=TASK, sigma=0.5, epsilon=1.0, epsilon_warmup=0).epsilon_at(0) == 1.0


def test_epsilon_grows_once_an_epoch_where_epochs_count(tmp_path, monkeypatch):
    epsilons = []
    monkeypatch.setattr(
        smoothadv,
        "attack",
        lambda network, images, noise, *, epsilon, steps: epsilons.append(epsilon) or images[0],
    )
    options = {
        "recipe": "mnist",
        "epochs": 3,
        "epsilon_warmup": 2,
        "epsilon": 2.0,
        "batch_size": 8,
        "copies": 1,
    }
    smoothadv.METHOD.train(registry.configure("smoothadv", TASK, 0.5, options), job(tmp_path))
    assert epsilons == [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]  # 16 training images are 2 batches an epoch


@pytest.mark.parametrize("option", ["copies", "attack_steps", "epsilon", "epsilon_warmup", "epsilon_every"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(UsageError, match=rf"{option} is -1, expected at least [01]"):
        registry.configure("smoothadv", TASK, 0.5, {option: -1})
