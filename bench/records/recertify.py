"""New radii from stored counts: another level, another bound, fewer samples; no model, no noise; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.config.levels import check_alpha
from bench.errors import UsageError
from bench.records.meaning import part_of
from bench.smoothing.estimation import certified_radius, composed
from bench.smoothing.noise import bound_uniform, stable_seed
from bench.types import ABSTAIN, CostRecord, Protocol, Record, Run, RunHeader

Counts = tuple[tuple[int, int], ...]

MOST_COUNTED = 10**9
"""Samples of which numpy draws a random part, below this number."""


def recertify(run: Run, protocol: Protocol, command: str) -> Run:
    """Return the run with every radius computed anew from its counts.

    Fewer samples than the run has are a random part of them: their counts are drawn from the multivariate
    hypergeometric distribution, seeded by (seed, image, n), which is the distribution of the counts of any n of
    the samples. An image that was skipped stays incorrect.

    Args:
        run: with counts in every record that was not skipped.
        protocol: the run's with another alpha, n or bound; alpha is chosen before seeing the radii.
        command: the command line, for the new header.

    Raises:
        UsageError: alpha or n lies outside its range, n is larger than the run's, records that stopped early are asked
            for another n, those of a confidence sequence for another bound, or a record holds no counts.
    """
    header = run.header
    _check(header, protocol)
    changed: dict[str, Any] = {"alpha": protocol.alpha, "n": protocol.n, "bound": protocol.bound}
    unmeasured = {} if run.costs else {"cost_repetitions": 0}  # this command cannot be continued
    records = tuple(_recertified(record, header, protocol) for record in run.records)
    drawn, sampled = header.drawn_n or header.n, header.drawn_alpha or header.alpha
    return replace(
        run,
        header=replace(
            header,
            command=command,
            config=header.config | changed | unmeasured,
            drawn_n=drawn if protocol.n < drawn else None,
            drawn_alpha=sampled if header.stops_early and protocol.alpha != sampled else None,
            **changed,
        ),
        records=records,
        costs=tuple(_rescaled(measured, records, header.n0 + protocol.n) for measured in run.costs),
    )


def _check(header: RunHeader, protocol: Protocol) -> None:
    check_alpha(protocol.alpha)
    if not 1 <= protocol.n <= header.n:
        raise UsageError(
            f"n is {protocol.n}, expected 1 to {header.n}: the run holds no more samples per image"
        )
    if protocol.n < header.n and header.n >= MOST_COUNTED:
        raise UsageError(
            f"n is {protocol.n}, a part of {header.n} samples, and parts are drawn of fewer than {MOST_COUNTED:,}: "
            "leave --n out"
        )
    if header.stops_early and protocol.n != header.n:
        raise UsageError(
            f"{header.estimation} records allow only their own n, {header.n}: when they stopped depends on what they "
            "counted"
        )
    if header.estimation == "confidence-sequence" and protocol.bound != header.bound:
        raise UsageError(f"confidence-sequence records allow only their own bound, {header.bound}")


def _recomposed(record: Record, header: RunHeader, protocol: Protocol) -> Record:
    """Return a composed record with each of its bounds computed anew at its share of alpha."""
    bounds = []
    for position, one in enumerate(record.bounds):
        part, counts = part_of(protocol, position, one.share), one.counts_estimation
        if protocol.n < header.n:
            seed = stable_seed(header.seed, record.index, protocol.n, "recertify", position)
            counts = _fewer(counts, protocol.n, seed)
        k, drawn = dict(counts).get(one.selected, 0), sum(count for _, count in counts)
        radius = certified_radius(k, drawn, part, one.sigma, bound_uniform(part, record.index))
        predict = ABSTAIN if radius is None else one.selected
        bounds.append(replace(one, predict=predict, radius=radius or 0.0, counts_estimation=counts))
    predict, smallest = composed(bounds)
    return replace(
        record,
        predict=predict,
        radius=smallest,
        counts_estimation=bounds[-1].counts_estimation,
        n=protocol.n,
        samples=sum(count for one in bounds for _, count in one.counts_selection + one.counts_estimation),
        uniform=bound_uniform(protocol, record.index),
        bounds=tuple(bounds),
    )


def _recertified(record: Record, header: RunHeader, protocol: Protocol) -> Record:
    if record.bounds:
        return _recomposed(record, header, protocol)
    if record.is_skipped:
        return replace(record, n=protocol.n, uniform=bound_uniform(protocol, record.index))
    if not record.counts_estimation:
        raise UsageError(
            f"image {record.index} of {record.method} holds no counts, so no other bound can follow: certify it again"
        )
    counts, seed = record.counts_estimation, header.seed
    if protocol.n < header.n:
        counts = _fewer(counts, protocol.n, stable_seed(seed, record.index, protocol.n, "recertify"))
    uniform = bound_uniform(protocol, record.index)
    drawn = sum(count for _, count in counts)
    count = dict(counts).get(record.selected, 0)
    radius = certified_radius(count, drawn, protocol, record.sigma, uniform)
    return replace(
        record,
        predict=ABSTAIN if radius is None else record.selected,
        radius=radius or 0.0,
        counts_estimation=counts,
        n=protocol.n,
        samples=record.n0 + drawn,
        uniform=uniform,
    )


def _fewer(counts: Counts, n: int, seed: int) -> Counts:
    """Return the counts of n samples drawn without replacement from the counted ones."""
    drawn = np.random.default_rng(seed).multivariate_hypergeometric([count for _, count in counts], n)
    return tuple((label, int(count)) for (label, _), count in zip(counts, drawn, strict=True) if count)


def _rescaled(measured: CostRecord, records: Sequence[Record], least: int) -> CostRecord:
    """Return a cost of as many samples as the median certificate of its method asks for; `least` without any."""
    asked = [record.samples_asked for record in records if record.method == measured.method]
    return replace(measured, samples_per_certificate=int(np.median(asked)) if asked else least)
