"""LeNet for 28x28 images, as the MNIST baselines of arXiv 2006.04062 have it; no normalisation.

Parameter names are those of released checkpoints, `1.conv1.weight` and so on, layer 0 having no parameters.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UsageError
from bench.types import Backbone, Task

SIDE = 28
"""Side of the images it is made for."""


class LeNet(nn.Module):
    """Convolutions of 20 and 50 channels (5x5), each with ReLU and 2x2 max pooling, then 500 units, then classes."""

    def __init__(self, *, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B,K) for images (B,C,28,28)."""
        h = F.max_pool2d(F.relu(self.conv1(x)), 2)
        h = F.max_pool2d(F.relu(self.conv2(h)), 2)
        return self.fc2(F.relu(self.fc1(h.flatten(1))))


def lenet(task: Task) -> nn.Module:
    """Return LeNet for the task, from pixels (B,C,28,28) to logits (B,K).

    Raises:
        UsageError: images of another size.
    """
    if task.image_size != SIDE:
        raise UsageError(
            f"lenet takes images of {SIDE}x{SIDE}, got {task.image_size}x{task.image_size}; "
            "use resnet, or any of timm's"
        )
    return nn.Sequential(nn.Identity(), LeNet(channels=task.channels, num_classes=task.num_classes))


LENET = Backbone(name="lenet", make=lambda task, sigma: lenet(task))
"""LeNet as a backbone; sigma plays no part in it."""
