"""A run before it is made: what n can certify, how sure I images are, and from a short measurement its time and memory.

The measurement certifies a few images with few samples and fits seconds = per image + samples x per sample.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import special

from bench.device.timing import instruments
from bench.methods import registry
from bench.report.markup import Block, Table, format_at_most, format_radius, format_significant
from bench.runs.entrant import Entrant
from bench.runs.progress import Estimate
from bench.runs.workbench import Entrants, Setup, certify_images, group_size, smoothed
from bench.smoothing.noise import NOISE_BLOCK
from bench.smoothing.stats import largest_radius, proportion_interval

BUDGET_SECONDS = 2.0
"""After how long no larger work is tried."""

ROUNDS = 3
"""Times each size is timed, unless that lasts too long; the shortest counts."""

Work = Callable[[int], object]
"""Certifies one image with this many samples in all."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one method takes on this machine.

    Attributes:
        load_seconds: until its classifier is ready, once for each sigma.
        image_seconds, sample_seconds: parts of an image's time; certified with s samples it takes their sum
            image_seconds + s * sample_seconds.
        memory_bytes: peak while it certifies; None where the system does not tell.
    """

    method: str
    load_seconds: float
    image_seconds: float
    sample_seconds: float
    memory_bytes: int | None = None

    def certificate_seconds(self, samples: int) -> float:
        """Return the time of one image."""
        return self.image_seconds + samples * self.sample_seconds

    def run_seconds(self, *, images: int, sigmas: int, samples: int, workers: int = 1) -> float:
        """Return the wall time of `workers` processes that share the images, each on a machine like this one."""
        most = math.ceil(images / workers)
        return sigmas * (self.load_seconds + most * self.certificate_seconds(samples))


def samples_for_radius(radius: float, alpha: float) -> int:
    """Return the least n whose largest certifiable radius reaches `radius`, in units of sigma, > 0.

    All n draws agree: Phi(radius) <= alpha^(1/n) (arXiv 1902.02918, Alg. 1 with Clopper-Pearson's bound).
    """
    n = max(1, round(math.log(alpha) / float(special.log_ndtr(radius))))
    while n > 1 and largest_radius(n - 1, alpha, 1.0) >= radius:
        n -= 1
    while largest_radius(n, alpha, 1.0) < radius:
        n += 1
    return n


def interval_width(images: int) -> float:
    """Return the width of the exact 95% interval of a share near 1/2 over this many images: the widest there is."""
    low, high = proportion_interval(images // 2, images, 0.95)
    return float(high - low)


def measure(
    method: str,
    load: Callable[[], Work],
    *,
    samples: tuple[int, int],
    clock: Callable[[], float] = time.perf_counter,
    budget_seconds: float = BUDGET_SECONDS,
) -> Timing:
    """Return the timing of a method.

    Args:
        load: makes the classifier ready.
        samples: the least and the most that its work can be asked for.
        clock: seconds, increasing.
        budget_seconds: time after which no larger work is tried.
    """
    start = clock()
    work = load()
    load_seconds = clock() - start
    least, most = samples
    work(least)
    size = least
    small = seconds = _shortest(work, least, clock, budget_seconds)
    while size < most and (size == least or seconds < budget_seconds / ROUNDS):
        size = min(most, 2 * size)
        seconds = _shortest(work, size, clock, budget_seconds)
    per_sample = (seconds - small) / (size - least) if size > least else 0.0
    if per_sample <= 0:  # no work that is larger by enough to take longer
        per_sample = seconds / size
    return Timing(
        method=method,
        load_seconds=load_seconds,
        image_seconds=max(0.0, seconds - size * per_sample),
        sample_seconds=per_sample,
    )


def _shortest(work: Work, size: int, clock: Callable[[], float], budget_seconds: float) -> float:
    """Return the shortest time of ROUNDS, or of as many as fit into the budget, at least one."""
    times: list[float] = []
    while not times or (len(times) < ROUNDS and sum(times) < budget_seconds):
        start = clock()
        work(size)
        times.append(clock() - start)
    return min(times)


def measure_entrant(setup: Setup, one: Entrant, batch_size: int) -> Timing:
    """Return a method's timing on this machine, with random weights where it is still to be trained."""
    config = setup.config
    together = min(group_size(setup, batch_size), len(setup.indices))
    indices = setup.indices[:together]

    def load() -> Work:
        classifier = smoothed(setup, one, batch_size)

        def work(samples: int) -> object:
            few = replace(config, estimation="fixed", n=samples - config.n0)
            return certify_images(replace(setup, config=few), one.method, classifier, indices)

        return work

    most = config.n0 + config.n
    least = min(config.n0 + NOISE_BLOCK, max(config.n0 + 1, most // 2))
    group = measure(one.method, load, samples=(least, most))
    return replace(
        group,
        image_seconds=group.image_seconds / together,
        sample_seconds=group.sample_seconds / together,
        memory_bytes=instruments(setup.device).peak_memory(lambda: load()(least)),
    )


QUICK_SECONDS = 0.2
"""A first image is certified with more samples until that takes as long."""

QUICK_SAMPLES = 128
"""With fewer samples the time is mostly that of the start, unless it is SLOW_SECONDS or more."""

SLOW_SECONDS = 2.0
"""A first image that takes as long is certified with more samples only while that takes little longer."""

OVERHEAD = 1.5
"""More samples in less than so many times the seconds: the time is mostly that of the start."""

GROWTH = 8
"""How many times more samples each try has."""


def quick_seconds(
    setup: Setup, one: Entrant, batch_size: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return about how long a certificate of a method takes, from the first image certified with few samples.

    It costs eight samples at least, and about a second of a quick classifier; a checkpoint that is missing counts with
    random weights. A compiled network takes whole batches only: fewer samples would take as long as one.
    """
    classifier = smoothed(setup, one, batch_size)
    asked = max(2, setup.config.n0 + setup.config.n)

    def taken(samples: int) -> float:
        few = replace(setup.config, estimation="fixed", n0=1, n=samples - 1)
        start = clock()
        certify_images(replace(setup, config=few), one.method, classifier, setup.indices[:1])
        return clock() - start

    least = 2 if setup.config.compile == "none" else min(asked, batch_size)
    taken(least)  # warms it up
    size, seconds, slope = least, taken(least), math.inf
    while size < asked and (size < QUICK_SAMPLES or seconds < QUICK_SECONDS):
        before, smaller = seconds, size
        size = min(asked, size * (2 if size == 2 and before >= SLOW_SECONDS else GROWTH))
        seconds = taken(size)
        slope = (seconds - before) / (size - smaller)
        if seconds >= SLOW_SECONDS and seconds > OVERHEAD * before:
            break
    return seconds + (asked - size) * min(max(slope, 0.0), seconds / size)


def training_seconds(one: Entrant, setup: Setup, certificate_seconds: float) -> float | None:
    """Return about how long the training of a missing checkpoint takes at most, by the time of its certificates.

    Each image of each step takes three forward passes, those of a gradient included; None where the options name no
    steps.
    """
    trained = registry.configure(one.method, setup.split.task, one.sigma, one.options)
    options = {name: value for name, value in vars(trained).items() if isinstance(value, int)}
    images = 0
    for name, steps in options.items():
        part = name.removesuffix("max_steps").removesuffix("steps")
        is_trained = options.get(part.rstrip("_")) is not False
        if is_trained and name.endswith(("max_steps", "pretrain_steps")):
            images += steps * options.get(f"{part}batch_size", options.get("batch_size", 0))
    copies = max(1, options.get("copies", 1))
    forwards = FORWARDS_WITH_GRADIENT * copies * images
    return forwards * certificate_seconds / (setup.config.n0 + setup.config.n) if images else None


FORWARDS_WITH_GRADIENT = 3
"""Forward passes that one with its gradient takes."""


def estimate(
    setup: Setup,
    entrants: Entrants,
    batch_sizes: Mapping[str, int],
    *,
    done: Collection[tuple[str, float, int]],
) -> Estimate:
    """Return what is to be done of a run and how long it takes here, measured on the first image of each method.

    Args:
        done: (method, sigma, index) of the certificates that are there.
    """
    left = {key: sum((*key, index) not in done for index in setup.indices) for key in entrants}
    each = {
        method: quick_seconds(setup, one, batch_sizes[method])
        for (method, sigma), one in entrants.items()
        if sigma == setup.config.sigmas[0] and any(left[key] for key in left if key[0] == method)
    }
    missing = {
        str(one.file_name): training_seconds(one, setup, each[one.method])
        for one in entrants.values()
        if one.is_missing and one.method in each
    }
    return Estimate(
        certificates=sum(left.values()),
        seconds=sum(count * each[key[0]] for key, count in left.items() if count),
        missing=missing,
    )


def time_table(timings: Sequence[Timing], *, images: int, sigmas: int, samples: int, workers: int) -> Table:
    """Return the predicted times, one row per method and one of all."""
    sizes: dict[str, Any] = {"images": images, "sigmas": sigmas, "samples": samples}
    one = [timing.run_seconds(**sizes) for timing in timings]
    many = [timing.run_seconds(**sizes, workers=workers) for timing in timings]
    each = images * sigmas * samples
    rows: list[tuple[str, ...]] = [
        (
            timing.method,
            f"{each:,}",
            format_significant(1 / timing.sample_seconds),
            format_significant(timing.certificate_seconds(samples)),
            format_significant(alone / 3600),
            format_significant(shared / 3600),
            _gibibytes(timing.memory_bytes),
        )
        for timing, alone, shared in zip(timings, one, many, strict=True)
    ]
    known = [timing.memory_bytes for timing in timings if timing.memory_bytes is not None]
    most = max(known) if known else None
    total = ("all", f"{len(timings) * each:,}", "", "")
    rows.append((*total, *(format_significant(sum(part) / 3600) for part in (one, many)), _gibibytes(most)))
    return Table(
        caption="Predicted from a short measurement on this machine",
        headers=(
            "method",
            "samples",
            "samples/s",
            "seconds per image",
            "hours",
            f"hours of {workers} worker{'s' * (workers > 1)}",
            "memory of a worker (GiB)",
        ),
        blocks=(Block(rows=tuple(rows)),),
        notes=(
            "Workers: each on a processor like this one, alone on it; memory counts once for each of them.",
            "Not counted: training, and the measurement of costs.",
        ),
    )


def protocol_sentences(
    n: int, alpha: float, sigmas: Sequence[float], images: int, radius: float
) -> list[str]:
    """Return what the sample and image counts allow, in one sentence each.

    Args:
        radius: the wanted radius, in pixel units, > 0.
    """
    largest = largest_radius(n, alpha, 1.0)
    needed = [
        f"{samples_for_radius(radius / sigma, alpha):,} at σ = {sigma:g}"
        if radius / sigma < 6  # beyond, more than 7 billion
        else f"out of reach at σ = {sigma:g}"
        for sigma in sigmas
    ]
    return [
        f"Largest radius that n = {n:,} certifies at α = {alpha:g} (fixed estimation, Clopper-Pearson): "
        f"{format_radius(largest, 2)} σ, so "
        + ", ".join(f"{format_radius(largest * sigma, 2)} at σ = {sigma:g}" for sigma in sigmas)
        + ".",
        f"n needed for a radius of {radius:g}: {', '.join(needed)}.",
        f"{images:,} images give a 95% interval of at most {format_at_most(interval_width(images))} percentage "
        "points from end to end.",
    ]


def _gibibytes(memory_bytes: int | None) -> str:
    return "unknown" if memory_bytes is None else f"{memory_bytes / 2**30:.2f}"
