"""An 80 GB card of stated rates on which plans of `bench cost` are done: no network is run, the clock is the work's."""

from dataclasses import dataclass, replace

from bench.cost.plan import COMPILED, ENERGY_SECONDS, TARGET_SECONDS, checked
from bench.cost.records import (
    OUT_OF_MEMORY,
    EnergyUse,
    Failure,
    LayoutTrial,
    MethodSize,
    Repetition,
    StageSplit,
    WholeImage,
)
from bench.device.batching import trial_batches
from bench.device.timing import FIRST_SECONDS
from tests.support.fake_costs import LOAD

GIB = 2**30
MEMORY, WEIGHTS, LAUNCH, FIRST = 79 * GIB, 7.2 * GIB, 7e-6, 12.0
"""Bytes of the card, and of all weights; seconds of a launch, and of a process's first batch."""


@dataclass(frozen=True)
class Card:
    """Operations and bytes per second. All rates are assumptions; none was measured."""

    float32: float = 40e12
    bfloat16: float = 550e12
    traffic: float = 2.8e12


@dataclass(frozen=True)
class Network:
    """Operations and live bytes of a sample, launches of a batch, and seconds that compiling takes."""

    flops: float
    live: float
    launches: int
    compiling: float
    calls: int = 1
    image: int = 224
    parameters: int = 10**8


_DDS = {"live": 0.63 * GIB, "launches": 3755, "compiling": 150.0, "image": 256, "parameters": 858_488_814}
IMAGENET = {
    "rrcm-s": Network(8.1e9, 0.004 * GIB, 300, 30.0),
    "rrcm-b": Network(35.3e9, 0.008 * GIB, 516, 40.0),
    "resnet50": Network(8.2e9, 0.004 * GIB, 700, 60.0),
    "dds": Network(2963e9, **_DDS),
    "dds-vit": Network(2274e9, **_DDS | {"parameters": 639_381_742}),
    "dds-multistep": Network(23.1e12, **_DDS, calls=10),
    "densepure": Network(231e12, **_DDS, calls=100),
    "consistency-model": Network(2960e9, **_DDS | {"parameters": 858_481_899}),
}
_SMALL = {"live": 0.02 * GIB, "launches": 2500, "compiling": 100.0, "image": 32, "parameters": 138_352_784}
CIFAR10 = {
    "rrcm-b": Network(11.4e9, 0.003 * GIB, 516, 40.0, image=32),
    "resnet110": Network(0.51e9, 0.0003 * GIB, 900, 60.0, image=32),
    "dds": Network(51.9e9, **_SMALL),
    "dds-multistep": Network(203e9, **_SMALL, calls=10),
    "densepure": Network(2029e9, **_SMALL, calls=100),
    "consistency-model": Network(51.9e9, **_SMALL | {"parameters": 138_349_325}),
}


def sizes(networks, architectures):
    """Return the lines that `bench cost` counts."""
    return [
        MethodSize(
            method=name,
            image=(3, one.image, one.image),
            parameters=one.parameters,
            flops=int(one.flops),
            calls=one.calls,
            batch_size=architectures[name].batch_size,
            published="",
            source="",
        )
        for name, one in networks.items()
    ]


class VirtualMeasurer:
    """Takes the place of `bench.cost.measure.Measurer`."""

    def __init__(self, networks, card, device, plan, file):
        self.networks, self.card, self.device, self.plan, self.file = networks, card, device, plan, file
        self.warm = set()

    def batch_seconds(self, step):
        one, precision = self.networks[step.method], step.setting.removesuffix(COMPILED)
        launches = one.launches * one.calls * (0.4 if step.setting.endswith(COMPILED) else 1.0)
        work = one.flops / getattr(self.card, precision)
        if precision != "float32":
            passes = 30 if step.setting.endswith(COMPILED) else 43
            work += passes * one.live * one.calls / self.card.traffic
        return launches * LAUNCH + step.batch_size * work

    def perform(self, step):
        one, size = self.networks[step.method], step.batch_size
        pair = {"method": step.method, "setting": step.setting, "batch_size": size}
        share = 1.0 if step.setting == "float32" else 0.7
        if WEIGHTS + 1.1 * share * size * one.live > MEMORY:
            self.device.now += 2.0
            return Failure(**pair, reason=OUT_OF_MEMORY)
        batch = self.batch_seconds(step)
        if step.kind == "layouts":
            self.device.now += 2 * trial_batches(batch) * batch
            return LayoutTrial(**pair, batch={"contiguous": batch, "channels-last": batch})
        warming = self.warm_up(step)
        session = self.file.run.sessions[-1].created
        batches = max(1, round(TARGET_SECONDS / batch))
        if step.kind == "repetition":
            seconds = batches * batch * (1 + 0.01 * (step.round % 3))
            self.device.now += seconds + (batch if batch < 10 and not warming else 0.0)
            line = Repetition(
                **pair, round=step.round, samples=batches * size, seconds=seconds, peak_memory_bytes=1
            )
            return replace(line, session=session, duel=step.duel, warming=warming, **vars(LOAD))
        if step.kind == "stages":
            self.device.now += batch
            return StageSplit(**pair, stages={"noise": batch, "host": 0.0})
        if step.kind == "energy":
            seconds = batch * batches * max(1, round(ENERGY_SECONDS / (batch * batches)))
            self.device.now += seconds
            return EnergyUse(**pair, samples=size, seconds=seconds, joules=seconds)
        images, samples = checked(self.plan, step.method, step.setting, self.file.run)
        seconds = (images * samples / size + 1) * batch
        self.device.now += seconds
        return WholeImage(**pair, samples=images * samples, seconds=seconds, images=images)

    def warm_up(self, step):
        if step.pair in self.warm:
            return 0.0
        seconds = 0.0 if self.warm else FIRST
        seconds += self.networks[step.method].compiling if step.setting.endswith(COMPILED) else 0.0
        batch = self.batch_seconds(step)
        seconds += batch if batch > 4 * TARGET_SECONDS + FIRST_SECONDS else 2 * batch
        self.warm.add(step.pair)
        self.device.now += seconds
        return seconds
