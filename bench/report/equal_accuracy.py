"""Certificates joined with cost: how fast methods reach the same certified accuracy, and accuracy by seconds; pure.

Of the n samples that a record counts, any n' are distributed as a certificate with n' samples would have drawn them:
how many show the class is hypergeometric. So the accuracy expected at any n' <= n follows exactly from the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special, stats

from bench.errors import ProtocolError, RecordsError, UsageError
from bench.report.comparison import stopped_trainings
from bench.report.markup import Block, Table, format_percent, format_significant
from bench.report.metrics import group
from bench.report.rates import REFERENCE, samples_per_second
from bench.report.write import write
from bench.smoothing.stats import upper_tail
from bench.types import Record, Run, RunHeader

RATIO = 1.03
"""Between neighbouring sample counts that are tried."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Accuracy of one method by cost.

    Attributes:
        samples: n' tried, ascending, the last being n.
        sigmas: the best one with each n', chosen on the certified images.
        accuracy: expected share of all images that are certified at the radius with n' samples at that sigma.
        seconds: of n0 + n' samples, at the measured throughput.
    """

    method: str
    samples: tuple[int, ...]
    sigmas: tuple[float, ...]
    accuracy: tuple[float, ...]
    seconds: tuple[float, ...]

    def first_reaching(self, accuracy: float) -> int:
        """Return the position of the fewest samples with which at least this accuracy is expected."""
        reached = np.asarray(self.accuracy) >= accuracy - 1e-12
        return int(np.argmax(reached))


@dataclass(frozen=True, kw_only=True)
class EqualAccuracy:
    """A method and the reference at the highest accuracy that both reach: each with the fewest samples for it.

    Attributes:
        sigma: the method's best one with these samples.
        accuracy: the lower one of both at all n samples; own and that of the reference stand beside it.
        speedup: seconds of the reference over those of the method.
    """

    method: str
    sigma: float
    own_accuracy: float
    reference_accuracy: float
    accuracy: float
    samples: int
    reference_samples: int
    seconds: float
    reference_seconds: float

    @property
    def speedup(self) -> float:
        """Return how many times the reference's seconds are the method's."""
        return self.reference_seconds / self.seconds


def least_count(n: int, alpha: float, radius: float, sigma: float) -> int:
    """Return the fewest successes among n draws that certify the radius; n + 1 where none do.

    They are those whose Clopper-Pearson bound gives sigma Phi^-1(p_lower) >= radius (arXiv 1902.02918, Alg. 1).
    """
    allowed = float(special.ndtr(-radius / sigma))
    low, high = 0, n + 1
    while low < high:
        middle = (low + high) // 2
        if upper_tail(middle, n, alpha) <= allowed:
            high = middle
        else:
            low = middle + 1
    return low


def expected_accuracy(records: Sequence[Record], n: int, alpha: float, radius: float) -> float:
    """Return the expected share of all images certified at the radius if n of each one's samples were drawn.

    Args:
        records: of one method at one sigma, fixed estimation, each with at least n estimation samples.
        radius: L2, pixel units, >= 0.
    """
    needed = least_count(n, alpha, radius, records[0].sigma)
    correct = [record for record in records if record.selected == record.label]
    totals = np.array([record.n for record in correct])
    hits = np.array([dict(record.counts_estimation).get(record.label, 0) for record in correct])
    return float(np.sum(stats.hypergeom.sf(needed - 1, totals, hits, n))) / len(records)


def curves(run: Run, radius: float) -> tuple[Curve, ...]:
    """Return the curve of each method that was certified and timed, in the order of the header.

    Raises:
        UsageError: the radius is negative.
        ProtocolError: the run's samples were not spent as fixed estimation with Clopper-Pearson does, or not stored.
        RecordsError: no method has both certificates and a measured cost.
    """
    _check(run, radius)
    groups, costs = group(run.records), {cost.method: cost for cost in run.costs}
    found = []
    for method in run.header.methods:
        by_sigma = {sigma: records for (name, sigma), records in groups.items() if name == method}
        if not by_sigma or method not in costs:
            continue
        rate = samples_per_second(costs[method]).median
        found.append(_curve(method, by_sigma, run.header, radius=radius, rate=rate))
    if not found:
        raise RecordsError(
            f"{run.folder} has no method with certificates and a measured cost: "
            "repeat its `bench run` with --cost-repetitions 10"
        )
    return tuple(found)


def _curve(
    method: str, by_sigma: Mapping[float, Sequence[Record]], header: RunHeader, *, radius: float, rate: float
) -> Curve:
    tried = _sample_counts(header.n)
    best = [
        max(
            (expected_accuracy(records, n, header.alpha, radius), -sigma)
            for sigma, records in by_sigma.items()
        )
        for n in tried
    ]
    return Curve(
        method=method,
        samples=tried,
        sigmas=tuple(-negative for _, negative in best),
        accuracy=tuple(accuracy for accuracy, _ in best),
        seconds=tuple((header.n0 + n) / rate for n in tried),
    )


def _check(run: Run, radius: float) -> None:
    if radius < 0:
        raise UsageError(f"--radius is {radius:g}, expected radius >= 0")
    header = run.header
    if (header.estimation, header.bound) != ("fixed", "clopper-pearson"):
        raise ProtocolError(
            f"{run.folder} has {header.estimation} estimation and the {header.bound} bound: equal accuracy needs "
            "fixed estimation with clopper-pearson"
        )
    if not all(record.has_counts for record in run.records):
        raise ProtocolError(f"{run.folder} holds records without counts: equal accuracy follows from counts")


def _sample_counts(n: int) -> tuple[int, ...]:
    """Return counts from 1 to n, neighbours about RATIO apart."""
    steps = int(np.ceil(np.log(n) / np.log(RATIO))) + 1
    return tuple(sorted({round(value) for value in np.geomspace(1, n, steps)}))


def at_equal_accuracy(found: Sequence[Curve], reference: str = REFERENCE) -> tuple[EqualAccuracy, ...]:
    """Return every method beside the reference, the reference itself among them.

    Raises:
        RecordsError: the reference is not among the curves.
    """
    base = next((curve for curve in found if curve.method == reference), None)
    if base is None:
        raise RecordsError(
            f"no certificates and measured cost of {reference}: equal accuracy is relative to it; run it too"
        )
    return tuple(_against(curve, base) for curve in found)


def _against(curve: Curve, base: Curve) -> EqualAccuracy:
    common = min(curve.accuracy[-1], base.accuracy[-1])
    own, other = curve.first_reaching(common), base.first_reaching(common)
    return EqualAccuracy(
        method=curve.method,
        sigma=curve.sigmas[own],
        own_accuracy=curve.accuracy[-1],
        reference_accuracy=base.accuracy[-1],
        accuracy=common,
        samples=curve.samples[own],
        reference_samples=base.samples[other],
        seconds=curve.seconds[own],
        reference_seconds=base.seconds[other],
    )


def pareto(found: Sequence[Curve]) -> list[tuple[float, float, str]]:
    """Return (seconds, accuracy, method) of the points that no other beats in both, seconds ascending."""
    points = sorted(
        (seconds, -accuracy, curve.method)
        for curve in found
        for seconds, accuracy in zip(curve.seconds, curve.accuracy, strict=True)
    )
    front: list[tuple[float, float, str]] = []
    for seconds, negative, method in points:
        if -negative > (front[-1][1] if front else 0.0):
            front.append((seconds, -negative, method))
    return front


def equal_accuracy_table(run: Run, compared: Sequence[EqualAccuracy], radius: float, command: str) -> Table:
    """Return one row per method."""
    lines = tuple(
        (
            one.method,
            f"{one.sigma:g}",
            format_percent(one.own_accuracy),
            format_percent(one.accuracy),
            f"{one.samples:,}",
            f"{one.reference_samples:,}",
            format_significant(one.seconds),
            format_significant(one.reference_seconds),
            format_significant(one.speedup),
        )
        for one in compared
    )
    images = len({record.index for record in run.records})
    return Table(
        caption=f"Speed at equal certified accuracy, radius {radius:g}",
        headers=(
            "method",
            "σ",
            "certified (%)",
            "compared at (%)",
            "samples n",
            f"samples n of {REFERENCE}",
            "s per image",
            f"s per image of {REFERENCE}",
            "speedup",
        ),
        blocks=(Block(title="", rows=lines),),
        notes=(
            f"Made by: {command}",
            "Each method at its best σ for its samples, chosen on the certified images; compared at the lower of both "
            "accuracies: the fewest samples with which each is expected to reach it, exactly by the hypergeometric "
            f"distribution, of the {run.header.n:,} that were drawn on {images} images; n0 = {run.header.n0} for "
            f"selection always. Seconds by measured throughput ({run.costs[0].device}).",
            *stopped_trainings([run], [run.folder.name]),
        ),
    )


def write_equal_accuracy(table: Table, compared: Sequence[EqualAccuracy], folder: Path) -> list[Path]:
    """Write equal_accuracy.csv, unrounded, and equal_accuracy.md, and return their paths."""
    frame = pd.DataFrame([vars(one) | {"speedup": one.speedup} for one in compared])
    return write(folder, "equal_accuracy", frame, table)
