"""The CIFAR-form residual network's own checks; its logits are in test_golden.py."""

import pytest

from baselines.networks.resnet import ResNet
from bench.errors import UsageError


@pytest.mark.parametrize("depth", [2, 9, 51])
def test_depth_must_be_6n_plus_2(depth):
    with pytest.raises(UsageError, match=r"6n \+ 2"):
        ResNet(depth=depth, channels=3, num_classes=10)
