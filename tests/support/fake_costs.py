"""A device whose clock only the work moves, methods of known speed, and records of known values."""

from dataclasses import replace

import torch
from torch import nn

from bench.cost.measure import Measurement
from bench.cost.plan import Plan
from bench.cost.records import (
    COST_SCHEMA_VERSION,
    CostHeader,
    CostRun,
    CostSession,
    MethodSize,
    Repetition,
    open_cost_file,
    read_cost_run,
)
from bench.device.power import Load
from bench.device.timing import Instruments
from bench.training.architectures import Architecture
from bench.types import Task

TASK = Task(dataset="tiny", channels=1, image_size=4, num_classes=2)

HEADER = CostHeader(
    schema_version=COST_SCHEMA_VERSION,
    preset="tiny",
    dataset="imagenet",
    device="NVIDIA H200",
    device_type="cuda",
    sigma=0.5,
    steps=10,
    votes=10,
)
CPU = torch.device("cpu")

SESSION = CostSession(
    command="bench cost --preset tiny",
    created="2026-01-01T00:00:00+00:00",
    git_revision="abc",
    hardware={"cores": 2},
    libraries={"torch": "2"},
    n0=100,
    n=(900, 9900),
)
LOAD = Load(watts=500.0, temperature=60.0, clock_mhz=1900.0, throttling=(), other_processes=0)


class FakeDevice:
    """Time that passes by work alone, memory that a test sets, and a log of batches (s) and waits (w)."""

    def __init__(self):
        self.now, self.memory, self.log = 0.0, 1000, []

    def __deepcopy__(self, memo):
        """Return this one: a copied network is on the same device."""
        return self

    def wait(self):
        self.log.append("w")

    def peak_memory(self, work):
        work()
        return self.memory + 500

    def instruments(self, **changes):
        values = {
            "device": "fake",
            "type": "cuda",
            "clock": lambda: self.now,
            "synchronize": self.wait,
            "mark": lambda: self.now,
            "between": lambda start, end: end - start,
            "peak_memory": self.peak_memory,
            "memory_now": lambda: self.memory,
        }
        return Instruments(**(values | changes))


class Timed(nn.Module):
    """A classifier that takes `overhead` seconds for a batch and `seconds` for each of its samples."""

    def __init__(self, device, seconds, *, overhead=0.0, limit=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 16))
        self.device, self.costs, self.limit = device, (overhead, seconds), limit
        self.batches = []

    def fresh(self):
        """Return another module with the same costs, whose batches are noted here too."""
        other = type(self)(self.device, self.costs[1], overhead=self.costs[0], limit=self.limit)
        other.batches = self.batches
        return other

    def forward(self, x_noisy, sigma, keys=None):
        if self.limit is not None and len(x_noisy) > self.limit:
            raise RuntimeError("CUDA out of memory")
        if x_noisy.device.type != "meta":
            self.batches.append(len(x_noisy))
            self.device.log.append("s")
            self.device.now += self.costs[0] + self.costs[1] * len(x_noisy)
        return x_noisy.flatten(1) @ self.weight.T


class Machine:
    """A device, methods on it, and the measurement of a plan in a folder."""

    def __init__(self, folder):
        self.folder, self.device = folder, FakeDevice()
        self.modules = {}

    def method(self, name, seconds, *, overhead=0.0, limit=None, **changes):
        self.modules[name] = Timed(self.device, seconds, overhead=overhead, limit=limit)
        return architecture(name, self.modules[name], **changes)

    def measure(self, asked, *, max_seconds=None, stop_after=None, created=SESSION.created, **instruments):
        """Do what is left, or `stop_after` steps of it, and return the steps done."""
        meters, done = self.device.instruments(**instruments), []
        with open_cost_file(self.folder, HEADER) as file:
            file.append(replace(SESSION, created=created))
            for step in Measurement(asked, file, meters, CPU, 0.5).steps(self.device.now, max_seconds):
                done.append(step)
                if len(done) == stop_after:
                    break
        return done

    @property
    def run(self):
        return read_cost_run(self.folder)


def architecture(name, module, **changes):
    one = Architecture(
        name=name, task=TASK, build=lambda make: module.fresh(), batch_size=8, source="a paper"
    )
    return replace(one, **changes)


def plan(*architectures, **changes):
    values = {
        "architectures": {one.name: one for one in architectures},
        "settings": ("float32",),
        "batch_sizes": (1, 8),
        "sweep": (1, 8),
        "device_type": "cuda",
        "repetitions": 3,
        "n0": 10,
        "n": (30,),
    }
    return Plan(**(values | changes))


def size(method, **changes):
    values = {"image": (3, 224, 224), "parameters": 10**6, "flops": 2 * 10**9, "calls": 1}
    texts = {"batch_size": 8, "published": "", "source": ""}
    return MethodSize(method=method, **(values | texts | changes))


def repetitions(method, seconds, *, setting="float32", batch_size=8, samples=80, **changes):
    """Return one repetition per value of `seconds`."""
    return tuple(
        Repetition(
            method=method,
            setting=setting,
            batch_size=batch_size,
            round=number,
            samples=samples,
            seconds=value,
            peak_memory_bytes=2**30,
            **(vars(LOAD) | changes),
        )
        for number, value in enumerate(seconds)
    )


def cost_run(tmp_path, *, sizes, timed, **changes):
    values = {"sessions": (SESSION,), "sizes": tuple(sizes), "repetitions": tuple(timed)}
    return CostRun(folder=tmp_path, header=HEADER, **(values | changes))
