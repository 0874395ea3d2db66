"""The CIFAR-form residual network's own checks; its logits are in test_golden.py."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from baselines.networks.resnet import ResNet, residual_backbone, resnet
from bench.errors import UsageError
from bench.types import Task


@pytest.mark.parametrize("depth", [2, 9, 51])
def test_depth_must_be_6n_plus_2(depth):
    with pytest.raises(UsageError, match=r"6n \+ 2"):
        ResNet(depth=depth, channels=3, num_classes=10)


def test_normalisation_copies_nothing_from_the_host_and_adds_nothing_to_checkpoints():
    network = resnet(Task(dataset="cifar10", channels=3, image_size=32, num_classes=10), 8)
    assert not any("mean" in name and name.startswith("0.") for name in network.state_dict())

    class NoCopies(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func not in (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default), (
                func
            )
            return func(*args, **kwargs or {})

    with NoCopies(), torch.no_grad():
        network.eval()(torch.zeros(1, 3, 32, 32))


def test_convolutions_of_the_published_networks_start_by_their_outputs():
    task = Task(dataset="cifar10", channels=3, image_size=32, num_classes=10)
    torch.manual_seed(0)
    network = residual_backbone("cifar_resnet20", 20).make(task, 0.5)[1]
    for convolution in (
        network.conv1,
        network.layer1[0].conv1,
        network.layer3[0].conv1,
        network.layer3[2].conv2,
    ):
        outputs = convolution.kernel_size[0] ** 2 * convolution.out_channels
        count = convolution.weight.numel()
        assert float(convolution.weight.detach().std()) == pytest.approx(
            (2 / outputs) ** 0.5, rel=5 / (2 * count) ** 0.5
        )
