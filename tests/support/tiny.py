"""The smallest real things to train and certify on: two classes of 8x8 images, told apart by their brightness."""

import sys

import pytest
import torch
from PIL import Image

from bench.cli import main
from bench.data.sets import PixelTensor
from bench.training.loop import TrainingJob
from bench.types import Split, Task

TASK = Task(dataset="tiny", channels=1, image_size=8, num_classes=2)

OPTIONS = {
    "rrcm": {
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "output_dim": 8,
        "pretrain_steps": 2,
        "pretrain_batch_size": 8,
        "max_steps": 2,
        "batch_size": 8,
    },
    "gaussian": {"max_steps": 2, "batch_size": 8},
    "consistency": {"max_steps": 2, "batch_size": 8},
    "smoothadv": {"max_steps": 2, "batch_size": 8},
    "macer": {"max_steps": 2, "batch_size": 8, "copies": 2, "weight_from": 1},
    "consistency-model": {"channels": (8, 8), "max_steps": 2, "batch_size": 8, "classifier_max_steps": 2},
    "dds": {"channels": (8, 8), "max_steps": 2, "batch_size": 8, "classifier_max_steps": 2},
}
"""Options under which every method trains in a second."""


def split(name="train", per_class=10):
    """Return a split of 2 x per_class noisy grey images, dark for class 0 and bright for class 1."""
    labels = torch.arange(2 * per_class) % 2
    generator = torch.Generator().manual_seed(len(name))
    pixels = (
        60 + 120 * labels[:, None, None, None] + 20 * torch.randn((len(labels), 1, 8, 8), generator=generator)
    )
    return Split(
        task=TASK,
        name=name,
        images=PixelTensor(pixels.clamp(0, 255).to(torch.uint8)),
        labels=tuple(labels.tolist()),
        class_names=("dark", "bright"),
    )


def job(folder, **changes):
    """Return a training job on the tiny split whose state and checkpoints lie below `folder`."""
    values = {
        "split": split(),
        "train_indices": torch.arange(16),
        "held_out_indices": torch.arange(16, 20),
        "folder": folder / "zoo",
        "workspace": folder / "state",
        "device": torch.device("cpu"),
        "seed": 0,
        "command": "bench train",
    }
    return TrainingJob(**(values | changes))


def image_tree(root, per_class=4):
    """Write a data set for `--dataset folder --image-size 8` and return its root."""
    for part in ("train", "test"):
        for label, name in enumerate(("dark", "bright")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                colour = (60 + 120 * label + number,) * 3
                Image.new("RGB", (8, 8), colour).save(folder / f"{number}.png")
    return root


def arguments(root, *extra):
    """Return the options of a `bench run` on the image tree at `root` that ends in seconds."""
    changes = [
        f"--set={method}.{option}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for method, options in OPTIONS.items()
        for option, value in options.items()
    ]
    data = ["--dataset", "folder", "--data-dir", str(root / "data"), "--image-size", "8"]
    sizes = ["--n", "50", "--n0", "10", "--limit", "3", "--sigmas", "0.25,0.5", "--cost-repetitions", "2"]
    run = ["--methods", "rrcm,gaussian,consistency,dds"]
    return [*data, *sizes, *run, "--zoo", str(root / "zoo"), "--device", "cpu", *changes, *extra]


def bench(monkeypatch, *args):
    """Run a command of ours in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code
