"""MoCo-v3's views against torchvision's single-image functions, their probabilities, and what is refused."""

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from bench.errors import UsageError
from rrcm import moco_views as module
from rrcm.moco_views import blur, distort, grey, jitter, shift_hue
from rrcm.views import moco_views

CLOSE = {"rtol": 0, "atol": 1e-5}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=8, side=16):
    return torch.rand(count, 3, side, side, generator=generator())


def column(*values):
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_hue_is_moved_as_in_torchvision_and_grey_pixels_stay():
    x, turns = images(4), column(-0.1, 0.0, 0.05, 0.5)
    expected = torch.stack([tv.adjust_hue(one, float(turn)) for one, turn in zip(x, turns, strict=True)])
    torch.testing.assert_close(shift_hue(x, turns), expected, **CLOSE)
    torch.testing.assert_close(shift_hue(grey(x).expand_as(x), turns), grey(x).expand_as(x), **CLOSE)


def test_each_image_is_blurred_by_its_own_radius():
    x, radii = images(3), column(0.1, 0.7, 2.0)
    expected = torch.stack(
        [tv.gaussian_blur(one, [13, 13], [float(radius)] * 2) for one, radius in zip(x, radii, strict=True)]
    )
    torch.testing.assert_close(blur(x, radii), expected, **CLOSE)


def test_jitter_of_a_grey_image_is_brightness_and_contrast_within_their_ranges():
    x = torch.full((200, 3, 8, 8), 0.5)
    changed = jitter(x, generator())[:, 0, 0, 0] / 0.5  # without contrast or colour, brightness alone
    assert 0.6 <= changed.min() < 0.62
    assert (
        1.38 < changed.max() <= 1.4
    )  # 200 draws all miss a fortieth of the range with probability 0.6%; seeded


@pytest.fixture
def without_jitter(monkeypatch):
    monkeypatch.setattr(module, "jitter", lambda x, generator: x)


def both_views(x):
    return (distort(x, generator(), is_first=is_first) for is_first in (True, False))


@pytest.mark.usefixtures("without_jitter")
def test_first_views_are_blurred_and_a_tenth_of_the_second():
    x = torch.full((400, 3, 16, 16), 0.2)
    x[:, :, 8, 8] = 0.4
    first, second = (int((view[:, 0, 8, 8] < 0.39).sum()) for view in both_views(x))
    assert first > 320  # all whose radius is above 0.27, 91%: six deviations
    assert 3 < second < 75  # 9%: six deviations


@pytest.mark.usefixtures("without_jitter")
def test_a_fifth_of_the_second_views_is_solarised_and_none_of_the_first():
    first, second = (view.amax(dim=(1, 2, 3)) for view in both_views(torch.full((400, 3, 8, 8), 0.9)))
    torch.testing.assert_close(first, torch.full((400,), 0.9), **CLOSE)
    assert 32 < int((second - 0.1).abs().lt(1e-5).sum()) < 128  # six deviations of 8 around 80


def test_grey_share_is_a_fifth():
    x = images(1).expand(1000, 3, 16, 16)
    view = distort(x, generator(), is_first=False)
    colourless = (view.amax(dim=1) - view.amin(dim=1)).amax(dim=(1, 2)) < 1e-6
    assert 120 < int(colourless.sum()) < 280  # 200 expected, deviation 12.6


def test_views_keep_shape_and_range_and_depend_on_the_generator_alone():
    x = images(16)
    once, again, other = (moco_views(x, generator(seed)) for seed in (1, 1, 2))
    for view, same, different in zip(once, again, other, strict=True):
        assert view.shape == x.shape
        assert 0 <= view.min() <= view.max() <= 1
        assert torch.equal(view, same)
        assert not torch.equal(view, different)


def test_grey_images_are_refused():
    with pytest.raises(UsageError, match="views 'moco' need 3 channels, got 1"):
        moco_views(torch.zeros(2, 1, 8, 8), generator())
