"""New radii from stored counts: another level, another bound, fewer samples; no model, no noise; pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from bench.errors import UsageError
from bench.smoothing.estimation import Rule, bound_tail
from bench.smoothing.noise import image_uniform, stable_seed
from bench.smoothing.stats import radius
from bench.types import ABSTAIN, Bound, CostRecord, Estimation, Record, Run, RunHeader

DRAWN = "drawn_n"
"""Setting in the header of a run of fewer samples than were drawn: how many those were."""

Counts = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Level:
    """What certificates are asked to be: level alpha, n samples, and which bound."""

    alpha: float
    n: int
    bound: Bound


def recertify(run: Run, level: Level, command: str) -> Run:
    """Return the run with every radius computed anew from its counts.

    Fewer samples than the run has are a random part of them: their counts are drawn from the multivariate
    hypergeometric distribution, seeded by (seed, image, n), which is the distribution of the counts of any n of
    the samples. An image that was skipped stays incorrect.

    Args:
        run: with counts in every record that was not skipped.
        level: the same alpha for all images, chosen before seeing the radii.
        command: the command line, for the new header.

    Raises:
        UsageError: alpha or n lies outside its range, n is larger than the run's, sequential records are asked
            for fewer samples or another bound, or a record holds no counts.
    """
    _check(run.header, level)
    header = run.header
    return dataclasses.replace(
        run,
        header=dataclasses.replace(
            header,
            command=command,
            alpha=level.alpha,
            n=level.n,
            bound=level.bound,
            config=header.config | dataclasses.asdict(level) | _drawn(header, level),
        ),
        records=tuple(_recertified(record, header, level) for record in run.records),
        costs=tuple(_rescaled(measured, header.n0 + level.n) for measured in run.costs),
    )


def _drawn(header: RunHeader, level: Level) -> dict[str, int]:
    drawn = header.config.get(DRAWN, header.n)
    return {DRAWN: drawn} if level.n < drawn else {}


def _check(header: RunHeader, level: Level) -> None:
    if not 0 < level.alpha < 1:
        raise UsageError(f"alpha is {level.alpha:g}, expected 0 < alpha < 1")
    if not 1 <= level.n <= header.n:
        raise UsageError(f"n is {level.n}, expected 1 to {header.n}: the run holds no more samples per image")
    if header.estimation == "sequential" and (level.n, level.bound) != (header.n, header.bound):
        raise UsageError(
            "sequential records allow only their own n and bound: when they stopped depends on what they counted"
        )


def _recertified(record: Record, header: RunHeader, level: Level) -> Record:
    if record.is_skipped:
        return dataclasses.replace(record, n=level.n)
    if not record.counts_estimation:
        raise UsageError(
            f"image {record.index} of {record.method} holds no counts, so no other bound can follow: certify it again"
        )
    counts, seed = record.counts_estimation, header.seed
    if level.n < header.n:
        counts = _fewer(counts, level.n, stable_seed(seed, record.index, level.n, "recertify"))
    uniform = image_uniform(seed, record.index) if level.bound == "randomised" else None
    rule = Rule(
        n=level.n,
        alpha=level.alpha,
        estimation=_estimation(header),
        bound=level.bound,
        uniform=uniform or 0.0,
    )
    drawn = sum(count for _, count in counts)
    tail = bound_tail(dict(counts).get(record.selected, 0), drawn, rule)
    return dataclasses.replace(
        record,
        predict=record.selected if tail <= 0.5 else ABSTAIN,
        radius=radius(tail, record.sigma),
        counts_estimation=counts,
        n=level.n,
        samples=record.n0 + drawn,
        uniform=uniform,
    )


def _estimation(header: RunHeader) -> Estimation:
    return "sequential" if header.estimation == "sequential" else "fixed"


def _fewer(counts: Counts, n: int, seed: int) -> Counts:
    """Return the counts of n samples drawn without replacement from the counted ones."""
    drawn = np.random.default_rng(seed).multivariate_hypergeometric([count for _, count in counts], n)
    return tuple((label, int(count)) for (label, _), count in zip(counts, drawn, strict=True) if count)


def _rescaled(measured: CostRecord, samples: int) -> CostRecord:
    return dataclasses.replace(measured, samples_per_certificate=samples)
