"""CIFAR-form residual networks (6n+2 layers; arXiv 1512.03385, Section 4.2), normalisation included.

Parameter names are those of the checkpoints that users of randomised smoothing have: `1.conv1.weight` and so on,
the normalisation being layer 0 and having no parameters.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UsageError
from bench.training.released import Fed
from bench.types import Backbone, Task

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """Subtracts a mean and divides by a standard deviation per channel; no parameters, nothing in checkpoints."""

    _mean: Tensor
    _std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        shape = (1, len(mean), 1, 1)
        # On the device from the start: what is copied there in a forward pass waits for all that the device has to do.
        self.register_buffer("_mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std for x (B,C,H,W) in pixel units."""
        return (x - self._mean.to(x.dtype)) / self._std.to(x.dtype)

    def fed(self) -> Fed:
        """Return what the network behind it sees."""
        return Fed(normalisation=(self.mean, self.std))


class PaddedShortcut(nn.Module):
    """Every second pixel, with channels of zeros before and behind: option A of arXiv 1512.03385, Section 4.2."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        """Return (B,C + added,H/2,W/2) for x (B,C,H,W)."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added // 2))


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution, or `PaddedShortcut` where `is_padded`.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, *, is_padded: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if is_padded and channels_in != channels:
            self.downsample = PaddedShortcut(channels - channels_in)
        elif stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for x (B,C,H,W)."""
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.downsample(x))


class ResNet(nn.Module):
    """ResNet of 6n+2 layers: stages of 16, 32 and 64 channels (times width/16), n blocks each, mean pool, linear."""

    def __init__(
        self, *, depth: int, channels: int, num_classes: int, width: int = 16, is_padded: bool = False
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise UsageError(f"depth of a CIFAR ResNet is 6n + 2 (8, 14, 20, ..., 110), got {depth}.")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2, is_padded=is_padded)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2, is_padded=is_padded)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B,K) for normalised images (B,C,H,W)."""
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.layer3(self.layer2(self.layer1(h)))
        return self.fc(h.mean(dim=(2, 3)))


def _stage(
    channels_in: int, channels: int, blocks: int, stride: int, *, is_padded: bool = False
) -> nn.Sequential:
    first = Block(channels_in, channels, stride, is_padded=is_padded)
    return nn.Sequential(first, *(Block(channels, channels, 1) for _ in range(blocks - 1)))


def resnet(task: Task, depth: int) -> nn.Module:
    """Return normalisation + ResNet-`depth` for the task, from pixels (B,C,H,W) to logits (B,K)."""
    return normalised(ResNet(depth=depth, channels=task.channels, num_classes=task.num_classes), task)


def normalised(network: nn.Module, task: Task) -> nn.Sequential:
    """Return normalisation, then the network.

    Colour images are normalised with the mean and deviation of CIFAR-10, or of ImageNet where larger than 64
    pixels; others with 0.5 and 0.5.
    """
    mean: tuple[float, ...] = (0.5,) * task.channels
    std = mean
    if task.channels == 3:
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if task.image_size > 64 else (CIFAR_MEAN, CIFAR_STD)
    return nn.Sequential(Normalize(mean, std), network)


def padded_backbone(name: str, depth: int) -> Backbone:
    """Return ResNet-`depth` with padded shortcuts after ImageNet's normalisation, as CIFAR-10 weights are published."""

    def make(task: Task, sigma: float) -> nn.Module:
        network = ResNet(depth=depth, channels=task.channels, num_classes=task.num_classes, is_padded=True)
        if task.channels != len(IMAGENET_MEAN):
            raise UsageError(
                f"{name} takes images of 3 channels, got {task.channels}: take cifar_resnet{depth}"
            )
        return nn.Sequential(Normalize(IMAGENET_MEAN, IMAGENET_STD), network)

    return Backbone(name=name, make=make)


def residual_backbone(name: str, depth: int) -> Backbone:
    """Return normalisation + ResNet-`depth` as a backbone; sigma plays no part in it.

    Its convolutions start as in the program of arXiv 1902.02918, whose published recipes are for it.
    """

    def make(task: Task, sigma: float) -> nn.Module:
        network = resnet(task, depth)
        network.apply(start_by_outputs)
        return network

    return Backbone(name=name, make=make)


@torch.no_grad()
def start_by_outputs(module: nn.Module) -> None:
    """Draw the weights of a k x k convolution from N(0, 2 / (k^2 C_out)) (arXiv 1502.01852, Eq. 14)."""
    if isinstance(module, nn.Conv2d):
        outputs = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        module.weight.normal_(0.0, math.sqrt(2 / outputs))


RESNET = Backbone(name="resnet", make=lambda task, sigma: resnet(task, 14))
"""The default network of the baselines on small images, which starts by PyTorch's defaults."""
