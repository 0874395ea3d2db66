"""The one held-out score of all methods that are trained on noise."""

import pytest
import torch
from torch import nn

from baselines.macer import MacerObjective
from baselines.noisy.classifier import NoisyObjective
from baselines.smoothadv import AdversarialObjective
from bench.training.scores import radius_share


class Brighter(nn.Module):
    """Class 1 where the mean pixel is above 1/2: at distance 8 |mean - 1/2| from the boundary, for 8x8 images."""

    def forward(self, x):
        bright = x.mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-bright, bright], dim=1)


def test_radius_of_a_linear_classifier_is_its_distance_to_the_boundary():
    # Two images at 0.8 and 1.6 sigma, one on the wrong side. With 2,000 draws the standard errors of Phi^-1 are 0.03
    # and 0.05, that of the mean of three below 0.02: 0.1 is five of them, false alarm 6e-7; the seed is fixed.
    sigma, draws = 0.5, 2000
    images = torch.stack([torch.full((1, 8, 8), 0.5 + z * sigma / 8) for z in (0.8, 1.6, -1.0)])
    largest = float(torch.special.ndtri(torch.tensor((draws + 0.5) / (draws + 1))))
    share = radius_share(Brighter(), images, torch.ones(3).long(), sigma, draws=draws)
    assert share * largest == pytest.approx((0.8 + 1.6) / 3, abs=0.1)


def test_radius_share_is_one_for_certain_networks_and_zero_for_wrong_ones():
    images, labels = torch.full((4, 1, 8, 8), 0.9), torch.tensor([1, 1, 0, 0])
    assert radius_share(Brighter(), images[:2], labels[:2], 0.25) == pytest.approx(1)
    assert radius_share(Brighter(), images[2:], labels[2:], 0.25) == 0
    assert radius_share(Brighter(), images, labels, 0.25) == pytest.approx(0.5)


@pytest.mark.parametrize("objective", [AdversarialObjective, MacerObjective])
def test_every_method_of_noisy_images_is_scored_by_the_radius(objective):
    assert objective.score is NoisyObjective.score
