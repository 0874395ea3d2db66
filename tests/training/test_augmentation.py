"""The changes of training images against torchvision's own on the same draws, and what they leave of white noise."""

import pytest
import torch
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import pad, resized_crop

from bench.training import augmentation
from bench.training.augmentation import (
    augment,
    host_generator,
    random_affine,
    random_boxes,
    random_crop,
    random_flip,
    random_resized_crop,
)
from bench.types import Task
from rrcm.mixing import mix
from rrcm.moco_views import jitter_order
from rrcm.views import finetuning_view, moco_views, strong_view
from tests.support.tiny import TASK

COLOUR = Task(dataset="cifar10", channels=3, image_size=32, num_classes=10)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count=64, side=32):
    return torch.randn((count, 3, side, side), generator=generator())


def test_every_crop_is_a_piece_of_the_padded_image_and_all_places_occur():
    x, padding, seen = torch.rand((400, 3, 6, 6), generator=generator()), 1, set()
    for image, crop in zip(x, random_crop(x, generator(1), padding=padding), strict=True):
        whole = pad(image, [padding])
        places = [
            (top, left)
            for top in range(3)
            for left in range(3)
            if torch.equal(whole[:, top : top + 6, left : left + 6], crop)
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 9


def test_white_noise_keeps_its_variance_inside_the_light_crop():
    x = noise(256)
    inner = augment(x, COLOUR, generator(1))[:, :, 4:-4, 4:-4]
    # 442,368 values, the relative standard error of their variance is 0.0021: 0.011 is five of them
    assert float(inner.var()) == pytest.approx(1, abs=0.011)


def test_half_of_the_images_are_mirrored_and_the_others_stay():
    x = noise(400, 4)
    changed = random_flip(x, generator(1))
    mirrored = [torch.equal(one, image.flip(2)) for one, image in zip(changed, x, strict=True)]
    stayed = [torch.equal(one, image) for one, image in zip(changed, x, strict=True)]
    assert all(a != b for a, b in zip(mirrored, stayed, strict=True))
    assert 140 < sum(mirrored) < 260  # six deviations of 10


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resized_crops_are_torchvisions_of_the_same_boxes(monkeypatch, interpolation):
    x, boxes = (
        torch.rand((3, 3, 20, 20), generator=generator()),
        [(0, 1, 9, 12), (5, 0, 15, 15), (2, 3, 6, 5)],
    )
    monkeypatch.setattr(augmentation, "random_boxes", lambda *args: boxes)
    expected = [
        resized_crop(image, *box, [20, 20], InterpolationMode(interpolation), antialias=True).clamp(0, 1)
        for image, box in zip(x, boxes, strict=True)
    ]
    found = random_resized_crop(x, generator(), interpolation=interpolation)
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (40, 100), (200, 30)])
def test_boxes_are_distributed_as_torchvisions(height, width):
    image = torch.empty(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.tensor(
            [RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)]
        ).float()
    found = torch.tensor(random_boxes(4000, (height, width), (0.08, 1.0), generator())).float()
    # Means of 4,000: the difference of two has a standard error of sqrt(2/4000) of the deviation, six of them
    limit = 6 * (2 / 4000) ** 0.5 * theirs.std(dim=0) + 1e-6
    assert bool(((found.mean(dim=0) - theirs.mean(dim=0)).abs() < limit).all())
    assert torch.allclose(found.std(dim=0), theirs.std(dim=0), rtol=0.15)
    assert int((found[:, 0] + found[:, 2]).max()) <= height
    assert int((found[:, 1] + found[:, 3]).max()) <= width


class OnACard:
    """What a CUDA generator tells its host without waiting for the device, and nothing else."""

    def __init__(self, seed):
        self.seed, self.offset, self.device = seed, 0, torch.device("cuda")

    def initial_seed(self):
        return self.seed

    def get_offset(self):
        return self.offset

    def set_offset(self, offset):
        assert offset % 4 == 0
        self.offset = offset


def test_what_the_host_reads_is_drawn_on_the_host():
    """A draw on the device would fail here: there is none."""

    def draws(seed):
        card = OnACard(seed)
        boxes = [random_boxes(3, (32, 32), (0.08, 1.0), card) for _ in range(2)]
        order = jitter_order(card)
        images, _ = mix(
            torch.rand(2, 3, 4, 4, generator=generator()), torch.eye(2), card, mixup=0.8, cutmix=0.0
        )
        return boxes, order, images.sum().item()

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    (first, second), *_ = draws(1)
    assert first != second
    own = generator()
    assert host_generator(own) is own


DRAWS = {
    "affine": lambda x, g: random_affine(x, g, degrees=10, scale=(0.9, 1.1), shift=0.1),
    "strong": lambda x, g: strong_view(x[:, :1], TASK, g),
    "moco": lambda x, g: torch.stack(moco_views(x, g)),
    "resized crop": lambda x, g: random_resized_crop(x, g, area=(0.4, 1.0)),
    "fine-tuning": lambda x, g: finetuning_view(x, TASK, "crop-flip", g),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_views_are_the_same_under_autocast(draw):
    x = torch.rand((2, 3, 64, 64), generator=generator())
    plain = draw(x, generator(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(draw(x, generator(1)), plain)
