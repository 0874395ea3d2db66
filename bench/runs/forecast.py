"""A run before it is made: what n can certify, how sure I images are, and from a short measurement its time and memory.

The measurement certifies a few images with few samples and fits seconds = per image + samples x per sample.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import special

from bench.device.timing import instruments
from bench.report.markup import Block, Table, format_percent, format_radius, format_significant
from bench.runs.entrant import Entrant
from bench.runs.workbench import Setup, certify_images, group_size, smoothed
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
    per_sample = (seconds - small) / (size - least) if size > least else seconds / size
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
    least = min(most, config.n0 + NOISE_BLOCK)
    group = measure(one.method, load, samples=(least, most))
    return replace(
        group,
        image_seconds=group.image_seconds / together,
        sample_seconds=group.sample_seconds / together,
        memory_bytes=instruments(setup.device).peak_memory(lambda: load()(least)),
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
        f"{images:,} images give a 95% interval of at most {format_percent(interval_width(images))} percentage "
        "points from end to end.",
    ]


def _gibibytes(memory_bytes: int | None) -> str:
    return "unknown" if memory_bytes is None else f"{memory_bytes / 2**30:.2f}"
