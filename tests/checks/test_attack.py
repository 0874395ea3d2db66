"""The attack on a half-space, whose true radius is its distance: harmless inside, deadly beyond."""

import pytest
import torch

from bench.checks.attack import Attack, Target, attack

X = torch.full((1, 4, 4), 0.5)
NORMAL = torch.full((16,), 0.25)


def half_space(distance):
    """Return a classifier whose class 1 is the half-space that holds X at `distance` from its border."""

    def classify(x_noisy, sigma, keys=None):
        margin = (x_noisy - X).flatten(1) @ NORMAL + distance
        return torch.stack([torch.zeros_like(margin), margin], 1)

    return classify


def attacked(distance, radius, classifier=half_space, **settings):
    target = Target(x=X, label=1, sigma=0.25, radius=radius)
    generator = torch.Generator().manual_seed(0)
    return attack(classifier(distance), target, Attack(**settings), generator)


@pytest.mark.parametrize("seed_distance", [0.2, 0.5, 1.0])
def test_the_attack_comes_within_a_percent_of_the_worst_point_of_the_ball(seed_distance):
    point, has_gradients = attacked(seed_distance, radius=0.9 * seed_distance)
    moved = float((point - X).flatten() @ NORMAL)
    assert has_gradients
    assert -0.9 * seed_distance <= moved < -0.89 * seed_distance


def test_a_radius_beyond_the_border_is_broken():
    point, _ = attacked(0.5, radius=0.55)
    assert float((point - X).flatten() @ NORMAL) < -0.5


@pytest.mark.parametrize("radius", [1e-7, 1e-5, 1e-3, 0.1, 1.0, 5.0])
def test_the_point_lies_inside_the_ball_and_in_the_box(radius):
    point, _ = attacked(0.5, radius=radius)
    assert float((point - X).double().norm()) < radius
    assert 0 <= float(point.min()) <= float(point.max()) <= 1


def test_without_gradients_random_points_are_tried_and_it_is_said():
    def detached(distance):
        return lambda x_noisy, sigma, keys=None: half_space(distance)(x_noisy.detach(), sigma)

    point, has_gradients = attacked(0.5, 0.4, classifier=detached, restarts=20)
    assert not has_gradients
    assert 0 < float((point - X).norm()) < 0.4


def test_gradients_of_weights_alone_are_none_of_the_point():
    weight = torch.ones((), requires_grad=True)

    def behind_no_grad(distance):
        return lambda x_noisy, sigma, keys=None: weight * half_space(distance)(x_noisy.detach(), sigma)

    _, has_gradients = attacked(0.5, 0.4, classifier=behind_no_grad)
    assert not has_gradients


@pytest.mark.parametrize("radius", [1.2e-5, 1e-3, 0.1])
def test_rounding_moves_no_large_image_out_of_its_ball(radius):
    generator = torch.Generator().manual_seed(0)
    target = Target(x=torch.rand((3, 224, 224), generator=generator), label=0, sigma=0.25, radius=radius)

    def classify(x_noisy, sigma, keys=None):
        total = x_noisy.sum((1, 2, 3))
        return torch.stack([-total, total], 1)

    point, _ = attack(classify, target, Attack(samples=1, steps=3), generator)
    assert float((point.double() - target.x.double()).norm()) < radius


def test_the_best_of_the_restarts_is_kept():
    moved = [
        float((attacked(0.5, 0.4, steps=1, restarts=restarts)[0] - X).flatten() @ NORMAL)
        for restarts in (1, 8)
    ]
    assert moved[1] <= moved[0]


@pytest.mark.parametrize(
    "spoil", [lambda x: torch.from_numpy(x.numpy()), lambda x: x + 0 * x.abs().mul(0).sqrt()]
)
def test_what_has_no_gradient_or_none_that_is_finite_is_tried_at_random_points(spoil):
    def spoilt(distance):
        classify = half_space(distance)

        def through_numpy(x_noisy, sigma, keys=None):
            if x_noisy.requires_grad:
                x_noisy = spoil(x_noisy)
            return classify(x_noisy, sigma, keys)

        return through_numpy

    _, has_gradients = attacked(0.5, 0.4, classifier=spoilt, restarts=2)
    assert not has_gradients
