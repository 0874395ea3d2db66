"""Random changes of images: their geometry does not depend on the arithmetic of the network."""

import pytest
import torch

from bench.training.augmentation import random_affine
from rrcm.views import finetuning_view, moco_views, random_crop, strong_view
from tests.support.tiny import TASK

COLOUR = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))

DRAWS = {
    "affine": lambda x, g: random_affine(x, g, degrees=10, scale=(0.9, 1.1), shift=0.1),
    "strong": lambda x, g: strong_view(x[:, :1], TASK, g),
    "moco": lambda x, g: torch.stack(moco_views(x, g)),
    "crop": lambda x, g: random_crop(x, g, area=(0.4, 1.0)),
    "fine-tuning": lambda x, g: finetuning_view(x, TASK, "crop-flip", g),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_views_are_the_same_under_autocast(draw):
    plain = draw(COLOUR, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(draw(COLOUR, torch.Generator().manual_seed(1)), plain)
