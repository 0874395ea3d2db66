"""A small run with hostile names, and the pictures' data set, for tests of the page."""

from dataclasses import replace

import torch

from bench.data.sets import PixelTensor
from bench.types import Split, Task
from tests.support.fake_runs import make_run

HOSTILE = "<img src=x onerror=window.hacked=1>"
"""A method's name that would run a script where it were taken for markup."""

CLASSES = ("</script><script>window.hacked=2</script>", "\"&amp;'", *"23456789")
IMAGES = 12


def hostile_run(folder):
    """Return a run of two methods, one of them named HOSTILE, over 12 images of class names that are markup."""
    run = make_run(folder, methods=[HOSTILE, "dds"], sigmas=[0.25, 1.0], images=IMAGES)
    header = replace(run.header, class_names=CLASSES, command=f"bench run {HOSTILE}")
    return replace(run, header=header)


def picture_split():
    """Return a test split that the indices and the shape of `hostile_run` fit."""
    pixels = torch.randint(0, 256, (20 * IMAGES, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    return Split(
        task=Task(dataset="mnist5k", channels=1, image_size=28, num_classes=10),
        name="test",
        images=PixelTensor(pixels.to(torch.uint8)),
        labels=(0,) * len(pixels),
        class_names=CLASSES,
    )
