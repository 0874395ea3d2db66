"""The CIFAR-form residual network against the released program's logits."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from baselines.resnet import ResNet, resnet
from bench.errors import UsageError
from bench.types import Task

GOLDEN = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no reference tensors at {GOLDEN}")
def test_logits_reproduce_the_released_checkpoint():
    checkpoint = torch.load(GOLDEN / "cifar_resnet_checkpoint.pth.tar", weights_only=True)
    depth = int(checkpoint["arch"].removeprefix("cifar_resnet"))
    network = resnet(Task(dataset="cifar10", channels=3, image_size=32, num_classes=10), depth)
    network.load_state_dict(checkpoint["state_dict"])
    tensors = load_file(GOLDEN / "cifar_resnet_io.safetensors")
    logits = network.eval()(tensors["in.image"])
    torch.testing.assert_close(logits, tensors["out.logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [2, 9, 51])
def test_depth_must_be_6n_plus_2(depth):
    with pytest.raises(UsageError, match=r"6n \+ 2"):
        ResNet(depth=depth, channels=3, num_classes=10)
