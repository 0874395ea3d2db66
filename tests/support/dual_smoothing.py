"""A small method whose certificates two bounds make: a sigma for each image (dual smoothing, arXiv 2512.01782)."""

import torch
from torch import nn

LEVELS = (0.25, 0.5)
"""Noise levels that the estimator chooses from."""


class Brightness(nn.Module):
    """A linear classifier of noisy pixels: class 1 where their mean is above a threshold."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def forward(self, x_noisy):
        margin = x_noisy.flatten(1).mean(1) - self.threshold
        return torch.stack([-margin, margin], 1)


class DualSmoothing(nn.Module):
    """Bright images are classified under the larger noise; the choice is itself a smoothed classifier's.

    The certificate is the smaller of two radii, each with half of alpha: within the estimator's the sigma stays what it
    is, and within the classifier's the class.
    """

    def __init__(self, sigma, share=0.5, names=("noise level", "class")):
        super().__init__()
        self.estimator, self.classifier = Brightness(0.3), Brightness(0.5)
        self.sigma, self.share, self.names = sigma, share, names

    def forward(self, x_noisy, sigma, keys=None):
        return self.classifier(x_noisy)

    def compose_certificate(self, certify):
        level = certify(
            self.names[0], self.estimator, sigma=self.sigma, share=self.share, num_classes=len(LEVELS)
        )
        certify(self.names[1], self.classifier, sigma=LEVELS[level], share=self.share, num_classes=2)


def make(sigma: float) -> nn.Module:
    """Return the method as `module:function` of a command line."""
    return DualSmoothing(sigma)
