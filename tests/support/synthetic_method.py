"""A method without a checkpoint: the brightness of an image against a threshold; and commands that know it."""

import os
import signal
import sys
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch

from bench.config import methods
from bench.types import Task
from tests.support.tiny import image_tree

PROGRAM = (
    "from bench.config import methods; from tests.support import synthetic_method as m; "
    "methods.BUILT_IN.update(m.ENTRY); from bench.cli import main; main()"
)
"""A program for `python -c` that is `bench` with this method."""

ENTRY = {
    "brightness": methods.MethodEntry(
        name="brightness", module="tests.support.synthetic_method", summary="bright or dark"
    )
}


SOURCE = "from tests.support.synthetic_method import Config, build"
"""The module of an installed package that offers this method; see `tests.methods.test_registry.install`."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the harness gives every method; it has no options of its own."""

    task: Task
    sigma: float


FAULTS = {
    "nan": lambda logits: logits * torch.nan,
    "infinite": lambda logits: logits + torch.inf,
    "classes": lambda logits: logits[:, :1],
    "samples": lambda logits: logits[1:],
    "dimensions": lambda logits: logits[..., None],
    "nothing": lambda logits: None,
    "terminate": lambda logits: os.kill(os.getpid(), signal.SIGTERM) or logits,
}


class Brightness:
    """Class 1 where the mean pixel exceeds 0.28, which noise of 0.25 changes often for the dark images.

    `fault` names what it does wrong from the `at`-th call on, counted from 0; a test sets it while it breaks
    the method, so that the mended one is run by the same command.
    """

    calls: ClassVar[int] = 0
    fault: ClassVar[str] = ""
    at: ClassVar[int] = 0

    def __call__(self, x_noisy, sigma, keys=None):
        margin = x_noisy.mean((1, 2, 3)) - 0.28
        logits = torch.stack([torch.zeros_like(margin), margin], 1)
        Brightness.calls += 1
        if Brightness.calls <= self.at or not self.fault:
            return logits
        if self.fault == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return FAULTS[self.fault](logits)


def build(config, checkpoint):
    """Return the classifier."""
    Brightness.calls = 0
    return Brightness()


def register(monkeypatch):
    """Add the method in this process."""
    monkeypatch.setitem(methods.BUILT_IN, "brightness", ENTRY["brightness"])


def arguments(root, *extra):
    """Return the options of a `bench run` of this method on a data set made at root/data: 2 x 8 records."""
    if not (root / "data").exists():
        image_tree(root / "data")
    data = ["--dataset", "folder", "--data-dir", root / "data", "--image-size", 8, "--device", "cpu"]
    sizes = [
        "--n",
        100,
        "--n0",
        10,
        "--sigmas",
        "0.25,0.5",
        "--methods",
        "brightness",
        "--cost-repetitions",
        1,
    ]
    return [str(argument) for argument in (*data, *sizes, *extra)]


def command(root, *extra):
    """Return the command line of such a run in a process of its own."""
    return [sys.executable, "-P", "-c", PROGRAM, "run", *arguments(root, *extra)]


def without_times(run):
    """Return what two equal runs' records share, in order."""
    return [asdict(record) | {"seconds": 0} for record in run.records]
